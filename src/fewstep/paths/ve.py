"""The variance-exploding path of Karras et al. (2022, "Elucidating the Design Space"): α = 1, σ = σ_max·t.

λ(t) = −log σ,      f = 0,      g² = 2σ·σ_max.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.checking import checked
from fewstep.errors import ArgumentError
from fewstep.paths.base import Path, as_time


@checked
@dataclass(frozen=True)
class VE(Path):
    """The variance-exploding path α = 1, σ = σ_max·t.

    Args:
        sigma_max: the noise at t = 1 in the units of the data; 80 for pictures in [−1, 1].
    """

    kind: ClassVar[str] = "ve"
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_max < math.inf:
            raise ArgumentError(f"VE needs 0 < sigma_max, got {self.sigma_max}")

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.ones_like(as_time(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        return self.sigma_max * as_time(t)

    def lam(self, t: Tensor | float) -> Tensor:
        return -self.sigma(t).log()

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        return torch.exp(-as_time(lam)) / self.sigma_max

    def d_alpha(self, t: Tensor | float) -> Tensor:
        return torch.zeros_like(as_time(t))

    def d_sigma(self, t: Tensor | float) -> Tensor:
        return torch.full_like(as_time(t), self.sigma_max)

    def model_time(self, t: Tensor | float) -> Tensor:
        """σ, which networks of this path are told."""
        return self.sigma(t)
