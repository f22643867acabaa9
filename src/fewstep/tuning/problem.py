"""What every tuner is given, and what it is asked for."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fewstep.analysis.reference import reference_ends
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.guidance import Guide
from fewstep.noise import KeyedNoise
from fewstep.plan import Plan
from fewstep.sampling import sample


@dataclass
class Problem:
    """A model and the number of evaluations that a sample of it may cost.

    Args:
        denoiser: the model.
        evaluations: what a sample may cost, guidance not counted.
        data: samples (n, *shape) of what it was trained on, or a spectrum of variances (d,); None where there is none.
        budget: evaluations of the network that the tuning may spend in all, references included; None is no limit.
        seed: of everything random.
        cond, guides: as in `sample`; a condition's rows are dealt out to the noises in turn.
        samples: how many noises a tuner sees at a time.
        tell: called with a line now and then.
        spent: evaluations of the network so far, summed over samples.
    """

    denoiser: Denoiser
    evaluations: int
    data: Tensor | None = None
    budget: int | None = None
    seed: int = 0
    cond: Mapping[str, Any] = field(default_factory=dict)
    guides: Sequence[Guide] = ()
    samples: int = 64
    tell: Callable[[str], None] = lambda line: None
    spent: int = 0

    def condition(self, n: int) -> dict[str, Any]:
        """The conditions of n noises."""
        ready = {}
        for key, value in self.cond.items():
            many = isinstance(value, (Sequence, Tensor)) and not isinstance(value, str)
            ready[key] = [value[i % len(value)] for i in range(n)] if many else value  # type: ignore[arg-type,index]
            if many and isinstance(value, Tensor):
                ready[key] = torch.stack(ready[key])
        return ready

    def starts(self, n: int, part: int) -> Tensor:
        """n noises at t = 1, float64; other parts are other noises, part 0 is kept for judging."""
        noise = KeyedNoise(self.seed, range(part * 2**32, part * 2**32 + n), self.denoiser.shape, torch.float64, "cpu")
        return noise.start() * self.denoiser.path.sigma(1.0)

    def pairs(self, n: int, part: int) -> tuple[Tensor, Tensor]:
        """n noises at t = 1 and where the flow takes them."""
        start = self.starts(n, part)
        ends, _, evaluations = reference_ends(self.denoiser, start, self.condition(n), self.guides)
        self.spent += evaluations * n
        return start, ends

    def run(self, plan: Plan, start: Tensor, grad: bool = False) -> Tensor:
        """Where a plan takes noises; its evaluations are counted."""
        out = sample(
            self.denoiser, start=start, plan=plan, cond=self.condition(len(start)), guides=self.guides, grad=grad
        )
        self.spent += out.stats.evaluations * len(start)
        return out.x

    def error(self, plan: Plan, start: Tensor, ends: Tensor) -> float:
        """The median over samples of the RMSE to the flow's ends."""
        return float((self.run(plan, start) - ends).flatten(1).square().mean(1).sqrt().median())

    def left(self) -> bool:
        """Whether the budget allows more."""
        return self.budget is None or self.spent < self.budget

    def spectrum(self) -> Tensor:
        """The variances (d,) of the data: given, those of `data`, or every scale that data in a range of 2 can have."""
        if self.data is None:
            return torch.logspace(-4, 0.5, 48, dtype=torch.float64)
        if self.data.ndim == 1:
            return self.data.double()
        if tuple(self.data.shape[1:]) != self.denoiser.shape or len(self.data) < 2:
            raise ArgumentError(
                f"data must be a spectrum (d,) or samples (n, {self.denoiser.shape}), got {tuple(self.data.shape)}"
            )
        flat = self.data.flatten(1).double()
        values = torch.linalg.svdvals(flat - flat.mean(0)).square() / (len(flat) - 1)
        return torch.cat([values, torch.zeros(max(0, flat.shape[1] - len(values)), dtype=torch.float64)])


class Tuner(ABC):
    """Makes the plan of a problem; a frozen dataclass with its method's parameters."""

    @abstractmethod
    def __call__(self, problem: Problem) -> Plan:
        """The tuned plan; it has at most `problem.evaluations` evaluations."""


def stopwatch() -> Callable[[], float]:
    """Seconds since it was made."""
    began = time.perf_counter()
    return lambda: time.perf_counter() - began
