"""A network that is shown part of its state, and told which part."""

from typing import Any

import torch
from torch import Tensor, nn

from fewstep.networks.within import built_within


class MaskedNetwork(nn.Module):
    """net(x, time, label, mask): a network of one channel more, which is the mask; its answer has x's channels.

    Args:
        channels: the channels of x.
        classes: the number of class labels.
        network: {"kind": …} and the arguments of the network within, whose channels are `channels` + 1.

    Raises:
        ValueError: the network within has other channels or classes.
    """

    def __init__(self, channels: int, classes: int, network: dict[str, Any]) -> None:
        super().__init__()
        self.network = built_within(network, channels + 1, classes)
        within: Any = self.network.config
        self.config: dict[str, Any] = {"kind": "masked", "channels": channels, "classes": classes, "network": within}

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """x (batch, channels, height, width), 0 where mask is; mask broadcasts against x → the shape of x."""
        seen = torch.ones_like(x[:, :1]) if mask is None else mask[:, :1].to(x)
        return self.network(torch.cat([x, seen], 1), time, label)[:, : x.shape[1]]
