"""Phase retrieval: the amplitudes of a padded picture's frequencies, without their phases.

    A(x) = |F(pad(x))|,      F orthonormal, the padding zero;   with `light` of (x + 1)/2 in place of x

x, its mirror image about the middle and −x have the same amplitudes, every channel by itself.  Light is never below
0, so that of the light (x + 1)/2 the signs are known: DPS measures x, DAPS light.
"""

from typing import ClassVar

import torch
from torch import Tensor

from fewstep.checking import checked
from fewstep.errors import ArgumentError
from fewstep.restoration.operators.base import Operator


@checked
class PhaseRetrieval(Operator):
    """The Fourier amplitudes of every channel.

    Args:
        oversample: the padding on each side is oversample/8 of the picture, so that 2 makes it half as wide again; at
            least 0.
        light: whether x in [−1, 1] is measured as the light (x + 1)/2.

    Raises:
        ArgumentError: oversample below 0.
    """

    linear: ClassVar[bool] = False

    def __init__(self, oversample: float = 2.0, light: bool = False) -> None:
        if oversample < 0:
            raise ArgumentError(f"oversample must be at least 0, got {oversample!r}")
        self.oversample, self.light = oversample, light

    def A(self, x: Tensor) -> Tensor:
        edges = [round(self.oversample / 8 * side) for side in (x.shape[-1], x.shape[-2])]
        padded = torch.nn.functional.pad((x + 1) / 2 if self.light else x, (edges[0], edges[0], edges[1], edges[1]))
        return torch.fft.fft2(padded, norm="ortho").abs()
