"""Classifier guidance: the score is joined by the gradient of a log-probability of what one wants.

    x̂₀′ = x̂₀ + w·(σ²/α)·∇ₓ log p(y | x_t)

With the exact log p(y | x_t) of the data and w = 1 the samples follow p(x₀ | y) exactly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fewstep.catalog import method
from fewstep.guidance.base import Ask, Guide
from fewstep.guidance.gradient import along_score, gradient, informed_time


@method(name="classifier-guidance", papers=[], family="guidance", arxiv="2105.05233")
@dataclass(frozen=True)
class ClassifierGuidance(Guide):
    """Classifier guidance (Dhariwal & Nichol 2021) by any differentiable log-probability of the noisy state.

    No gradient goes through the denoiser, so a step costs one evaluation.

    Args:
        log_prob: log_prob(x, t) → (batch,), differentiable in x (batch, *shape); t is float64, one time for all or
            broadcasting against x.  An unnormalised one serves as well.
        scale: w; 0 leaves the answer as it is.
    """

    level: ClassVar[str] = "answer"
    log_prob: Callable[[Tensor, Tensor], Tensor]
    scale: float = 1.0

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        if self.scale == 0:
            return x0, state
        t = informed_time(ask)
        push = gradient(lambda x: self.log_prob(x, t), ask.x, "log_prob")
        return x0 + along_score(ask, push, self.scale), state
