"""The trigonometric path α = cos(πt/2), σ = sin(πt/2): variance-preserving, with pure noise at t = 1.

λ(t) = −log tan(πt/2),      α′ = −(π/2)σ,  σ′ = (π/2)α,      so flow = (π/2)·v.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.checking import checked
from fewstep.paths.base import Path, as_time


@checked
@dataclass(frozen=True)
class Cosine(Path):
    """The trigonometric path: α = cos(πt/2), σ = sin(πt/2)."""

    kind: ClassVar[str] = "cosine"

    def alpha(self, t: Tensor | float) -> Tensor:
        # The sine of the complement is exact at t = 1, where the cosine would leave 6e-17.
        return torch.sin(math.pi / 2 * (1 - as_time(t)))

    def sigma(self, t: Tensor | float) -> Tensor:
        return torch.sin(math.pi / 2 * as_time(t))

    def lam(self, t: Tensor | float) -> Tensor:
        return self.alpha(t).log() - self.sigma(t).log()

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        return torch.atan(torch.exp(-as_time(lam))) * (2 / math.pi)

    def d_alpha(self, t: Tensor | float) -> Tensor:
        return -math.pi / 2 * self.sigma(t)

    def d_sigma(self, t: Tensor | float) -> Tensor:
        return math.pi / 2 * self.alpha(t)
