"""Density guidance: samples whose log-density ends at a chosen quantile of its rate along the flow.

    ε̂′ = η·ε̂,   η = 1 + √(2D)·Φ⁻¹(q)/‖ε̂‖²      ⇔      x̂₀′ = x̂₀ − (σ/α)·√(2D)·Φ⁻¹(q)·ε̂/‖ε̂‖²

D is the count of numbers in a sample.  Along the guided flow d log p_t(x_t)/dλ is −div_λ of the plain flow plus
√(2D)·Φ⁻¹(q) exactly: q above ½ is likelier (smoother), below ½ less likely (more detailed).
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, Guide, coefficient, squares


@method(
    name="density-guidance",
    papers=["Devil is in the Details: Density Guidance for Detail-Aware Generation with Flow Models"],
    family="guidance",
    arxiv="2502.05807",
)
@dataclass(frozen=True)
class DensityGuidance(Guide):
    """Density guidance (Karczewski et al. 2025), by one evaluation a step.

    Args:
        quantile: q in (0, 1); ½ leaves the answer as it is.  Authors' range: 0.3 … 0.7.

    Raises:
        ArgumentError: quantile outside (0, 1).
    """

    level: ClassVar[str] = "answer"
    quantile: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise ArgumentError(f"quantile must be in (0, 1), got {self.quantile}")

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        if self.quantile == 0.5:
            return x0, state
        rest = ask.x - coefficient(ask.path.alpha(ask.t), x0) * x0
        square = squares(rest)
        rate = math.sqrt(2) * torch.special.ndtri(torch.tensor(self.quantile, dtype=torch.float64))
        alpha, sigma = ask.path.alpha(ask.t), ask.path.sigma(ask.t)
        # Where α = 0 the state says nothing of the data, so nothing is pushed there.
        factor = torch.where(alpha > 0, rate * sigma.square() / alpha.clamp_min(1e-300), 0.0)
        size = math.sqrt(math.prod(x0.shape[1:]))
        direction = rest * torch.where(square > 0, size / square, 0.0)
        return x0 - coefficient(factor, x0) * direction.to(x0.dtype), state


def prior_guidance(start: Tensor, quantile: float, deviation: float = 1.0) -> Tensor:
    """The starting noise, rescaled to a quantile of its length: ‖x‖ = σ·√(χ²_D quantile).

    Karczewski et al. 2025: the likelihood of the sample falls with the length wherever the score stays aligned.

    Args:
        start: (batch, *shape), the noise that sampling begins with.
        quantile: in (0, 1); ½ is the median length.
        deviation: σ at the first time.

    Raises:
        ArgumentError: quantile outside (0, 1), or a deviation that is not more than 0.
    """
    if not 0 < quantile < 1 or not deviation > 0:
        raise ArgumentError(f"quantile must be in (0, 1) and deviation more than 0, got {quantile} and {deviation}")
    from scipy.stats import chi

    length = deviation * float(chi.ppf(quantile, math.prod(start.shape[1:])))
    return (start * (length / squares(start).sqrt())).to(start.dtype)
