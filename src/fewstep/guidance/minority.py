"""Minority guidance: towards samples that the denoiser finds hard to recognise, hence rare ones.

    ℓ(x₀) = E_ε d(x₀, x̂₀(α·x₀ + σ·ε)) at one fixed time,      x̂₀′ = x̂₀ + w·(σ²/α)·∇ₓ log p(l | x_t)

with l the class of ℓ's quantile bins of equal count, 0 the most common and L − 1 the rarest, and p(l | x_t) a
classifier of noisy samples trained on them.  With d the mean squared error, ℓ is (σ²/α²) times that of ε̂.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, Guide
from fewstep.guidance.classifier_guidance import ClassifierGuidance
from fewstep.guidance.gradient import Interval, checked_interval, one_a_sample


@method(
    name="minority",
    papers=["Don't Play Favorites: Minority Guidance for Diffusion Models"],
    family="guidance",
    arxiv="2301.12334",
)
@dataclass(frozen=True)
class MinorityGuidance(Guide):
    """Minority guidance (Um et al. 2024): classifier guidance towards a class of rarity; one evaluation a step.

    Args:
        classifier: classifier(x, t) → logits (batch, classes), of noisy samples; trained on `minority_classes`.
        target: the class that is wanted, from 0 (the most common) on; −1 is the rarest.
        scale: w; 0 leaves the answer as it is.
        interval: (low, high), the times of guidance, as in `ClassifierGuidance`.

    Raises:
        ArgumentError: an interval that is not 0 ≤ low < high ≤ 1; at the run, a classifier without that class.
    """

    level: ClassVar[str] = "answer"
    classifier: Callable[[Tensor, Tensor], Tensor]
    target: int = -1
    scale: float = 3.5
    interval: Interval = None

    def __post_init__(self) -> None:
        checked_interval(self.interval)

    def _log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        logits = self.classifier(x, t)
        if logits.ndim != 2 or len(logits) != len(x) or not -logits.shape[1] <= self.target < logits.shape[1]:
            raise ArgumentError(
                f"the classifier must give ({len(x)}, classes) with a class {self.target}, got {tuple(logits.shape)}"
            )
        return logits.log_softmax(-1)[:, self.target]

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        return ClassifierGuidance(self._log_prob, self.scale, self.interval).answer(ask, x0, state)


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """The mean squared difference of each sample, (batch,)."""
    return (a - b).square().flatten(1).mean(1)


def minority_score(
    denoiser: Denoiser,
    x0: Tensor,
    t: float = 0.6,
    draws: int = 5,
    distance: Callable[[Tensor, Tensor], Tensor] = squared_distance,
    seed: int = 0,
    **cond: Any,
) -> Tensor:
    """ℓ(x₀), how badly each clean sample is recovered from its noisy version: high is rare.

    Args:
        denoiser: the model.
        x0: (batch, *shape), clean samples.
        t: the time of the noise, in (0, 1).
        draws: how many noises are averaged, at least 1.
        distance: distance(x₀, x̂₀) → (batch,), such as LPIPS.
        seed: of the noises, which are the same for every sample.
        cond: conditions, for scores within a class.

    Returns:
        (batch,).

    Raises:
        ArgumentError: t outside (0, 1), no draws, or a distance that is not one number a sample.
    """
    if not 0 < t < 1 or draws < 1:
        raise ArgumentError(f"t must be in (0, 1) and draws at least 1, got {t} and {draws}")
    generator = torch.Generator().manual_seed(seed)
    alpha, sigma = float(denoiser.path.alpha(t)), float(denoiser.path.sigma(t))
    total = torch.zeros(len(x0), dtype=x0.dtype, device=x0.device)
    with torch.no_grad():
        for _ in range(draws):
            noise = torch.randn(x0.shape[1:], generator=generator, dtype=torch.float64).to(x0.device, x0.dtype)
            found = distance(x0, denoiser(alpha * x0 + sigma * noise, t, **cond))
            total += one_a_sample(found, len(x0), "distance")
    return total / draws


def minority_classes(scores: Tensor, classes: int) -> Tensor:
    """The quantile bin of each score, int64 (batch,): bins of equal count, 0 the most common.

    Args:
        scores: (batch,), from `minority_score`.
        classes: how many bins, from 2 to the count of scores.

    Raises:
        ArgumentError: scores of another shape, or a count that does not fit.
    """
    if scores.ndim != 1 or not 2 <= classes <= len(scores):
        raise ArgumentError(f"scores must be (batch,) and classes 2 … {len(scores)}, got {scores.shape} and {classes}")
    rank = torch.empty(len(scores), dtype=torch.int64, device=scores.device)
    rank[scores.argsort(stable=True)] = torch.arange(len(scores), device=scores.device)
    return rank * classes // len(scores)
