"""Times evenly spaced in t: t_i = start·(1 − i/n)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.paths import Path


@dataclass(frozen=True)
class Uniform:
    """Times evenly spaced in t."""

    def __call__(self, path: Path, steps: int, start: float = 1.0) -> Tensor:
        """float64 (steps + 1,), from start down to 0."""
        return start * torch.linspace(1, 0, steps + 1, dtype=torch.float64)
