"""Magnetic resonance: some frequencies of a picture, seen by one coil or several.

    A(x)_c = m·F(S_c·x),      F the orthonormal two-dimensional Fourier transform, S_c the coil's sensitivity

x is a real picture (channels, height, width), or a complex one as two channels (real, imaginary) with pairs=True; y is
(batch, channels or coils, height, width, 2), real and imaginary parts last.
"""

import torch
from torch import Tensor

from fewstep.checking import checked
from fewstep.errors import ArgumentError
from fewstep.restoration.operators.base import ConvolutionOperator, Function, Operator


@checked
class FourierMask(ConvolutionOperator):
    """The frequencies where the mask is 1.

    Args:
        mask: (height, width) of zeros and ones, frequency 0 in the corner as FFTs have it.
        pairs: whether the two channels of x are a complex picture.

    Raises:
        ArgumentError: a mask that is no matrix of zeros and ones.
    """

    def __init__(self, mask: Tensor, pairs: bool = False) -> None:
        self.mask, self.pairs = _checked(mask), pairs

    @staticmethod
    @checked
    def columns(
        height: int, width: int, acceleration: int = 4, centre: float = 0.08, pairs: bool = False
    ) -> "FourierMask":
        """Every `acceleration`-th column and a share `centre` of the lowest ones, as scanners take them."""
        frequency = torch.fft.fftfreq(width) * width
        seen = (frequency.long() % acceleration == 0) | (frequency.abs() <= centre * width / 2)
        return FourierMask(seen.float().expand(height, width).clone(), pairs)

    def gains(self, height: int, width: int, like: Tensor) -> Tensor:
        mask = self.beside("mask", like)
        if mask.shape != (height, width):
            raise ArgumentError(f"the mask is {tuple(mask.shape)}, the picture {height}×{width}")
        # A real picture has both of F(k) and F(−k) where either was seen.
        return mask if self.pairs else ((mask + mask.flip((0, 1)).roll((1, 1), (0, 1))) / 2).sqrt()

    def spectral(self, function: Function, x: Tensor) -> Tensor:
        factor = function(self.gains(x.shape[-2], x.shape[-1], x))
        return from_complex(torch.fft.ifft2(factor * torch.fft.fft2(to_complex(x, self.pairs))), self.pairs)

    def A(self, x: Tensor) -> Tensor:
        return torch.view_as_real(self.beside("mask", x) * torch.fft.fft2(to_complex(x, self.pairs), norm="ortho"))

    def A_adjoint(self, y: Tensor) -> Tensor:
        seen = self.beside("mask", y) * torch.view_as_complex(y.contiguous())
        return from_complex(torch.fft.ifft2(seen, norm="ortho"), self.pairs)

    def restrict(self, y: Tensor) -> Tensor:
        return torch.where(self.beside("mask", y, torch.bool)[..., None], y, torch.zeros_like(y))


@checked
class MultiCoil(Operator):
    """Several coils, each with its own sensitivity; the picture is complex, as two channels.

    Args:
        mask: (height, width) of zeros and ones.
        maps: S, complex (coils, height, width).

    Raises:
        ArgumentError: shapes that do not fit.
    """

    def __init__(self, mask: Tensor, maps: Tensor) -> None:
        self.mask = _checked(mask)
        if not maps.is_complex() or maps.ndim != 3 or maps.shape[1:] != self.mask.shape:
            raise ArgumentError(
                f"maps must be complex (coils, {', '.join(map(str, self.mask.shape))}), got {maps.dtype} "
                f"{tuple(maps.shape)}"
            )
        self.maps = maps

    def _maps(self, like: Tensor) -> Tensor:
        return self.beside("maps", like, torch.complex128 if like.dtype == torch.float64 else torch.complex64)

    def A(self, x: Tensor) -> Tensor:
        seen = torch.fft.fft2(self._maps(x) * to_complex(x, True), norm="ortho")
        return torch.view_as_real(self.beside("mask", x) * seen)

    def A_adjoint(self, y: Tensor) -> Tensor:
        coils = torch.fft.ifft2(self.beside("mask", y) * torch.view_as_complex(y.contiguous()), norm="ortho")
        return from_complex((self._maps(y).conj() * coils).sum(1, keepdim=True), True)

    def restrict(self, y: Tensor) -> Tensor:
        return torch.where(self.beside("mask", y, torch.bool)[..., None], y, torch.zeros_like(y))


def _checked(mask: Tensor) -> Tensor:
    mask = torch.as_tensor(mask)
    if mask.ndim != 2 or not bool(((mask == 0) | (mask == 1)).all()) or not bool(mask.any()):
        raise ArgumentError(f"mask must be (height, width) of zeros and ones, with a 1; got shape {tuple(mask.shape)}")
    return mask.float()


def to_complex(x: Tensor, pairs: bool) -> Tensor:
    """A real picture as complex numbers, or two channels as one complex one, (batch, channels, height, width)."""
    if not pairs:
        return torch.complex(x, torch.zeros_like(x))
    if x.shape[1] != 2:
        raise ArgumentError(f"a complex picture has 2 channels (real, imaginary), got {x.shape[1]}")
    return torch.complex(x[:, :1].contiguous(), x[:, 1:].contiguous())


def from_complex(z: Tensor, pairs: bool) -> Tensor:
    """The adjoint of `to_complex`."""
    return torch.cat([z.real, z.imag], 1) if pairs else z.real
