"""Parallel-beam tomography: line integrals of a picture at several angles.

    A(x)_{θ,b} = h Σ_p x_p·max(0, 1 − |c_p·(cos θ, sin θ) − b|)

c_p is the pixel's place from the middle, in pixels; each pixel's value goes to the two nearest detector bins b.  h =
1/n makes the integral over a picture of side 1.  Few angles are a sparse view, angles over less than 180° a limited
one.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.checking import checked
from fewstep.errors import ArgumentError
from fewstep.restoration.operators.base import Operator


@checked
class Tomography(Operator):
    """Projections of square pictures; y is (batch, channels, angles, bins) with ⌈√2·n⌉ + 2 bins.

    Args:
        size: n, the side of the picture in pixels.
        angles: how many, evenly spaced from 0 and without the last, or a tensor of degrees.
        span: the degrees over which they are spread: 180 for all views, less for a limited one.

    Raises:
        ArgumentError: no angle, or a size below 1.
    """

    by_channel: ClassVar[bool] = True

    def __init__(self, size: int, angles: int | Tensor, span: float = 180.0) -> None:
        degrees = span * torch.arange(angles, dtype=torch.float64) / angles if isinstance(angles, int) else angles
        if size < 1 or degrees.numel() == 0:
            raise ArgumentError(f"size and the number of angles must be at least 1, got {size} and {degrees.numel()}")
        self.size, self.bins, self.degrees = size, math.ceil(math.sqrt(2) * size) + 2, degrees.double()
        place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
        down, right = (grid.flatten() for grid in torch.meshgrid(place, place, indexing="ij"))
        theta = torch.deg2rad(self.degrees)[:, None]
        where = right * theta.cos() + down * theta.sin() + (self.bins - 1) / 2
        low = where.floor()
        first = torch.arange(len(theta))[:, None] * self.bins
        self._index = torch.stack([first + low, first + low + 1]).long()
        self._weight = torch.stack([1 - (where - low), where - low]) / size

    def A(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (self.size, self.size):
            raise ArgumentError(f"this tomography is for pictures of {self.size}×{self.size}, got {tuple(x.shape)}")
        index, weight = self.beside("_index", x, torch.long), self.beside("_weight", x)
        flat = x.reshape(-1, 1, 1, self.size**2) * weight
        seen = x.new_zeros(len(flat), len(self.degrees) * self.bins)
        seen = seen.index_add(1, index.flatten(), flat.reshape(len(flat), -1))
        return seen.reshape(*x.shape[:-2], len(self.degrees), self.bins)

    def A_adjoint(self, y: Tensor) -> Tensor:
        index, weight = self.beside("_index", y, torch.long), self.beside("_weight", y)
        flat = y.reshape(-1, len(self.degrees) * self.bins)
        spread = flat[:, index.flatten()].reshape(-1, *index.shape) * weight
        return spread.sum((1, 2)).reshape(*y.shape[:-2], self.size, self.size)
