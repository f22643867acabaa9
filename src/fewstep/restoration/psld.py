"""PSLD: latent DPS, and a second pull that glues the latent to pictures which the encoder and the decoder agree on.

    z′ ← z′ − ∇_{z_t}[ω·‖y − A D(ẑ₀)‖ + γ·‖E(A†y + (I − A†A)·D(ẑ₀)) − ẑ₀‖],      a step of DDIM before

The second norm asks that the decoded picture, its measured part replaced by the measurement, be encoded to ẑ₀ again.
γ = 0 is latent DPS.  Neither norm is squared, so that steps do not shrink with what is left, and know nothing of σ_y.
The paper has Aᵀ for A†, as its rows are orthonormal; its code adds fresh noise to A D(ẑ₀), which is left out here.  For
models of pictures E and D change nothing.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.guidance import Ask
from fewstep.guidance.gradient import gradient_of
from fewstep.restoration.base import RestorationGuide, level_of
from fewstep.restoration.decoded import of_pictures
from fewstep.restoration.dps import distance
from fewstep.solvers import Solver


@method(
    name="psld",
    papers=["Solving Linear Inverse Problems Provably via Posterior Sampling with Latent Diffusion Models"],
    arxiv="2307.00619", family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class PSLD(RestorationGuide):
    """Posterior sampling with latent diffusion (Rout et al. 2023).

    Args:
        scale: ω ≥ 0, the step along the measurement's norm; published 1 and, for its face model, 0.1, at 1,000 steps.
        glue: γ ≥ 0, the step along the gluing norm; published 0.1 and, with Stable Diffusion, 0.01.

    Raises:
        ArgumentError: a parameter below 0, or an operator on pictures that is not linear.
    """

    level: ClassVar[str] = "answer"
    keeps: ClassVar[str] = "eps"
    needs_grad: ClassVar[bool] = True
    budget: ClassVar[int] = 1000
    scale: float = 1.0
    glue: float = 0.1

    def __post_init__(self) -> None:
        if not self.scale >= 0 or not self.glue >= 0:
            raise ArgumentError(f"scale and glue must be at least 0, got {self.scale!r} and {self.glue!r}")
        of_pictures(self.measurement)[0].need_linear("psld")

    def solver(self) -> str | Solver:
        return "ddim"

    def loss(self, z: Tensor) -> Tensor:
        """The weighted norms at ẑ₀ of every sample, (batch,)."""
        seen, encode, decode = of_pictures(self.measurement)
        picture = decode(z)
        total = self.scale * distance(seen, picture)
        if self.glue > 0:
            consistent = picture + seen.project(seen.residual(picture))
            total = total + self.glue * torch.linalg.vector_norm((encode(consistent) - z).flatten(1), dim=1)
        return total

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        slope = gradient_of(self.loss(x0), ask.x, "psld", create_graph=ask.differentiated)
        return x0 - slope / level_of(ask, "psld").alpha_next, state
