"""Training of a denoiser: E‖net(α·x₀ + σ·ε, λ, label) − target‖².

    target      what the network predicts: x₀, ε, v or flow, as a combination of x and x₀
    λ           the half-log-SNR, normal in 9 cases of 10, else uniform over the path's own range
    label       0 … classes − 1, or `classes`, the null label, for a share of the batch

AdamW; the rate rises over 500 steps and then falls as a cosine to 0. `trainer` takes the steps.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.paths import change_of_basis, from_json
from fewstep.training.adamw import AdamWTask
from fewstep.training.batch import answer, first_draws
from fewstep.training.config import TrainingConfig


def lam_range(config: TrainingConfig) -> tuple[float, float]:
    """The half-log-SNRs that are trained on: those of the path, within ±7."""
    return max(float(from_json(config.path).lam(1.0)), -7.0), 7.0


def told_of(config: TrainingConfig) -> dict[str, Any]:
    """Path, prediction and what the network is told of time and class, as a model file says it."""
    return {
        "path": config.path, "predicts": config.predicts, "time": "lambda", "time_range": list(lam_range(config)),
        "null_label": config.network["classes"],
    }  # fmt: skip


def draws(config: TrainingConfig, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(pictures in [−1, 1], labels, half-log-SNRs, noise) of one step."""
    generator, pick, x0 = first_draws(config, images, step)
    label = labels[pick].clone()
    label[torch.rand(config.batch, generator=generator) < config.dropout] = config.network["classes"]
    low, high = lam_range(config)
    lam = config.lam_mean + config.lam_std * torch.randn(config.batch, generator=generator, dtype=torch.float64)
    anywhere = low + (high - low) * torch.rand(config.batch, generator=generator, dtype=torch.float64)
    lam = torch.where(torch.rand(config.batch, generator=generator) < 0.1, anywhere, lam).clamp(low, high)
    return x0, label, lam, torch.randn(x0.shape, generator=generator)


def loss(
    config: TrainingConfig, network: nn.Module, images: Tensor, labels: Tensor, step: int, device: str = "cpu"
) -> Tensor:
    """The mean squared error of the network's prediction on the batch of one step."""
    x0, label, lam, noise = draws(config, images, labels, step)
    path = from_json(config.path)
    t = path.t_of_lam(lam)[:, None, None, None]
    x = (path.alpha(t) * x0 + path.sigma(t) * noise).float()
    on_x, on_x0 = change_of_basis(path, t, "x0", config.predicts)
    target = (on_x * x + on_x0 * x0).float().to(device)
    return (answer(network, config.precision, device, x, lam.float(), label) - target).square().mean()


@dataclass(frozen=True)
class Denoising(AdamWTask):
    """The task of a denoiser, see `trainer.Task`.

    Args:
        config: the run.
        images: uint8 (images, channels, height, width).
        labels: int64 (images,), each in 0 … classes − 1.
    """

    config: TrainingConfig
    images: Tensor
    labels: Tensor

    def loss(self, network: nn.Module, step: int, device: str) -> Tensor:
        """The mean squared error on the batch of a step."""
        return loss(self.config, network, self.images, self.labels, step, device)

    def describe(self) -> dict[str, Any]:
        """Path, prediction and what the network is told of time and class."""
        return told_of(self.config)
