"""Training of a denoiser with its variances: the mean over a batch of w·(‖net − target‖² + bound·N·L_i).

    i      a step of the chain of N at even times, drawn evenly or as often as its losses were large
    w      1/(N·p_i), so that the mean is that of even draws whatever the draw
    L_i    the step's share of the variational bound, which teaches the second answer alone; see `variational`

What importance sampling has seen of each step is the task's memory, which a checkpoint keeps (Nichol & Dhariwal 2021).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.denoisers.learned_variance import TwoHeaded, wrap_with_variance
from fewstep.paths import from_json
from fewstep.training.adamw import AdamWTask
from fewstep.training.batch import answer, first_draws
from fewstep.training.config import HybridConfig
from fewstep.training.denoising import lam_range, told_of
from fewstep.training.variational import Chain, ImportanceTimes

BINS = 256


@dataclass(frozen=True)
class HybridDenoising(AdamWTask):
    """The task of a denoiser that learns its variances, see `trainer.Task` and `trainer.Remembering`.

    Args:
        config: the run.
        images: uint8 (images, channels, height, width).
        labels: int64 (images,), each in 0 … classes − 1.
    """

    config: HybridConfig
    images: Tensor
    labels: Tensor

    @cached_property
    def times(self) -> Tensor:
        """The times of the chain, float64 (steps + 1,), from the noisiest of `lam_range` down to 0."""
        first = float(from_json(self.config.path).t_of_lam(lam_range(self.config)[0]))
        return torch.linspace(min(first, 1.0), 0, self.config.steps + 1, dtype=torch.float64)

    @cached_property
    def importance(self) -> ImportanceTimes:
        """What is known of each step's losses; with none recorded its draw is uniform."""
        return ImportanceTimes(self.config.steps, self.config.history)

    @property
    def memory(self) -> dict[str, Tensor]:
        """The last losses of every step."""
        return self.importance.memory

    def describe(self) -> dict[str, Any]:
        """As a denoiser's."""
        return told_of(self.config)

    def denoiser(self, network: nn.Module, device: str) -> TwoHeaded:
        """The network as the denoiser that its chain is made of."""
        config, path = self.config, from_json(self.config.path)
        low, high = lam_range(config)

        def net(x: Tensor, lam: Tensor, label: Tensor) -> Tensor:
            return answer(network, config.precision, device, x, lam, label)

        return wrap_with_variance(
            net, path, config.predicts, shape=tuple(self.images.shape[1:]), time=lambda t: path.lam(t).clamp(low, high)
        )

    def loss(self, network: nn.Module, step: int, device: str) -> Tensor:
        """The hybrid loss on the batch of a step; what importance sampling then knows is recorded."""
        config = self.config
        generator, pick, x0 = first_draws(config, self.images, step)
        label = self.labels[pick].clone()
        label[torch.rand(config.batch, generator=generator) < config.dropout] = config.network["classes"]
        index, weight = self.importance.draw(config.batch, generator)
        noise = torch.randn(x0.shape, generator=generator)
        chain = Chain(self.denoiser(network, device), self.times, BINS)
        x0, noise, label = (part.to(device) for part in (x0, noise, label))
        each = chain.hybrid(x0, index, noise, config.bound, label=label)
        if config.importance:
            self.importance.record(index, each)
        return (weight.to(each) * each).mean()
