"""Blur: the convolution with a kernel, the picture continued periodically.

A(x) = k ∗ x,      F(A x) = F(k)·F(x),      d = |F(k)|
"""

import math

import torch
from torch import Tensor

from fewstep.checking import checked
from fewstep.errors import ArgumentError
from fewstep.restoration.operators.base import ConvolutionOperator


@checked
class Blur(ConvolutionOperator):
    """The circular convolution of every channel with one kernel.

    Args:
        kernel: (height, width) with odd sides, at most those of the picture; its middle is the pixel itself.

    Raises:
        ArgumentError: the kernel is no matrix of odd sides, or not finite.
    """

    def __init__(self, kernel: Tensor) -> None:
        kernel = torch.as_tensor(kernel, dtype=torch.float64)
        if kernel.ndim != 2 or any(side % 2 == 0 for side in kernel.shape) or not kernel.isfinite().all():
            raise ArgumentError(f"kernel must be finite, (height, width) of odd sides, got {tuple(kernel.shape)}")
        self.kernel = kernel

    @staticmethod
    @checked
    def gaussian(std: float, size: int = 0) -> "Blur":
        """A Gaussian of standard deviation `std` pixels, `size` pixels wide (odd; 6·std unless given)."""
        if not 0 < std < math.inf:
            raise ArgumentError(f"std must be more than 0 and finite, got {std!r}")
        reach = (size - 1) // 2 if size else math.ceil(3 * std)
        line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / std) ** 2)
        kernel = line[:, None] * line
        return Blur(kernel / kernel.sum())

    @staticmethod
    @checked
    def motion(length: float, angle: float = 0.0) -> "Blur":
        """A straight movement over `length` ≥ 1 pixels, `angle` degrees from the horizontal."""
        if not 1 <= length < math.inf:
            raise ArgumentError(f"length must be at least 1 and finite, got {length!r}")
        reach = math.ceil(length / 2)
        kernel = torch.zeros(2 * reach + 1, 2 * reach + 1, dtype=torch.float64)
        along = torch.linspace(-(length - 1) / 2, (length - 1) / 2, 8 * reach + 1, dtype=torch.float64)
        rows = reach - along * math.sin(math.radians(angle))
        columns = reach + along * math.cos(math.radians(angle))
        below, left = rows.floor(), columns.floor()
        for down in (0, 1):
            for right in (0, 1):
                share = (1 - (rows - below - down).abs()) * (1 - (columns - left - right).abs())
                at = ((below + down).long().clamp(max=2 * reach), (left + right).long().clamp(max=2 * reach))
                kernel.index_put_(at, share, accumulate=True)
        return Blur(kernel / kernel.sum())

    def _transfer(self, height: int, width: int, like: Tensor) -> Tensor:
        kind = torch.complex128 if like.dtype == torch.float64 else torch.complex64
        return self.beside((height, width), like, kind, lambda: self._made(height, width))

    def _made(self, height: int, width: int) -> Tensor:
        """The kernel's Fourier transform on a picture."""
        rows, columns = self.kernel.shape
        if rows > height or columns > width:
            raise ArgumentError(f"a kernel of {rows}×{columns} is larger than the picture, {height}×{width}")
        padded = torch.zeros(height, width, dtype=torch.float64)
        padded[:rows, :columns] = self.kernel
        return torch.fft.fft2(padded.roll((-(rows // 2), -(columns // 2)), (0, 1)))

    def _filter(self, x: Tensor, adjoint: bool) -> Tensor:
        transfer = self._transfer(x.shape[-2], x.shape[-1], x)
        return torch.fft.ifft2((transfer.conj() if adjoint else transfer) * torch.fft.fft2(x)).real

    def gains(self, height: int, width: int, like: Tensor) -> Tensor:
        return self._transfer(height, width, like).abs()

    def A(self, x: Tensor) -> Tensor:
        return self._filter(x, adjoint=False)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self._filter(y, adjoint=True)
