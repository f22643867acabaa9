"""A network that is shown the degraded picture beside its state: what restoration models on a bridge are.

    net(x, time, y) = (h₁([x, y], time), …, h_n([x, y], time)) along the channels

n is 1, or 2 for a residual and a noise that are told by networks of their own.  The time is a half-log-SNR, infinite at
the ends of most bridges: beyond ±7 it is told as 7.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fewstep.networks.within import built_within

MOST = 7.0


class Beside(nn.Module):
    """net(x, time, y): a network of x's channels and y's; the first half of its answer is kept.

    Args:
        network: the network within, net([x, y], time).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, time: Tensor, y: Tensor) -> Tensor:
        """x and y (batch, channels, height, width), time (batch,) → the shape of x."""
        return self.network(torch.cat([x, y], 1), time.clamp(-MOST, MOST))[:, : x.shape[1]]


class BridgedNetwork(nn.Module):
    """net(x, time, y): the answers of one network or several beside one another.

    Args:
        channels: the channels of x.
        network: {"kind": …} and the arguments of a network within, whose channels are twice `channels`, and which has
            no classes.
        answers: how many such networks, each with its own weights, answer one beside the other.

    Raises:
        ValueError: the network within has other channels, or classes.
    """

    def __init__(self, channels: int, network: dict[str, Any], answers: int = 1) -> None:
        super().__init__()
        self.networks = nn.ModuleList(built_within(network, 2 * channels, 0) for _ in range(answers))
        within: Any = self.networks[0].config
        self.config: dict[str, Any] = {"kind": "bridged", "channels": channels, "network": within, "answers": answers}

    def parts(self) -> list[Beside]:
        """The networks one by one, each of which answers in the shape of x."""
        return [Beside(network) for network in self.networks]

    def forward(self, x: Tensor, time: Tensor, y: Tensor) -> Tensor:
        """x and y (batch, channels, height, width), time (batch,) → (batch, answers·channels, height, width)."""
        return torch.cat([part(x, time, y) for part in self.parts()], 1)
