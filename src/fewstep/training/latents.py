"""Training of a denoiser of latents: the pictures are encoded once, then it is `denoising` on their codes.

    z = (μ(x) − shift)·scale

shift and scale come from the mean and the deviation of each channel of μ over the training data.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.errors import ArgumentError
from fewstep.networks import weights
from fewstep.networks.latent import LatentNetwork
from fewstep.networks.vae import VAE
from fewstep.training.config import TrainingConfig
from fewstep.training.denoising import Denoising

CHUNK = 500


@torch.no_grad()
def codes(autoencoder: VAE, images: Tensor, device: str = "cpu") -> Tensor:
    """μ of uint8 pictures (images, channels, height, width), as float16: (images, latent, height/4, width/4)."""
    autoencoder = autoencoder.to(device)
    parts = (part.to(device).float() / 127.5 - 1 for part in images.split(CHUNK))
    return torch.cat([autoencoder.encode(part).half().cpu() for part in parts])


def moments(z: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, 1/deviation) of each channel of codes, (latent,), as float16 keeps them."""
    flat = z.double().transpose(0, 1).flatten(1)
    return flat.mean(1).half().float(), (1 / flat.std(1)).half().float()


@dataclass(frozen=True)
class LatentDenoising(Denoising):
    """The task of a denoiser of latents, see `trainer.Task`; what ships is it and its autoencoder.

    Args:
        config, labels: as a denoiser's.
        images: the codes less `shift` and times `scale`, float16.
        autoencoder: what made them.
        shift, scale: (latent,).
        picture: the shape of what was encoded, (channels, height, width).
    """

    autoencoder: VAE
    shift: Tensor
    scale: Tensor
    picture: tuple[int, ...]

    def describe(self) -> dict[str, Any]:
        """As a denoiser's, and the shape of a picture."""
        return {**super().describe(), "picture": list(self.picture)}

    def ships(self, network: nn.Module) -> nn.Module:
        """The network and its autoencoder as one."""
        both = LatentNetwork(network, self.autoencoder.cpu())
        both.shift.copy_(self.shift)
        both.scale.copy_(self.scale)
        return both


def latent(config: TrainingConfig, images: Tensor, labels: Tensor, device: str = "cpu") -> LatentDenoising:
    """The task on the latents of `config.autoencoder`, which are made here.

    Args:
        config: the run; `flip` encodes the mirrored pictures too.
        images: uint8 (images, channels, height, width).
        labels: int64 (images,), each in 0 … classes − 1.
        device: where they are encoded.

    Raises:
        ArgumentError: the file is no autoencoder, or the pictures do not fit it.
        WeightsError: the autoencoder cannot be read.
    """
    autoencoder, _ = weights.read(config.autoencoder)
    if not isinstance(autoencoder, VAE):
        raise ArgumentError(f"autoencoder must be the file of a VAE, {config.autoencoder} holds another network")
    if images.shape[1] != autoencoder.config["channels"] or images.shape[2] % 4 or images.shape[3] % 4:
        raise ArgumentError(
            f"the autoencoder takes pictures of {autoencoder.config['channels']} channels with sides that are "
            f"multiples of 4, the data has {tuple(images.shape[1:])}"
        )
    z = codes(autoencoder, torch.cat([images, images.flip(-1)]) if config.flip else images, device)
    shift, scale = moments(z)
    for part in z.split(CHUNK):
        part.copy_((part.float() - shift[:, None, None]) * scale[:, None, None])
    twice = torch.cat([labels, labels]) if config.flip else labels
    return LatentDenoising(replace(config, flip=False), z, twice, autoencoder, shift, scale, tuple(images.shape[1:]))
