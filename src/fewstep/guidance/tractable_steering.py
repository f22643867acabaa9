"""Tractable steering (Tiramisu): a probabilistic circuit knows what hidden pixels are, given the others, and says so.

    evidence    known pixels: their level; all others: N(x_t; α·v, σ²) at every level v
    circuit     m, s² = mean and variance of p(x₀ | evidence), of each pixel and exact
    mixed       x̂₀′ = (a·x̂₀/r² + (1 − a)·m/s²)/(a/r² + (1 − a)/s²),      a(t) = 0.8 + 0.2·e^{−2t}

which is the geometric mixture of the two beliefs, r² = σ²/(α² + σ²) that of the denoiser for pixels of variance 1.
Known pixels are then put in.  With a = 0 and the circuit of the data x̂₀′ is the exact E[x₀ | x_t, known pixels].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, Guide, coefficient
from fewstep.guidance.latent_tree import IMPOSSIBLE, LatentTree


def published_share(t: Tensor) -> Tensor:
    """a(t) = 0.8 + 0.2·e^{−2t}, the authors'."""
    return 0.8 + 0.2 * (-2 * t).exp()


def to_levels(x: Tensor, levels: int, limits: tuple[float, float] = (-1.0, 1.0)) -> Tensor:
    """The nearest of evenly spaced levels of each pixel, int64 of (batch, D) from (batch, *shape)."""
    low, high = limits
    return ((x.flatten(1) - low) / (high - low) * (levels - 1)).round().clamp(0, levels - 1).long()


@method(
    name="tiramisu",
    papers=["Image Inpainting via Tractable Steering of Diffusion Models"],
    family="guidance",
    arxiv="2401.03349",
)
@dataclass(frozen=True)
class TractableSteering(Guide):
    """Tiramisu (Liu et al. 2024), the circuit in pixels: inpainting by one evaluation a step.

    Args:
        circuit: of all numbers of a sample in order, at levels evenly spaced over the denoiser's limits;
            `fit_latent_tree` trains one.
        y: the known values, broadcasting against x.
        mask: 1 where they are known and 0 elsewhere, broadcasting against x.
        share: a, how much the denoiser is believed: a number in [0, 1] or a function of float64 times; 1 leaves all
            pixels that are not known as they are.
        above: in [0, 1]; only at times above it is the circuit asked.

    Raises:
        ArgumentError: numbers out of their ranges; at the run, a circuit, values or a mask of another size.
    """

    level: ClassVar[str] = "answer"
    circuit: LatentTree
    y: Tensor
    mask: Tensor
    share: float | Callable[[Tensor], Tensor] = published_share
    above: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.circuit, LatentTree):
            raise ArgumentError(f"circuit must be a LatentTree, got {type(self.circuit).__name__}")
        if not callable(self.share) and not 0 <= self.share <= 1:
            raise ArgumentError(f"share must be in [0, 1] or a function of the time, got {self.share}")
        if not 0 <= self.above <= 1:
            raise ArgumentError(f"above must be in [0, 1], got {self.above}")

    def init(self, denoiser: Any, batch: int) -> None:
        if math.prod(denoiser.shape) != len(self.circuit.parents):
            raise ArgumentError(
                f"the circuit is of {len(self.circuit.parents)} numbers, a sample of {denoiser.shape} has "
                f"{math.prod(denoiser.shape)}"
            )
        for name, value in (("y", self.y), ("mask", self.mask)):
            shape = (batch, *denoiser.shape)
            fits = len(value.shape) <= len(shape) and all(
                a in (1, b) for a, b in zip(value.shape[::-1], shape[::-1], strict=False)
            )
            if not fits:
                raise ArgumentError(f"{name} must broadcast against the samples, {shape}, got {tuple(value.shape)}")

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        share = self.share(ask.t) if callable(self.share) else torch.full_like(ask.t, self.share)
        share = torch.where(ask.t > self.above, share, 1.0)
        if bool((share < 1).any()):
            state = self.circuit.to(x0.device) if state is None else state
            mean, variance = self.believed(ask, state)
            alpha, sigma = ask.path.alpha(ask.t), ask.path.sigma(ask.t)
            # Precisions times r²s², so that nothing divides by a level without noise.
            own = coefficient(share, x0) * variance
            other = coefficient((1 - share) * sigma.square() / (alpha.square() + sigma.square()), x0)
            x0 = torch.where(own + other > 0, (own * x0 + other * mean) / (own + other).clamp_min(1e-12), x0)
        if not bool(self.mask.any()):
            return x0, state
        return torch.where(self.mask.to(x0.device) > 0, self.y.to(x0.device, x0.dtype), x0), state

    def believed(self, ask: Ask, tree: LatentTree) -> tuple[Tensor, Tensor]:
        """(m, s²), the exact mean and variance of each pixel given the state and the known pixels, of x's shape."""
        x, limits, dtype = ask.x, ask.denoiser.limits, tree.leaves.dtype
        levels = torch.linspace(*limits, tree.levels, dtype=torch.float64).to(x.device, dtype)
        alpha, sigma = ask.path.alpha(ask.t), ask.path.sigma(ask.t).clamp_min(1e-3)
        off = x[..., None].to(dtype) - _wide(alpha, levels) * levels
        soft = -0.5 * (off / _wide(sigma, levels)).square()
        seen = to_levels(self.y.to(x.device).expand(x.shape), tree.levels, limits).reshape(x.shape)
        hard = torch.where(torch.arange(tree.levels, device=x.device) == seen[..., None], 0.0, IMPOSSIBLE).to(dtype)
        known = self.mask.to(x.device).expand(x.shape)[..., None] > 0
        evidence = torch.where(known, hard, soft.clamp_min(IMPOSSIBLE))
        p = tree.marginals(evidence.flatten(1, -2)).reshape(evidence.shape)
        mean = (p * levels).sum(-1)
        # A level stands for its neighbourhood, whose variance is that of a uniform.
        width = (limits[1] - limits[0]) / (tree.levels - 1)
        variance = (p * (levels - mean[..., None]).square()).sum(-1) + width**2 / 12
        return mean.to(x.dtype), variance.to(x.dtype)


def _wide(value: Tensor, like: Tensor) -> float | Tensor:
    """A coefficient of x, for numbers with the levels as a last place more."""
    return float(value) if value.ndim == 0 else value[..., None].to(like.device, like.dtype)
