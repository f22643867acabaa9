"""Any linear operator as a dense matrix with its singular value decomposition, for small samples.

A(x) = M x,      M = U diag(d) Vᵀ
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.checking import checked
from fewstep.errors import ArgumentError
from fewstep.restoration.operators.base import Function, SpectralOperator

# The most numbers of a sample that a dense decomposition is made for.
DENSE = 3072


@checked
class Matrix(SpectralOperator):
    """A matrix that acts on x flattened.

    Args:
        matrix: M, (measurements, d), real.
        shape: the shape of one sample, of d numbers.
        measured: the shape of y; (measurements,) unless given.

    Raises:
        ArgumentError: shapes that do not fit, or a matrix that is not finite.
    """

    def __init__(self, matrix: Tensor, shape: Sequence[int], measured: Sequence[int] | None = None) -> None:
        m = torch.as_tensor(matrix, dtype=torch.float64)
        self.shape = tuple(shape)
        self.measured = (len(m),) if measured is None else tuple(measured)
        if m.shape != (math.prod(self.measured), math.prod(self.shape)) or not bool(m.isfinite().all()):
            raise ArgumentError(
                f"matrix must be finite, ({math.prod(self.measured)}, {math.prod(self.shape)}), got {tuple(m.shape)}"
            )
        self.matrix = m
        _, d, vt = torch.linalg.svd(m, full_matrices=False)
        # One 0 more stands for all directions that no row has a part in.
        self.singular, self.vectors = torch.cat([d, d.new_zeros(1)]), vt.mT

    def A(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.beside("matrix", x).mT).reshape(-1, *self.measured)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return (y.flatten(1) @ self.beside("matrix", y)).reshape(-1, *self.shape)

    def spectral(self, function: Function, x: Tensor) -> Tensor:
        v, factors = self.beside("vectors", x), function(self.beside("singular", x))
        rest = factors[-1]
        return rest * x + ((factors[:-1] - rest) * (x.flatten(1) @ v) @ v.mT).reshape(x.shape)


def dense_matrix(operator: Any, shape: Sequence[int]) -> Tensor:
    """The matrix (measurements, d) of a linear operator, float64, from its answers to unit vectors.

    Args:
        operator: has A.
        shape: the shape of one sample.

    Raises:
        ArgumentError: a sample has more than 3,072 numbers.
    """
    size = math.prod(shape)
    if size > DENSE:
        raise ArgumentError(f"a dense matrix is made for samples of at most {DENSE} numbers, got {size}")
    unit = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    return operator.A(unit).flatten(1).mT
