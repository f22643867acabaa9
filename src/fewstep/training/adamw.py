"""What tasks that train by AdamW share: a rate that rises over 500 steps and falls as a cosine, and a running mean."""

import math
from abc import ABC
from typing import Any

import torch
from torch import nn

WARM_UP = 500


def warm_cosine(step: int, steps: int) -> float:
    """What the peak rate is multiplied by at a step: a linear rise over 500 steps times a cosine that falls to 0."""
    return min((step + 1) / WARM_UP, 1.0) * 0.5 * (1 + math.cos(math.pi * step / steps))


class AdamWTask(ABC):
    """How the weights follow the loss of a task, see `trainer.Task`; a task adds its data, its loss and its words."""

    config: Any

    @property
    def ema(self) -> float:
        """The decay of the running mean of the weights."""
        return float(self.config.ema)

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """AdamW with little decay."""
        return torch.optim.AdamW(network.parameters(), lr=self.config.rate, weight_decay=0.01, betas=(0.9, 0.99))

    def rate(self, step: int) -> float:
        """A linear rise times a cosine that falls to 0."""
        return float(self.config.rate * warm_cosine(step, self.config.images // self.config.batch))

    def ships(self, network: nn.Module) -> nn.Module:
        """The network itself."""
        return network

    def judge(self, network: nn.Module, device: str) -> dict[str, Any]:
        """Nothing beyond the loss: such a network is judged by its samples."""
        return {}
