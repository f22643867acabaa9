"""What every search shares: the call, the checks, and what it gives back."""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.loops.base import refuse_bad
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.results import Output, Stats
from fewstep.search.particles import Weights
from fewstep.session import Session, prepare


@dataclass(frozen=True)
class SearchStats(Stats):
    """What a search cost a sample: network evaluations of all its particles, and how many pictures were scored.

    Args:
        rewards: pictures that the reward was asked about, a sample.
    """

    rewards: int = 0


@dataclass(frozen=True)
class Found(Output):
    """What a search gives back.

    Args:
        x: one sample a run, (runs, *shape).
        rewards: the reward of each sample, float64 (runs,).
        particles: (runs, k, *shape), where a run has several at its end.
        scores: their rewards, float64 (runs, k).
        weights: what is known of their weights: shares, effective sizes, ancestry, evidence.
    """

    stats: SearchStats
    rewards: Tensor | None = None
    particles: Tensor | None = None
    scores: Tensor | None = None
    weights: Weights | None = None


@dataclass(frozen=True)
class Ending:
    """What a search found, before the call makes a `Found` of it; the fields are those of `Found`."""

    x: Tensor
    evaluations: int
    calls: int
    rewards: Tensor | None = None
    particles: Tensor | None = None
    scores: Tensor | None = None
    weights: Weights | None = None


class Search(ABC):
    """A search towards a reward; a frozen dataclass whose fields are the method's parameters.

    `sample(denoiser, n, search=…)` calls it: n runs that know nothing of one another, one sample each.
    """

    solver: ClassVar[str] = "ddpm"

    @abstractmethod
    def run(self, session: Session, started: bool) -> Ending:
        """Search with what `prepare` made, one row a run; `started` tells whether its start was given."""

    def paths(self) -> int:
        """How many paths of the plan a run takes, by which `evaluations` is divided."""
        return 1

    def opening(self, path: Path) -> Plan | None:
        """A plan on levels of the search's own, where it takes no other."""
        return None

    def options(self, denoiser: Denoiser, options: dict[str, Any]) -> dict[str, Any]:
        """The options of `prepare` from those of the call."""
        own = self.opening(denoiser.path)
        names = {"noise", "grad", "debug"} | ({"solver", "grid", "steps", "evaluations", "plan"} if own else set())
        refused = sorted(names & set(options))
        if refused:
            raise ArgumentError(f"{type(self).__name__} takes no {refused[0]}")
        if own is not None:
            return {**options, "plan": own}
        if options.get("plan") is None:
            options = {"solver": self.solver, **options}
        if options.get("evaluations") is not None:
            options = {**options, "evaluations": options["evaluations"] // self.paths()}
            if options["evaluations"] < 1:
                raise ArgumentError(f"evaluations must be at least {self.paths()} here, one for each path of a run")
        return options

    def __call__(self, denoiser: Denoiser, n: int | None = None, **options: Any) -> Found:
        """Search; the arguments are those of `fewstep.sample`, but for noise, grad, debug, keep, progress, callback.

        `evaluations` counts those of all particles of a run.  A given start is where every particle of its run begins.

        Raises:
            ArgumentError: a bad argument, before the first evaluation; a reward of the wrong shape, at its first call.
            NumericalError: the network or the reward answered with NaN or Inf.
        """
        began = time.perf_counter()
        if not isinstance(denoiser, Denoiser):
            raise ArgumentError(
                f"denoiser must be a fewstep denoiser (see fewstep.wrap), got {type(denoiser).__name__}"
            )
        session = prepare(denoiser, n, **self.options(denoiser, dict(options)))
        with torch.no_grad():
            end = self.run(session, options.get("start") is not None)
        refuse_bad(end.x, "the samples")
        if end.weights is not None:
            end.weights.warn()
        return Found(
            x=end.x, stats=SearchStats(end.evaluations, time.perf_counter() - began, end.calls),
            plan=session.program.plan,
            seeds=[(session.noise.seed, number) for number in session.noise.samples], limits=denoiser.limits,
            rewards=end.rewards, particles=end.particles, scores=end.scores, weights=end.weights,
        )  # fmt: skip
