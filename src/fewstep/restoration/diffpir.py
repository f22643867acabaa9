"""DiffPIR: every answer goes through the proximal map of the measurement, as plug-and-play restoration has it.

    x̂₀′ = argmin_x ‖y − A x‖² + ρ‖x − x̂₀‖² = x̂₀ + s²·Aᵀ(s² A Aᵀ + σ_y² I)⁻¹(y − A x̂₀),      ρ = σ_y²/s²,  s² = σ²/(λα²)
    x′ = α′·x̂₀′ + σ′(√(1 − ζ)·ε̂′ + √ζ·ξ),      ε̂′ from x̂₀′

So x₀ given x_t is taken as N(x̂₀, s²).  Here λ is in the units of x throughout; the published code mixes two, so that
its λ = 1 is 1/4 of ours.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.guidance import Ask
from fewstep.restoration.base import RestorationGuide, level_of
from fewstep.restoration.ddnm import redrawing
from fewstep.solvers import Solver


@method(
    name="diffpir", papers=["Denoising Diffusion Models for Plug-and-Play Image Restoration"], arxiv="2305.08995",
    family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class DiffPIR(RestorationGuide):
    """Plug-and-play restoration: a proximal map on every answer, and a share of the noise redrawn (Zhu et al. 2023).

    Args:
        weight: λ > 0, how much narrower than σ/α the belief about x₀ is.
        redrawn: ζ in [0, 1], the share of the noise's variance that a step redraws.

    Raises:
        ArgumentError: a parameter out of its range, or an operator that is not linear.
    """

    level: ClassVar[str] = "answer"
    weight: float = 1.0
    redrawn: float = 0.1

    def __post_init__(self) -> None:
        if not self.weight > 0 or not 0 <= self.redrawn <= 1:
            raise ArgumentError(
                f"weight must be more than 0 and redrawn in [0, 1], got {self.weight!r} and {self.redrawn!r}"
            )
        self.measurement.need_linear("diffpir")

    def solver(self) -> Solver:
        return redrawing(math.sqrt(self.redrawn))

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        spread = level_of(ask, "diffpir").ratio ** 2 / self.weight
        return x0 + self.measurement.prox_step(self.measurement.residual(x0), spread), state
