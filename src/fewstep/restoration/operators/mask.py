"""Inpainting: some of the numbers of x are seen, the others are not.

    A(x) = m·x,      Aᵀ y = A† y = m·y,      m ∈ {0, 1}

y keeps the shape of x, with zeros where nothing was seen.
"""

import math

import torch
from torch import Tensor

from fewstep.checking import checked
from fewstep.errors import ArgumentError
from fewstep.restoration.operators.base import RowOrthogonalOperator


@checked
class Mask(RowOrthogonalOperator):
    """Keeps the numbers where the mask is 1.

    Args:
        mask: zeros and ones that broadcast against one sample, as (height, width) or (channels, height, width).

    Raises:
        ArgumentError: a value other than 0 and 1, or no 1.
    """

    scale = 1.0

    def __init__(self, mask: Tensor) -> None:
        try:
            mask = torch.as_tensor(mask)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ArgumentError(f"mask must be a tensor of zeros and ones, got {mask!r:.80}") from error
        if not bool(((mask == 0) | (mask == 1)).all()) or not bool(mask.any()):
            raise ArgumentError("mask must hold zeros and ones, and at least one 1")
        self.mask = mask.to(torch.bool)

    @staticmethod
    @checked
    def box(height: int, width: int, top: int, left: int, size: int) -> "Mask":
        """All is seen but a square of `size` pixels whose first is (top, left)."""
        if not (0 <= top <= height - size and 0 <= left <= width - size and size > 0):
            raise ArgumentError(f"a box of {size} pixels at ({top}, {left}) is not within {height}×{width}")
        mask = torch.ones(height, width)
        mask[top : top + size, left : left + size] = 0
        return Mask(mask)

    @staticmethod
    @checked
    def random(height: int, width: int, seen: float, seed: int = 0) -> "Mask":
        """A share `seen` in (0, 1] of the pixels is seen, at places drawn with `seed`."""
        if not 0 < seen <= 1:
            raise ArgumentError(f"seen must lie in (0, 1], got {seen!r}")
        count = max(1, round(seen * height * width))
        order = torch.randperm(height * width, generator=torch.Generator().manual_seed(seed))
        mask = torch.zeros(height * width)
        mask[order[:count]] = 1
        return Mask(mask.reshape(height, width))

    @staticmethod
    @checked
    def half(height: int, width: int) -> "Mask":
        """The left half is seen, the middle column of an odd width included."""
        return Mask((torch.arange(width) < math.ceil(width / 2)).float().expand(height, width).clone())

    def A(self, x: Tensor) -> Tensor:
        return x * self.beside("mask", x)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return y * self.beside("mask", y)

    def restrict(self, y: Tensor) -> Tensor:
        return torch.where(self.beside("mask", y, torch.bool), y, torch.zeros((), dtype=y.dtype, device=y.device))
