"""Upsample guidance: a network trained at one size makes larger pictures, its own size telling it the whole.

    x_low = D·x·α(τ)/α(t),      λ(τ) = λ(t) + log m,
    x̂₀′ = x̂₀ + w(t)·U(x̂₀(x_low, τ) − D·x̂₀),      w(t) = θ for t ≥ 1 − η, else 0

D takes the mean of squares of m × m pixels, U repeats pixels, so D·U is the identity: averaging divides the noise by m,
and the small state lies on the path at a later time.  With w = 1 the means of the squares are the small picture's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, Branch, Guide, coefficient


@method(
    name="upsample-guidance",
    papers=["Upsample Guidance: Scale Up Diffusion Models without Training"],
    family="guidance",
    arxiv="2404.01709",
)
@dataclass(frozen=True)
class UpsampleGuidance(Guide):
    """Upsample guidance (Hwang et al. 2024); one small evaluation more while it acts, with the run's conditions.

    Args:
        factor: m, at least 2; how many times larger than the network's own the sides are.
        scale: θ; 0 leaves the answer as it is.
        share: η in [0, 1], the first part of the run in which it acts; latent models need less than 1.

    Raises:
        ArgumentError: a factor below 2 or a share outside [0, 1]; at the run, sides that are not multiples of m, or
            times that differ within a sample.
    """

    level: ClassVar[str] = "network"
    factor: int = 2
    scale: float = 1.0
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.factor < 2 or not 0 <= self.share <= 1:
            raise ArgumentError(f"factor must be at least 2, share in [0, 1]; got {self.factor} and {self.share}")

    def init(self, denoiser: Any, batch: int) -> Any:
        if len(denoiser.shape) != 3 or any(n % self.factor for n in denoiser.shape[1:]):
            raise ArgumentError(f"the sides of {denoiser.shape} must be multiples of factor {self.factor}")
        return None

    def extra(self) -> int:
        return int(self.scale != 0)

    def branches(self, ask: Ask, cond: Mapping[str, Any], state: Any) -> list[Branch]:
        if ask.t.ndim and math.prod(ask.t.shape[1:]) > 1:
            raise ArgumentError(f"upsample guidance needs one time a sample, got times {tuple(ask.t.shape)}")
        return []

    def mix(self, ask: Ask, x0: Tensor, main: Tensor, others: list[Tensor], state: Any) -> tuple[Tensor, Any]:
        acts = ask.t >= 1 - self.share
        if self.scale == 0 or not bool(acts.any()):
            return x0, state
        path, m = ask.path, self.factor
        low_t = path.t_of_lam(path.lam(ask.t) + math.log(m))
        # α(τ)/α(t) = m·σ(τ)/σ(t), which stays finite where α(t) = 0.
        ratio = m * path.sigma(low_t) / path.sigma(ask.t)
        low = coefficient(ratio, x0) * nn.functional.avg_pool2d(ask.x, m)
        believed = ask.again(low, low_t, ask.cond)
        push = nn.functional.interpolate(believed - nn.functional.avg_pool2d(main, m), scale_factor=m, mode="nearest")
        return x0 + coefficient(torch.where(acts, self.scale, 0.0).double(), x0) * push, state
