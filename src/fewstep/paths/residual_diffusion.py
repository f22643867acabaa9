"""The path of residual denoising diffusion (Liu et al. 2024): the residual R = y − x₀ comes in as noise does.

With α_k and β_k² the shares of the k-th of T steps,

    x_k = x₀ + ᾱ_k·R + β̄_k·ε,      ᾱ_k = Σ_{j≤k} α_j,      β̄_k² = Σ_{j≤k} β_j²,

so that a = 1 − ᾱ, b = ᾱ, c = β̄, with ᾱ_T = 1: at the end there is y and a little noise, or, with y = 0, noise alone.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths.bridge import NodeBridge


@method(
    name="rddm", papers=["Residual Denoising Diffusion Models"], arxiv="2308.13712", family="bridges",
    summary="The path of residual denoising diffusion; the paper's sampler on it is `random-walk`, with eta=0 ddim.",
)  # fmt: skip
@dataclass(frozen=True)
class RDDM(NodeBridge):
    """The path of residual denoising diffusion: a = 1 − ᾱ, b = ᾱ, c = β̄.

    Args:
        steps: T, the levels that the network was trained on; it is told the index k − 1.
        variance: β̄_T² > 0, the noise at t = 1; 0.01 for restoration, 1 for generation.
        residual_power: α_k ∝ (T + 1 − k)^power; 0 for equal shares, less than 0 for growing ones.
        noise_power: β_k² ∝ k^power.
        visits: how many of the levels the path goes through, spread evenly as the authors do; between them it is
            linear in (ᾱ, β̄).  Where a network gives residual and noise independently, it is the number of steps on the
            grid "uniform"; else leave it at `steps`.

    Raises:
        ArgumentError: a number out of its range.
    """

    kind: ClassVar[str] = "rddm"
    steps: int = 1000
    variance: float = 0.01
    residual_power: float = 1.0
    noise_power: float = 1.0
    visits: int = 1000

    def __post_init__(self) -> None:
        if not 1 <= self.visits <= self.steps:
            raise ArgumentError(f"RDDM needs 1 <= visits <= steps, got visits={self.visits} and steps={self.steps}")
        if not 0 < self.variance < float("inf"):
            raise ArgumentError(f"RDDM needs a variance above 0, got {self.variance}")

    def nodes(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        k = torch.arange(1, self.steps + 1, dtype=torch.float64)
        # Single precision and truncation, as the authors choose the levels that are visited.
        kept = torch.linspace(-1, self.steps - 1, self.visits + 1, dtype=torch.float32).int().long() + 1
        residual, noise = (
            torch.cat([torch.zeros(1, dtype=torch.float64), share.cumsum(0) / share.sum()])[kept]
            for share in (k.flip(0) ** self.residual_power, k**self.noise_power)
        )
        residual = torch.where(kept == self.steps, 1.0, residual)
        return 1 - residual, residual, (self.variance * noise).sqrt(), kept.double() - 1
