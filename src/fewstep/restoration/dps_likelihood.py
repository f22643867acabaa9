"""DPS as the likelihood that it is derived from: p(y | x_t) taken as p(y | x₀ = x̂₀).

    x̂₀′ = x̂₀ − w·(σ²/α)·∇_{x_t} Σ (y − A(x̂₀))²/(2σ_y²)

The true p(y | x_t) is wider by A Cov[x₀ | x_t] Aᵀ, so this pulls too hard: means overshoot, variances are too small,
and where the data vary much more than σ_y the run diverges, which ends in an error.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.guidance import Ask
from fewstep.guidance.gradient import along_score, gradient_of
from fewstep.restoration.base import RestorationGuide
from fewstep.restoration.measurement_noise import Gaussian
from fewstep.solvers import Solver


@method(
    name="dps-likelihood", papers=["Diffusion Posterior Sampling for General Noisy Inverse Problems"],
    arxiv="2209.14687", family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class LikelihoodDPS(RestorationGuide):
    """The likelihood of the measurement at x̂₀ itself, its score through the network.

    Args:
        scale: w ≥ 0; 1 is the likelihood.

    Raises:
        ArgumentError: scale below 0, or a measurement without noise, whose likelihood has no width.
    """

    level: ClassVar[str] = "answer"
    needs_grad: ClassVar[bool] = True
    budget: ClassVar[int] = 1000
    scale: float = 1.0

    def __post_init__(self) -> None:
        noise = self.measurement.noise
        if not self.scale >= 0:
            raise ArgumentError(f"scale must be at least 0, got {self.scale!r}")
        if isinstance(noise, Gaussian) and noise.sigma == 0:
            raise ArgumentError("dps-likelihood needs noise: without it the likelihood has no width")

    def solver(self) -> str | Solver:
        return "ddpm"

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        noise, y = self.measurement.noise, self.measurement.seen(x0)
        assert noise is not None
        log = -0.5 * (self.measurement.residual(x0).square() / noise.variance(y)).flatten(1).sum(1)
        push = gradient_of(log, ask.x, "dps-likelihood", create_graph=ask.differentiated)
        return x0 + along_score(ask, push, self.scale), state
