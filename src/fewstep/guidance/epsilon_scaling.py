"""Epsilon scaling: the predicted noise is made smaller, as sampling sees more of it than training did.

With λ_i = b + k·i, i the number of steps still to take after this one (Ning et al. 2024),

    ε̂ → ε̂/λ_i,      that is      x̂₀ → x̂₀/λ_i + (1 − 1/λ_i)·x/α.

b = 1, k = 0 changes nothing.  Where α = 0 the noise is all of x, and the answer stays as it is.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, Guide, coefficient


@method(
    name="epsilon-scaling", papers=["Elucidating the Exposure Bias in Diffusion Models"], arxiv="2308.15321",
    family="guidance",
    summary="The predicted noise divided by a number a little above 1, against the drift of few-step sampling.",
)  # fmt: skip
@dataclass(frozen=True)
class EpsilonScaling(Guide):
    """Epsilon scaling (Ning et al. 2024).

    Args:
        scale: b > 0, λ at the last step; 1.0005 to 1.02 in the paper, found by trying; 1 with slope 0 is no change.
        slope: k at least 0, how much λ grows a step towards the start; a plan with two rows a step counts both.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    level: ClassVar[str] = "answer"
    scale: float = 1.005
    slope: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise ArgumentError(f"scale must be more than 0 and finite, got {self.scale!r}")
        if not 0 <= self.slope < float("inf"):
            raise ArgumentError(f"slope must be at least 0 and finite, got {self.slope!r}")

    def needs_order(self) -> bool:
        return self.slope != 0

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        divisor = self.scale + self.slope * (ask.of - 1 - ask.index)
        if divisor == 1:
            return x0, state
        alpha = ask.path.alpha(ask.t)
        divided = torch.where(alpha > 0, torch.full_like(alpha, 1 / divisor), 1.0)
        added = torch.where(alpha > 0, (1 - 1 / divisor) / torch.where(alpha > 0, alpha, 1.0), 0.0)
        return x0 * coefficient(divided, x0) + ask.x * coefficient(added, x0), state
