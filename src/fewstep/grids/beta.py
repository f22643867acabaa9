"""Beta Sampling's grid (Lee et al. 2024, 2407.12173): quantiles of a Beta distribution, dense at both ends.

t_i = start·Q(1 − i/n),   i = 0 … n,   Q the inverse of the distribution function of Beta(a, b).

With a = b < 1 the density is U-shaped: many times near noise, where low frequencies are made, and near data, where
high ones are; a = b = 1 is the uniform grid.  Another reading in use (diffusers) takes quantiles of the noise-to-signal
ratio ρ = σ/α instead of the time, ρ_i = ρ_min + Q(1 − i/(n−1))·(ρ_max − ρ_min) and then 0: nearly all of them are at
high noise.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.paths import Path


@dataclass(frozen=True)
class Beta:
    """Quantiles of Beta(a, b).

    Args:
        a: more than 0; smaller is denser near t = 0.
        b: more than 0; smaller is denser near t = 1.
        of: "t", or "rho" for quantiles of σ/α.
        rho_min: with "rho", the last ratio before 0.
        rho_max: with "rho", where the grid begins if the path's own ratio is larger.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    a: float = 0.6
    b: float = 0.6
    of: str = "t"
    rho_min: float = 0.002
    rho_max: float = 80.0

    def __post_init__(self) -> None:
        for name in ("a", "b"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ArgumentError(f"{name} must be more than 0, got {getattr(self, name)!r}")
        if self.of not in ("t", "rho"):
            raise ArgumentError(f"of must be 't' or 'rho', got {self.of!r}")

    def quantiles(self, n: int) -> Tensor:
        """Q at n levels evenly spaced from 1 down to 0, float64."""
        levels = np.linspace(1, 0, n) if n > 1 else np.ones(1)
        from scipy.special import betaincinv

        return torch.from_numpy(betaincinv(self.a, self.b, levels))

    def __call__(self, path: Path, steps: int, start: float = 1.0) -> Tensor:
        """float64 (steps + 1,), from start down to 0."""
        if self.of == "t":
            return start * self.quantiles(steps + 1)
        top = min(float(torch.exp(-path.lam(start))), self.rho_max)
        bottom = min(self.rho_min, top / 2)
        ratio = bottom + self.quantiles(steps) * (top - bottom)
        inner = path.t_of_lam(-ratio[1:].log())
        return torch.cat([torch.tensor([start], dtype=torch.float64), inner, torch.zeros(1, dtype=torch.float64)])
