"""Quantisation: every number rounded to one of a few levels.

    A(x) = low + s·round((x − low)/s),      s = (high − low)/(levels − 1)

Its gradient is 0 almost everywhere; that of the identity is given instead (straight through).
"""

from typing import ClassVar

from torch import Tensor

from fewstep.checking import checked
from fewstep.errors import ArgumentError
from fewstep.restoration.operators.base import Operator


@checked
class Quantisation(Operator):
    """Rounds to evenly spaced levels; values beyond the limits go to the nearest level.

    Args:
        levels: at least 2.
        limits: the lowest and the highest level.

    Raises:
        ArgumentError: fewer than 2 levels, or limits that do not rise.
    """

    linear: ClassVar[bool] = False

    def __init__(self, levels: int, limits: tuple[float, float] = (-1.0, 1.0)) -> None:
        if levels < 2 or not limits[0] < limits[1]:
            raise ArgumentError(f"levels must be at least 2 and limits rise, got {levels!r} and {limits!r}")
        self.levels, self.limits = levels, limits

    def A(self, x: Tensor) -> Tensor:
        low, high = self.limits
        step = (high - low) / (self.levels - 1)
        rounded = (low + step * ((x.detach() - low) / step).round()).clamp(low, high)
        return x + (rounded - x).detach()

    def A_dagger(self, y: Tensor) -> Tensor:
        """y itself: A(A†(A x)) = A x."""
        return y
