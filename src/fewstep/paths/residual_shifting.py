"""The path of ResShift (Yue et al. 2023): the residual shifts by η as the noise κ√η grows.

    x_k = x₀ + η_k·(y − x₀) + κ·√η_k·ε,      k = 1 … T,
    √η_k = √η_1·(√η_T/√η_1)^{((k−1)/(T−1))^p},      √η_1 = min(m/κ, m),

so that a = 1 − η, b = η, c = κ√η.  The noise reaches κ while the picture is replaced by y, not by 0.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths.bridge import NodeBridge


@method(
    name="resshift",
    papers=["ResShift: Efficient Diffusion Model for Image Super-resolution by Residual Shifting"],
    arxiv="2307.12348", family="bridges", steps=15, floor=0.04,
    summary="The path of ResShift's super-resolution, 15 steps; the paper's sampler on it is `random-walk`.",
)  # fmt: skip
@method(
    name="resshift-4", papers=["Efficient Diffusion Model for Image Restoration by Residual Shifting"],
    arxiv="2403.07319", family="bridges", steps=4, floor=0.2,
    summary="The path of ResShift's restoration, 4 steps; the paper's sampler on it is `random-walk`.",
)  # fmt: skip
@dataclass(frozen=True)
class ResShift(NodeBridge):
    """The path of residual shifting: a = 1 − η, b = η, c = κ√η.

    Args:
        steps: T ≥ 2, the levels that the network was trained on; it is told the index k − 1, and the sampler visits
            all: that many steps on the grid "uniform".
        floor: m > 0, the least noise level.
        kappa: κ > 0, the noise at √η = 1.
        power: p > 0; a larger one shifts more slowly at first.
        end: √η_T in (√η_1, 1).

    Raises:
        ArgumentError: a number out of its range.
    """

    kind: ClassVar[str] = "resshift"
    steps: int = 15
    floor: float = 0.04
    kappa: float = 2.0
    power: float = 0.3
    end: float = 0.99

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ArgumentError(f"ResShift needs at least 2 steps, got {self.steps}")
        if not (self.floor > 0 and self.kappa > 0 and self.power > 0):
            raise ArgumentError(
                f"ResShift needs floor, kappa and power above 0, got {self.floor}, {self.kappa} and {self.power}"
            )
        if not self.first < self.end < 1:
            raise ArgumentError(f"ResShift needs an end between √η_1 = {self.first:.4g} and 1, got {self.end}")

    @property
    def first(self) -> float:
        """√η_1."""
        return min(self.floor / self.kappa, self.floor)

    def nodes(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        share = torch.linspace(0, 1, self.steps, dtype=torch.float64) ** self.power
        root = self.first * (self.end / self.first) ** share
        root = torch.cat([torch.zeros(1, dtype=torch.float64), root])
        index = torch.arange(self.steps + 1, dtype=torch.float64) - 1
        return 1 - root**2, root**2, self.kappa * root, index
