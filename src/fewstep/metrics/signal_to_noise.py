"""The peak signal-to-noise ratio of pictures, in decibels.

    PSNR = 10·log₁₀((high − low)²/MSE),      MSE = mean of (a − b)² over one sample's numbers.

a, b: (batch, …) with values in [low, high]; ∞ where they are equal.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.metrics.samples import row_pair


def psnr(a: Tensor, b: Tensor, limits: tuple[float, float] = (-1, 1)) -> Tensor:
    """The peak signal-to-noise ratio of each sample, float64 (batch,) in decibels.

    Args:
        a: pictures (batch, …).
        b: pictures of the same shape.
        limits: the lowest and the highest value that a picture may have; values beyond are taken as they are.

    Raises:
        ArgumentError: NaN or infinity, differing shapes or devices, limits that do not rise.
    """
    left, right = row_pair(("a", "b"), a, b, least=1)
    if a.shape != b.shape:
        raise ArgumentError(f"a and b must have the same shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    if not isinstance(limits, Sequence) or len(limits) != 2 or not 0 < limits[1] - limits[0] < math.inf:
        raise ArgumentError(f"limits must be (low, high) with low below high, both finite, got {limits!r}")
    error = (left - right).square().mean(1)
    return 10 * ((limits[1] - limits[0]) ** 2 / error).log10()
