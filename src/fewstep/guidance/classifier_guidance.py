"""Classifier guidance: the score is joined by the gradient of a log-probability of what one wants.

    x̂₀′ = x̂₀ + w·(σ²/α)·∇ₓ log p(y | x_t)

With the exact log p(y | x_t) of the data and w = 1 the samples follow p(x₀ | y) exactly.  Towards pure noise σ²/α grows
without bound and the exact gradient vanishes as α; a trained one does not, and would throw the sample far off.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.guidance.base import Ask, Guide
from fewstep.guidance.gradient import Interval, along_score, checked_interval, gradient, guided_times, informed_time


@method(name="classifier-guidance", papers=[], family="guidance", arxiv="2105.05233")
@dataclass(frozen=True)
class ClassifierGuidance(Guide):
    """Classifier guidance (Dhariwal & Nichol 2021) by any differentiable log-probability of the noisy state.

    No gradient goes through the denoiser, so a step costs one evaluation.

    Args:
        log_prob: log_prob(x, t) → (batch,), differentiable in x (batch, *shape); t is float64, one time for all or
            broadcasting against x.  An unnormalised one serves as well.
        scale: w; 0 leaves the answer as it is.
        interval: (low, high), the times of guidance; None for all with λ ≥ −6, below which no classifier can have
            learnt anything.  Give (0, 1) with an exact log p: where α = 0 its push is a limit, taken at λ = −8.

    Raises:
        ArgumentError: an interval that is not 0 ≤ low < high ≤ 1.
    """

    level: ClassVar[str] = "answer"
    log_prob: Callable[[Tensor, Tensor], Tensor]
    scale: float = 1.0
    interval: Interval = None

    def __post_init__(self) -> None:
        checked_interval(self.interval)

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        inside = guided_times(ask, self.interval)
        if self.scale == 0 or not bool(inside.any()):
            return x0, state
        t = informed_time(ask)
        push = gradient(lambda x: self.log_prob(x, t), ask.x, "log_prob", ask.differentiated)
        guided = x0 + along_score(ask, push, self.scale)
        return guided if bool(inside.all()) else torch.where(inside.to(x0.device), guided, x0), state
