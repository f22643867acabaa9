"""Blur in light: what a moving camera does, whose film darkens by a power of the light.

    A(x) = 2·(k ∗ u^γ)^{1/γ} − 1,      u = max((x + 1)/2, 0)

A bright point spreads further than a dark one, so the blur depends on the picture.
"""

from typing import ClassVar

from torch import Tensor

from fewstep.checking import checked
from fewstep.errors import ArgumentError
from fewstep.restoration.operators.base import Operator
from fewstep.restoration.operators.blur import Blur

# Below this light the root's slope has no bound.
DARK = 1e-6


@checked
class NonlinearBlur(Operator):
    """A blur of the light behind a picture in [−1, 1].

    Args:
        blur: the linear blur; its kernel must not be negative.
        gamma: γ, at least 1; 2.2 for screens.

    Raises:
        ArgumentError: a negative kernel, or gamma below 1.
    """

    linear: ClassVar[bool] = False

    def __init__(self, blur: Blur, gamma: float = 2.2) -> None:
        if bool((blur.kernel < 0).any()) or not gamma >= 1:
            raise ArgumentError(f"the kernel must not be negative and gamma be at least 1, got gamma={gamma!r}")
        self.blur, self.gamma = blur, gamma

    def A(self, x: Tensor) -> Tensor:
        light = ((x + 1) / 2).clamp_min(DARK) ** self.gamma
        return 2 * self.blur.A(light).clamp_min(DARK**self.gamma) ** (1 / self.gamma) - 1

    def A_dagger(self, y: Tensor) -> Tensor:
        """y itself, where a search may begin."""
        return y
