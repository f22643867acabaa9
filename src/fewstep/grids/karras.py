"""Karras' grid (2206.00364, eq. 5): noise-to-signal ratios evenly spaced in their 1/power-th power, then 0.

ρ_i = (ρ_max^{1/p} + i/(n−1)·(ρ_min^{1/p} − ρ_max^{1/p}))^p,   i = 0 … n−1,   ρ = σ/α = e^{−λ}.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.paths import DiscreteVP, Path


def descend(
    path: Path, steps: int, start: float, rho_max: float, rho_min: float, power: float, trained: bool = False
) -> Tensor:
    """Times whose noise-to-signal ratio falls evenly in its 1/power-th power (in its logarithm for power = ∞).

    The first time is `start` itself, also where its ratio is above rho_max (a path that ends in pure noise has ∞).
    """
    if trained and isinstance(path, DiscreteVP):
        rho_min = float(torch.exp(-path.lam(path.t_of_index(0))))
    top = min(float(torch.exp(-path.lam(start))), rho_max)
    bottom = min(rho_min, top / 2)
    share = torch.linspace(0, 1, steps, dtype=torch.float64)
    if power == float("inf"):
        ratio = top * (bottom / top) ** share
    else:
        ratio = (top ** (1 / power) + share * (bottom ** (1 / power) - top ** (1 / power))) ** power
    times = path.t_of_lam(-ratio.log())
    zero = torch.zeros(1, dtype=torch.float64)
    return torch.cat([torch.full((1,), start, dtype=torch.float64), times[1:], zero])


@dataclass(frozen=True)
class Karras:
    """Karras' grid in the noise-to-signal ratio.

    Args:
        power: the exponent; 7 as published.
        rho_min: the last ratio before 0.
        rho_max: where the grid begins if the path's own ratio is larger.
        trained: whether the last ratio is the least one that a discretely trained network has seen, where it is one; so
            it is in diffusers, k-diffusion, ComfyUI and A1111.
    """

    power: float = 7.0
    rho_min: float = 0.002
    rho_max: float = 80.0
    trained: bool = False

    def __call__(self, path: Path, steps: int, start: float = 1.0) -> Tensor:
        """float64 (steps + 1,), from start down to 0."""
        return descend(path, steps, start, self.rho_max, self.rho_min, self.power, self.trained)
