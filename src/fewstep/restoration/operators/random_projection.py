"""Compressed sensing: random orthonormal combinations of all numbers of x.

A(x) = Q x,      Q (m × d) with Q Qᵀ = I, its rows uniform among all such
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fewstep.checking import checked
from fewstep.errors import ArgumentError
from fewstep.restoration.operators.base import RowOrthogonalOperator


@checked
class RandomProjection(RowOrthogonalOperator):
    """Random orthonormal rows; y is (batch, measurements).

    Args:
        shape: the shape of one sample, of d numbers.
        measurements: m, from 1 to d.
        seed: of the rows.

    Raises:
        ArgumentError: m out of its range.
    """

    scale = 1.0

    def __init__(self, shape: Sequence[int], measurements: int, seed: int = 0) -> None:
        self.shape = tuple(shape)
        size = math.prod(self.shape)
        if not 1 <= measurements <= size:
            raise ArgumentError(f"measurements must lie in 1 … {size}, got {measurements!r}")
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(size, measurements, generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(drawn)
        self.rows = (q * r.diagonal().sign()).mT

    def A(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.beside("rows", x).mT

    def A_adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.beside("rows", y)).reshape(-1, *self.shape)
