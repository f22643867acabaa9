"""Grey: the mean of the colour channels.

A(x) = ⅓ Σ_c x_c,      A Aᵀ = ⅓·I      (1/channels in general)
"""

from torch import Tensor

from fewstep.checking import checked
from fewstep.errors import ArgumentError
from fewstep.restoration.operators.base import RowOrthogonalOperator


@checked
class Grey(RowOrthogonalOperator):
    """The mean of the channels of (batch, channels, height, width); y has one channel.

    Args:
        channels: how many there are.

    Raises:
        ArgumentError: fewer than 1 channel.
    """

    def __init__(self, channels: int = 3) -> None:
        if channels < 1:
            raise ArgumentError(f"channels must be at least 1, got {channels!r}")
        self.channels, self.scale = channels, channels**-0.5

    def A(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.channels:
            raise ArgumentError(f"Grey was made for {self.channels} channels, the picture has {x.shape[1]}")
        return x.mean(1, keepdim=True)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return y.expand(-1, self.channels, *y.shape[2:]) / self.channels
