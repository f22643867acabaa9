"""A network that answers twice: what it predicts, and how much noise a step back should draw."""

from typing import Any

import torch
from torch import Tensor, nn


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
        from fewstep.networks import build

        super().__init__()
        self.network = build(network)
        within: Any = self.network.config
        if within.get("channels") != 2 * channels or within.get("classes") != classes:
            raise ValueError(f"the network within needs {2 * channels} channels and {classes} classes, got {within}")
        self.config: dict[str, Any] = {"kind": "variance", "channels": channels, "classes": classes, "network": within}

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """x (batch, channels, height, width), time (batch,) → (batch, 2·channels, height, width)."""
        return self.network(torch.cat([x, x], 1), time, label)
