"""Fewer pixels: the mean of every block, or bicubic interpolation made as wide as the new pixel.

average: A(x) = mean over f×f pixels, A Aᵀ = f⁻²·I
bicubic: A(x) = D_h x D_wᵀ, D (n/f × n) with Keys' cubic (a = −½) stretched by f, edges mirrored
"""

from functools import partial

import torch
from torch import Tensor

from fewstep.checking import checked
from fewstep.errors import ArgumentError
from fewstep.restoration.operators.base import Function, RowOrthogonalOperator, SpectralOperator


def _check(factor: int) -> None:
    if not isinstance(factor, int) or isinstance(factor, bool) or factor < 2:
        raise ArgumentError(f"factor must be an integer of at least 2, got {factor!r}")


def _fits(factor: int, height: int, width: int) -> None:
    if height % factor or width % factor:
        raise ArgumentError(f"a picture of {height}×{width} does not divide by factor={factor}")


@checked
class AverageDownsample(RowOrthogonalOperator):
    """The mean of every block of factor × factor pixels.

    Args:
        factor: at least 2; it divides both sides of the picture.

    Raises:
        ArgumentError: factor is no integer of at least 2.
    """

    def __init__(self, factor: int) -> None:
        _check(factor)
        self.factor, self.scale = factor, 1 / factor

    def A(self, x: Tensor) -> Tensor:
        _fits(self.factor, x.shape[-2], x.shape[-1])
        return torch.nn.functional.avg_pool2d(x, self.factor)

    def A_adjoint(self, y: Tensor) -> Tensor:
        spread = y.repeat_interleave(self.factor, -2).repeat_interleave(self.factor, -1)
        return spread / self.factor**2


@checked
class BicubicDownsample(SpectralOperator):
    """Bicubic downsampling, antialiased as picture libraries do it.

    Args:
        factor: at least 2; it divides both sides of the picture.

    Raises:
        ArgumentError: factor is no integer of at least 2.
    """

    def __init__(self, factor: int) -> None:
        _check(factor)
        self.factor = factor
        self._known: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def _line(self, n: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(D, d, V) of a line of n pixels; d has n entries, the last of them 0."""
        if n not in self._known:
            matrix = _bicubic(n, self.factor)
            _, d, vt = torch.linalg.svd(matrix)
            self._known[n] = (matrix, torch.cat([d, d.new_zeros(n - len(d))]), vt.mT)
        matrix, d, v = (self.beside((n, i), like, make=partial(self._known[n].__getitem__, i)) for i in range(3))
        return matrix, d, v

    def A(self, x: Tensor) -> Tensor:
        _fits(self.factor, x.shape[-2], x.shape[-1])
        return self._line(x.shape[-2], x)[0] @ x @ self._line(x.shape[-1], x)[0].mT

    def A_adjoint(self, y: Tensor) -> Tensor:
        rows, columns = (self._line(side * self.factor, y)[0] for side in y.shape[-2:])
        return rows.mT @ y @ columns

    def spectral(self, function: Function, x: Tensor) -> Tensor:
        (_, down, v), (_, across, w) = (self._line(side, x) for side in x.shape[-2:])
        return v @ (function(down[:, None] * across) * (v.mT @ x @ w)) @ w.mT


def _bicubic(n: int, factor: int) -> Tensor:
    """The matrix (n/factor, n) of one line."""
    centre = (torch.arange(n // factor, dtype=torch.float64)[:, None] + 0.5) * factor - 0.5
    reach = torch.arange(-2 * factor, 2 * factor + 1, dtype=torch.float64)
    place = centre.floor() + reach
    away = ((place - centre) / factor).abs()
    near = 1.5 * away**3 - 2.5 * away**2 + 1
    far = -0.5 * away**3 + 2.5 * away**2 - 4 * away + 2
    weight = torch.where(away <= 1, near, torch.where(away < 2, far, 0.0))
    inside = place.long() % (2 * n)
    mirrored = torch.where(inside < n, inside, 2 * n - 1 - inside)
    matrix = torch.zeros(n // factor, n, dtype=torch.float64)
    return matrix.scatter_add_(1, mirrored, weight / weight.sum(1, keepdim=True))
