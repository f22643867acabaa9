"""What a detector adds to A(x): nothing, Gaussian noise, or the Poisson noise of counted photons.

Gaussian:  y = A(x) + σ_y·n                          σ_y in the units of x, whose range is [−1, 1]
Poisson:   y = 2·Poisson(r·(A(x) + 1)/2)/r − 1       r photons a number at full white; variance ≈ 2(y + 1)/r
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.checking import checked
from fewstep.errors import ArgumentError


class Noise(ABC):
    """What a detector adds."""

    @abstractmethod
    def add(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """A noisy measurement of the clean one."""

    @abstractmethod
    def variance(self, y: Tensor) -> Tensor | float:
        """The variance of every measurement, as far as y tells it: a number, or of y's shape."""


@checked
@dataclass(frozen=True)
class Gaussian(Noise):
    """Gaussian noise of one standard deviation.

    Args:
        sigma: σ_y ≥ 0 in the units of x in [−1, 1], so 0.1 is what others call 0.05 of pictures in [0, 1].

    Raises:
        ArgumentError: sigma below 0 or not finite.
    """

    sigma: float

    def __post_init__(self) -> None:
        if not 0 <= self.sigma < math.inf:
            raise ArgumentError(f"sigma must be at least 0 and finite, got {self.sigma!r}")

    def add(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        return clean + self.sigma * drawn.to(clean)

    def variance(self, y: Tensor) -> Tensor | float:
        return self.sigma**2


@checked
@dataclass(frozen=True)
class Poisson(Noise):
    """Counted photons.

    Args:
        rate: r > 0, how many a number at full white (+1) has.

    Raises:
        ArgumentError: a rate that is not more than 0 and finite.
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf:
            raise ArgumentError(f"rate must be more than 0 and finite, got {self.rate!r}")

    def add(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        expected = (self.rate * (clean.double().cpu() + 1) / 2).clamp_min(0)
        return (2 * torch.poisson(expected, generator) / self.rate - 1).to(clean)

    def variance(self, y: Tensor) -> Tensor | float:
        # A count of 0 is compatible with one photon, so no variance is below that of one.
        return 2 * (y + 1).clamp_min(2 / self.rate) / self.rate


NOISELESS = Gaussian(0.0)
