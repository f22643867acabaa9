"""What restorers share: guides that pull answers towards a measurement, and loops of their own that do.

Three ways in which a correction δ of x̂₀ enters, which are not the same method:

    guide       x̂₀′ = x̂₀ + δ, ε̂ follows from it          (keeps = "x")
    kept ε̂     x̂₀′ = x̂₀ + δ, ε̂ stays                   (keeps = "eps"): a one-step solver moves x′ by α′·δ
    added       x′ ← x′ + g after the step                 the same as kept ε̂ with δ = g/α′
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.grids import Grid
from fewstep.guidance import Ask, Guide
from fewstep.loops import Loop
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.restoration.measurement import Measurement
from fewstep.solvers import Solver


@dataclass(frozen=True)
class Level:
    """Where a guide stands: (α, σ) of the state and of the state after the step, as numbers.

    `ratio` is σ/α, ∞ where α = 0.
    """

    alpha: float
    sigma: float
    alpha_next: float
    sigma_next: float

    @property
    def ratio(self) -> float:
        """σ̄ = σ/α, the noise in the units of the data."""
        return self.sigma / self.alpha if self.alpha > 0 else float("inf")


def level_of(ask: Ask, who: str) -> Level:
    """The levels of a question.

    Raises:
        ArgumentError: the plan has several times within the batch, or α = 0 after the step.
    """
    if ask.t.ndim or ask.t_next.ndim:
        raise ArgumentError(f"{who} needs one time for all samples; this plan has several")
    path = ask.path
    levels = [float(f(t)) for t in (ask.t, ask.t_next) for f in (path.alpha, path.sigma)]
    if levels[2] == 0:
        raise ArgumentError(f"{who} needs some data in the state after a step, but α = 0 at t = {float(ask.t_next)}")
    return Level(*levels)


def posterior_variance(alpha: float, sigma: float, data_variance: float) -> float:
    """Var(x₀ | x_t) for x₀ ~ N(·, s²): s²σ²/(α²s² + σ²), and (σ/α)² for s² = ∞."""
    if data_variance == float("inf"):
        return (sigma / alpha) ** 2 if alpha > 0 else float("inf")
    return data_variance * sigma**2 / (alpha**2 * data_variance + sigma**2)


@dataclass(frozen=True)
class RestorationGuide(Guide):
    """A guide towards a measurement, with the sampler that its paper runs it on.

    Args:
        measurement: what the samples must agree with; one row, or one for every sample.
    """

    budget: ClassVar[int] = 100
    measurement: Measurement

    def guides(self) -> tuple[Guide, ...]:
        """The guides that the method is made of."""
        return (self,)

    @abstractmethod
    def solver(self) -> str | Solver:
        """The solver that its paper runs it on."""

    def plan(self, path: Path, evaluations: int, solver: str | Solver | None, grid: str | Grid | None) -> Plan:
        """The plan of so many evaluations; on evenly spaced times unless given."""
        return make_plan(
            path,
            self.solver() if solver is None else solver,
            "uniform" if grid is None else grid,
            evaluations=evaluations,
        )


class RestorationLoop(Loop):
    """A restorer with a loop of its own; a frozen dataclass whose first field is the measurement."""

    budget: ClassVar[int] = 100
    measurement: Measurement

    @abstractmethod
    def spending(self, evaluations: int) -> Self:
        """The same method at no more than so many evaluations."""


def levels(path: Path, times: Tensor) -> list[tuple[float, float]]:
    """(α, σ) of every time, as numbers."""
    return list(zip(path.alpha(times).tolist(), path.sigma(times).tolist(), strict=True))
