"""Clipping: a picture that is too bright, cut off at the ends of its range (high dynamic range recovery).

A(x) = clamp(gain·x, low, high)
"""

from typing import ClassVar

from torch import Tensor

from fewstep.checking import checked
from fewstep.errors import ArgumentError
from fewstep.restoration.operators.base import Operator


@checked
class Clipping(Operator):
    """Scales and cuts off.

    Args:
        gain: more than 0; 2 as the field has it.
        limits: (low, high), where it is cut off.

    Raises:
        ArgumentError: gain not more than 0, or limits that do not rise.
    """

    linear: ClassVar[bool] = False

    def __init__(self, gain: float = 2.0, limits: tuple[float, float] = (-1.0, 1.0)) -> None:
        if not gain > 0 or not limits[0] < limits[1]:
            raise ArgumentError(f"gain must be more than 0 and limits rise, got {gain!r} and {limits!r}")
        self.gain, self.limits = gain, limits

    def A(self, x: Tensor) -> Tensor:
        return (self.gain * x).clamp(*self.limits)

    def A_dagger(self, y: Tensor) -> Tensor:
        """A picture with A(A†(y)) = y for y within the limits."""
        return y / self.gain
