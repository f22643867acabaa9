"""DDRM: every singular direction of the operator has a step of its own, by how its noise compares with the state's.

In V's coordinates of x/α, with σ̄ = σ/α, ȳ = A†y, d the singular value and σ_y/d the measurement's noise there,

    d = 0            x̄′ = x̄₀ + σ̄′(√(1 − η²)·ε̂ + η·ξ)
    σ̄′ < σ_y/d      x̄′ = x̄₀ + √(1 − η²)·σ̄′·(d/σ_y)·(ȳ − x̄₀) + η·σ̄′·ξ
    σ̄′ ≥ σ_y/d      x̄′ = (1 − η_b)·x̄₀ + η_b·ȳ + √(σ̄′² − η_b²σ_y²/d²)·ξ

DDRM begins around ȳ where that is known better than the state; DDNM+ is the same with η_b = 1, begun at pure noise.
For σ_y > 0 more steps do not help: the answer collapses on ȳ, so 20 to 100 evaluations are its range.  Every ξ is
drawn `temperature` times as large: below 1 the samples are narrower than the posterior's and nearer their mean.
Directions that are hardly measured lose their ε̂ by the second line and with it detail; `least` counts them with those
of the first.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Self

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.grids import Grid
from fewstep.loops.questions import Questions
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.restoration.base import RestorationLoop, levels
from fewstep.restoration.ddnm import redrawing
from fewstep.restoration.measurement import Measurement
from fewstep.restoration.operators.base import NEGLIGIBLE
from fewstep.results import Stats
from fewstep.session import Session

Rule = Callable[[Tensor], Tensor]


@method(
    name="ddrm", papers=["Denoising Diffusion Restoration Models"], arxiv="2201.11793", family="restoration",
)  # fmt: skip
@method(
    name="ddnm+", papers=["Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model"], arxiv="2212.00490",
    family="restoration", measured_start=False, steps=100,
    summary="DDNM for noisy measurements: DDRM's rule for every singular direction, begun at pure noise.",
)  # fmt: skip
@dataclass(frozen=True)
class DDRM(RestorationLoop):
    """Denoising diffusion restoration: a step of its own for every singular direction (Kawar et al. 2022).

    Args:
        measurement: of a linear operator whose singular vectors are at hand or whose samples are small.
        steps: evaluations, at least 1.
        eta: η in [0, 1], the share of noise drawn afresh.
        eta_b: η_b in [0, 1], how far a well measured direction goes to the measurement.
        measured_start: whether to begin around ȳ instead of at pure noise.
        temperature: in [0, 1], what the noise of the steps is multiplied with; 1 as published.
        least: in (0, 1), the share of the largest singular value below which a direction counts as not measured;
            0.03 in the authors' code for blurs.
        grid: the times; evenly spaced as published.

    Raises:
        ArgumentError: a parameter out of its range, or an operator that is not linear.
    """

    budget: ClassVar[int] = 20
    measurement: Measurement
    steps: int = 20
    eta: float = 0.85
    eta_b: float = 1.0
    measured_start: bool = True
    temperature: float = 1.0
    least: float = NEGLIGIBLE
    grid: str | Grid = "uniform"

    def __post_init__(self) -> None:
        redrawing(self.eta)
        if not 0 <= self.eta_b <= 1:
            raise ArgumentError(f"eta_b must lie in [0, 1], got {self.eta_b!r}")
        if not 0 <= self.temperature <= 1:
            raise ArgumentError(f"temperature must lie in [0, 1], got {self.temperature!r}")
        if not 0 < self.least < 1:
            raise ArgumentError(f"least must lie in (0, 1), got {self.least!r}")
        self.measurement.need_linear("ddrm")

    def spending(self, evaluations: int) -> Self:
        return replace(self, steps=evaluations)

    def opening(self, path: Path) -> Plan:
        """The path's flow on the same times."""
        return make_plan(path, "ddim", self.grid, self.steps)

    def run(self, session: Session) -> tuple[Tensor, Plan, Stats]:
        """Ask at every level and combine in V's coordinates."""
        plan, measurement, sigma_y = session.program.plan, self.measurement, self.measurement.sigma
        questions, line = Questions(session, plan.times[:-1]), levels(plan.path, plan.times)
        x = session.start
        known = measurement.project(measurement.seen(x))
        if self.measured_start:
            alpha, sigma = line[0]
            x = x + self._spread(known, alpha, lambda d: self._better(d, sigma, alpha * sigma_y))
            x = x + measurement.spectral(lambda d: self._start_noise(d, sigma, alpha * sigma_y) - 1, session.start)
        for i, ((alpha, sigma), after) in enumerate(pairwise(line)):
            x0, asked = questions.ask(i, x)
            x = self._step(x0, (asked - alpha * x0) / sigma, known, session.noise.step(i, 0.0, 0.0), after)
        return x, plan, Stats(questions.evaluations, 0.0)

    def _spread(self, x: Tensor, factor: float, rule: Rule) -> Tensor:
        return factor * self.measurement.spectral(lambda d: rule(d).to(d.dtype), x)

    def _step(self, x0: Tensor, eps: Tensor, known: Tensor, xi: Tensor, after: tuple[float, float]) -> Tensor:
        alpha, sigma = after
        noise, keep = alpha * self.measurement.sigma, math.sqrt(1 - self.eta**2)

        def to_measured(d: Tensor) -> Tensor:
            poor = keep * sigma * d / noise if noise > 0 else torch.zeros_like(d)
            return torch.where(self._better(d, sigma, noise), self.eta_b, poor) * self._measured(d)

        def fresh(d: Tensor) -> Tensor:
            left = sigma**2 - (self.eta_b * noise / d.clamp_min(1e-30)).square()
            return torch.where(self._better(d, sigma, noise), left.clamp_min(0).sqrt(), self.eta * sigma)

        moved = self._spread(known - x0, alpha, to_measured)
        kept = self._spread(eps, keep * sigma, lambda d: ~self._measured(d))
        return alpha * x0 + moved + kept + self._spread(xi, self.temperature, fresh)

    def _measured(self, d: Tensor) -> Tensor:
        """Which directions count as measured."""
        return d > self.least * d.amax()

    def _better(self, d: Tensor, sigma: float, noise: float) -> Tensor:
        """Which directions are measured at least as well as a state of noise `sigma` knows them."""
        return self._measured(d) & (sigma * d >= noise)

    def _start_noise(self, d: Tensor, sigma: float, noise: float) -> Tensor:
        """√(1 − σ_y²α²/(d²σ²)) where the measurement is better, else 1: the factor on the noise of the start."""
        share = (1 - (noise / (sigma * d.clamp_min(1e-30))).square()).clamp_min(0).sqrt()
        return torch.where(self._better(d, sigma, noise), share, 1.0)
