"""What every search shares: the call, the checks, and what it gives back."""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.grids.karras import descend
from fewstep.loops.base import refuse_bad
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.results import Output, Stats
from fewstep.search.particles import Weights, count
from fewstep.session import Session, prepare


@dataclass(frozen=True)
class SearchStats(Stats):
    """What a search cost a sample: network evaluations of all its particles, and how many pictures were scored.

    Args:
        rewards: pictures that the reward was asked about, a sample.
    """

    rewards: int = 0


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        """A line, as the tensors of all particles would fill pages."""
        spent = f"{self.stats.evaluations} evaluations and {self.stats.rewards} rewards a sample"
        told = (
            ""
            if self.rewards is None
            else f", rewards {float(self.rewards.min()):.4g} … {float(self.rewards.max()):.4g}"
        )
        return f"<Found {len(self.x)} samples of {tuple(self.x.shape[1:])} by {self.by}{told}; {spent}>"


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


def descending(path: Path, steps: int, sigma_max: float, sigma_min: float) -> Plan:
    """Karras' levels of a search of its own, as a plan of the flow; from the path's own first level if that is less."""
    highest = torch.as_tensor(sigma_max, dtype=torch.float64).log().neg()
    start = min(1.0, float(path.t_of_lam(highest))) if float(path.lam(1.0)) < float(highest) else 1.0
    return make_plan(path, "ddim", descend(path, steps, start, sigma_max, sigma_min, 7.0))


def described(search: "Search") -> str:
    """The search and those of its parameters that are numbers, words or choices."""
    plain = (bool, int, float, str, type(None))
    told = [(f.name, getattr(search, f.name)) for f in fields(search)]  # type: ignore[arg-type]
    return f"{type(search).__name__}({', '.join(f'{k}={v!r}' for k, v in told if isinstance(v, plain))})"


class Search(ABC):
    """A search towards a reward; a frozen dataclass whose fields are the method's parameters.

    `sample(denoiser, n, search=…)` calls it: n runs that know nothing of one another, one sample each.
    """

    # The argument of `sample` that takes it.
    role: ClassVar[str] = "search"
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
        asked = options.get("evaluations")
        if asked is not None:
            count("evaluations", asked)
            if asked < self.paths():
                raise ArgumentError(f"evaluations must be at least {self.paths()} here, one for each path of a run")
            options = {**options, "evaluations": asked // self.paths()}
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
            model=denoiser.name, by=described(self), rewards=end.rewards, particles=end.particles, scores=end.scores,
            weights=end.weights,
        )  # fmt: skip
