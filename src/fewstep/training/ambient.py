"""Training of a denoiser from masked data alone: E‖a·(h(m·x_t, m, λ, label) − x₀)‖², averaged over what a shows.

    a     the mask through which a picture was seen, one for each picture and for ever
    m     a with a share more hidden, drawn at every step, so that h must guess numbers which it was not shown

What a hides is in no loss: it is set to 0 before the first step.  The best h is E[x₀ | m·x_t, m] (Daras et al. 2023).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.errors import ArgumentError
from fewstep.paths import from_json
from fewstep.training.adamw import AdamWTask
from fewstep.training.batch import answer, first_draws
from fewstep.training.config import TrainingConfig
from fewstep.training.denoising import draws, told_of

# Generators of the masks, beside those of the steps.
MASKS, MORE = 2**32 - 1, 2**31


def masks(config: TrainingConfig, images: Tensor) -> Tensor:
    """Which places of each picture are seen, as truth values (images, 1, height, width)."""
    generator = torch.Generator().manual_seed(config.seed * 2**32 + MASKS)
    return torch.rand(len(images), 1, *images.shape[2:], generator=generator) >= config.hidden


@dataclass(frozen=True)
class AmbientDenoising(AdamWTask):
    """The task of a masked denoiser, see `trainer.Task`.

    Args:
        config: the run.
        images: uint8 (images, channels, height, width), 0 where they were not seen.
        labels: int64 (images,).
        seen: `masks` of the images.

    Raises:
        ArgumentError: the config asks for what cannot be learnt from masked data.
    """

    config: TrainingConfig
    images: Tensor
    labels: Tensor
    seen: Tensor

    def __post_init__(self) -> None:
        config = self.config
        if config.predicts != "x0" or config.flip or not (0 < config.hidden < 1 and 0 < config.further < 1):
            raise ArgumentError(
                "a masked network predicts x0 from pictures that are not mirrored, with hidden and further in (0, 1); "
                f"got predicts={config.predicts!r}, flip={config.flip}, hidden={config.hidden}, "
                f"further={config.further}"
            )

    def describe(self) -> dict[str, Any]:
        """As a denoiser's."""
        return told_of(self.config)

    def loss(self, network: nn.Module, step: int, device: str) -> Tensor:
        """The squared error at what was seen, on the batch of a step."""
        config = self.config
        x0, label, lam, noise = draws(config, self.images, self.labels, step)
        seen = self.seen[first_draws(config, self.images, step)[1]]
        generator = torch.Generator().manual_seed(config.seed * 2**32 + MORE + step)
        shown = (seen & (torch.rand(seen.shape, generator=generator) >= config.further)).float()
        path = from_json(config.path)
        t = path.t_of_lam(lam)[:, None, None, None]
        x = (path.alpha(t) * x0 + path.sigma(t) * noise).float() * shown
        off = answer(network, config.precision, device, x, lam.float(), label, shown) - x0.to(device)
        weight = seen.float().to(device)
        return (off.square() * weight).sum() / (weight.sum() * x0.shape[1])


def masked(config: TrainingConfig, images: Tensor, labels: Tensor) -> AmbientDenoising:
    """The task on pictures of which `config.hidden` is hidden for good: it is 0 before the first step.

    Args:
        config: the run, with a network of kind "masked" that predicts "x0".
        images, labels: as `AmbientDenoising` takes them, but whole.
    """
    seen = masks(config, images)
    return AmbientDenoising(config, images * seen, labels, seen)
