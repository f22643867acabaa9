"""DPS: every step is followed by a step of fixed length down the gradient of ‖y − A(x̂₀(x_t))‖, through the network.

    x′ ← x′ − ζ·∇_{x_t}‖y − A(x̂₀)‖

Any differentiable A and any noise.  The authors' code has the norm without a square, and this ζ; with the paper's
formula ζ′ is half of it.  The step does not shrink with the residual, so at the end a single measurement scatters
around y with a variance of ζ²/3, whatever σ_y is; and fewer steps pull less, as ζ is meant for 1,000.  With Poisson
noise the norm is the mean of |y − A x̂₀|/|y| over the measurements.  `dps-likelihood` is the likelihood that the
paper derives it from.
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
from fewstep.restoration.measurement import Measurement
from fewstep.restoration.measurement_noise import Poisson
from fewstep.solvers import Solver


def distance(measurement: Measurement, x0: Tensor) -> Tensor:
    """‖y − A(x̂₀)‖ of every sample, (batch,); for Poisson noise the mean of |y − A x̂₀|/|y|."""
    off = measurement.residual(x0).flatten(1)
    if isinstance(measurement.noise, Poisson):
        weight = measurement.seen(x0).flatten(1).abs().clamp_min(2 / measurement.noise.rate)
        return (off.abs() / weight).mean(1)
    return torch.linalg.vector_norm(off, dim=1)


def residual_gradient(ask: Ask, x0: Tensor, measurement: Measurement, who: str) -> Tensor:
    """∇_{x_t} of the distance, of x's shape."""
    return gradient_of(distance(measurement, x0), ask.x, who, create_graph=ask.differentiated)


@method(
    name="dps", papers=["Diffusion Posterior Sampling for General Noisy Inverse Problems"], arxiv="2209.14687",
    family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class DPS(RestorationGuide):
    """Diffusion posterior sampling: a step of fixed length down the residual's norm (Chung et al. 2023).

    Args:
        scale: ζ ≥ 0 in the units of x; 0.3 as published for blur and super-resolution, 0.5 for inpainting, 1 for phase
            retrieval, all at 1,000 steps.

    Raises:
        ArgumentError: scale below 0.
    """

    level: ClassVar[str] = "answer"
    keeps: ClassVar[str] = "eps"
    needs_grad: ClassVar[bool] = True
    budget: ClassVar[int] = 1000
    scale: float = 0.3

    def __post_init__(self) -> None:
        if not self.scale >= 0:
            raise ArgumentError(f"scale must be at least 0, got {self.scale!r}")

    def solver(self) -> str | Solver:
        return "ddpm"

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        # Answers that keep ε̂ move x′ by α′·δ, so δ = g/α′ adds g to it.
        size = self.scale / level_of(ask, "dps").alpha_next
        return x0 - size * residual_gradient(ask, x0, self.measurement, "dps"), state
