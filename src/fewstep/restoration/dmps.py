"""DMPS: x₀ given x_t is taken as N(x_t/α, (σ/α)²), as if the data were spread out evenly; no network in the likelihood.

    x̂₀′ = x̂₀ + λ·(σ²/α)·g,      g = (1/α)·Aᵀ(σ_y² I + (σ/α)² A Aᵀ)⁻¹(y − A x_t/α)

Exact where the data vary much more than σ/α.  λ = 1 is that likelihood; the published λ = 1.75 makes up for its width.
The published code takes g at the state after the step with the constants before it; here it is taken at x_t, as in the
paper.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.guidance import Ask
from fewstep.restoration.base import RestorationGuide, level_of
from fewstep.solvers import Solver


@method(
    name="dmps", papers=["Diffusion Model Based Posterior Sampling for Noisy Linear Inverse Problems"],
    arxiv="2211.12343", family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class DMPS(RestorationGuide):
    """A likelihood in closed form that assumes data without structure (Meng & Kabashima 2022).

    Args:
        scale: λ ≥ 0; 1.75 as published, 1 is the likelihood itself.

    Raises:
        ArgumentError: scale below 0, or an operator that is not linear.
    """

    level: ClassVar[str] = "answer"
    budget: ClassVar[int] = 1000
    scale: float = 1.75

    def __post_init__(self) -> None:
        if not self.scale >= 0:
            raise ArgumentError(f"scale must be at least 0, got {self.scale!r}")
        self.measurement.need_linear("dmps")

    def solver(self) -> str | Solver:
        return "ddpm"

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        here = level_of(ask, "dmps")
        if here.alpha == 0:
            raise ArgumentError("dmps divides by α, which is 0 at the grid's first time: start it below t = 1")
        residual = self.measurement.residual(ask.x / here.alpha)
        return x0 + self.scale * self.measurement.prox_step(residual, here.ratio**2), state
