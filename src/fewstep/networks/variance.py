"""A network that answers twice: what it predicts, and how much noise a step back should draw."""

from typing import Any

import torch
from torch import Tensor, nn

from fewstep.networks.within import built_within


class VarianceNetwork(nn.Module):
    """net(x, time, label) → the prediction and, after it along the channels, the second answer of `TwoHeaded`.

    Args:
        channels: the channels of x.
        classes: the number of class labels.
        network: {"kind": …} and the arguments of the network within, whose channels are twice `channels`.

    Raises:
        ValueError: the network within has other channels or classes.
    """

    def __init__(self, channels: int, classes: int, network: dict[str, Any]) -> None:
        super().__init__()
        self.network = built_within(network, 2 * channels, classes)
        within: Any = self.network.config
        self.config: dict[str, Any] = {"kind": "variance", "channels": channels, "classes": classes, "network": within}

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """x (batch, channels, height, width), time (batch,) → (batch, 2·channels, height, width)."""
        return self.network(torch.cat([x, x], 1), time, label)
