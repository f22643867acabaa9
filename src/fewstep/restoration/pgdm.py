"""ΠGDM: the likelihood of a measurement when x₀ given x_t is taken as N(x̂₀, r²), its score through the network.

    x̂₀′ = x̂₀ + w·(σ²/α)·Jᵀ Aᵀ(r² A Aᵀ + σ_y² I)⁻¹(y − A x̂₀),      J = ∂x̂₀/∂x_t,      r² = s²σ²/(α²s² + σ²)

Exact where Cov[x₀ | x_t] = r² I, which is data N(μ, s² I).  A measurement that is not linear but has A†, with
A(A†(A x)) = A x and no noise, is taken as A†y − A†A x̂₀.  This is the likelihood's own weight; the authors' step has
α²·w of it, which leaves noisy states alone: there J is far from r²I where the data have modes, and w = 1 overshoots.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.guidance import Ask
from fewstep.guidance.gradient import along_score
from fewstep.restoration.base import RestorationGuide, level_of, posterior_variance
from fewstep.solvers import Solver


@method(
    name="pgdm", papers=["Pseudoinverse-Guided Diffusion Models for Inverse Problems"], family="restoration"
)  # fmt: skip
@dataclass(frozen=True)
class PGDM(RestorationGuide):
    """Pseudo-inverse guidance: a Gaussian belief of known width about x₀, its likelihood by one reverse pass.

    Args:
        scale: w ≥ 0; 1 is the likelihood, 0 the model alone.
        data_variance: s² > 0, the variance of the data that r² assumes.
        published: whether to weigh by α²·w as the authors' code does, which distant modes do not throw off.

    Raises:
        ArgumentError: a parameter out of its range, or noise with an operator that is not linear.
    """

    level: ClassVar[str] = "answer"
    needs_grad: ClassVar[bool] = True
    scale: float = 1.0
    data_variance: float = 1.0
    published: bool = False

    def __post_init__(self) -> None:
        if not self.scale >= 0 or not self.data_variance > 0:
            raise ArgumentError(
                f"scale must be at least 0 and data_variance more than 0, got {self.scale!r}, {self.data_variance!r}"
            )
        if self.measurement.sigma > 0:
            self.measurement.need_linear("pgdm with noise")

    def solver(self) -> str | Solver:
        return "ddpm"

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        here, measurement = level_of(ask, "pgdm"), self.measurement
        # Where the run is differentiated what is pulled back depends on x too.
        seen = x0 if ask.differentiated else x0.detach()
        spread = posterior_variance(here.alpha, here.sigma, self.data_variance)
        if measurement.linear:
            pulled = measurement.pull(measurement.residual(seen), spread)
        else:
            y = measurement.seen(seen)
            pulled = (measurement.project(y) - measurement.project(measurement.operator.A(seen))) / spread
        (push,) = torch.autograd.grad(x0, ask.x, pulled, create_graph=ask.differentiated, retain_graph=True)
        return x0 + along_score(ask, push, self.scale * (here.alpha**2 if self.published else 1.0)), state
