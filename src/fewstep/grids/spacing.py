"""The three spacings of diffusers' schedulers over the integer times of a discretely trained network, then 0."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.paths import DiscreteVP, Path


@dataclass(frozen=True)
class Spacing:
    """diffusers' `timestep_spacing`: "leading", "linspace" or "trailing".

    Args:
        name: which of the three.
        offset: diffusers' `steps_offset`, added to the times of "leading".
    """

    name: str
    offset: int = 0

    def __call__(self, path: Path, steps: int, start: float = 1.0) -> Tensor:
        """float64 (steps + 1,), from the first integer time down to 0.

        Raises:
            ArgumentError: more steps than integer times, or a start other than 1.
        """
        n = len(path.betas) if isinstance(path, DiscreteVP) else 1000
        if steps > n or start != 1:
            raise ArgumentError(f"grid {self.name!r} has at most {n} steps and starts at 1; got {steps} and {start}")
        index: np.ndarray
        if self.name == "leading":
            index = (np.arange(steps) * (n // steps)).round()[::-1] + self.offset
        elif self.name == "linspace":
            index = np.linspace(0, n - 1, steps).round()[::-1]
        else:
            index = np.round(np.arange(n, 0, -n / steps)) - 1
        return torch.cat([(torch.from_numpy(index.astype(np.float64)) + 1) / n, torch.zeros(1, dtype=torch.float64)])
