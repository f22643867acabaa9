"""Training of a denoiser of latents: the pictures are encoded once, then it is the training of `loop` on their codes.

    z = (μ(x) − shift)·scale

shift and scale come from the mean and the deviation of each channel of μ over the training data.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.networks import weights
from fewstep.networks.latent import LatentNetwork
from fewstep.networks.vae import VAE
from fewstep.training.config import TrainingConfig
from fewstep.training.loop import Denoising
from fewstep.training.trainer import Trainer

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


def train_latent(
    config: TrainingConfig,
    images: Tensor,
    labels: Tensor,
    out: str | Path,
    classes: list[str],
    every: int = 200,
    device: str = "cpu",
) -> Path:
    """Train a denoiser of the latents of `config.autoencoder`, and write both as one model.

    Args:
        config: the run; `flip` encodes the mirrored pictures too.
        images, labels, out, classes, every, device: as `train` takes them.

    Raises:
        ArgumentError: the file is no autoencoder, or the data does not fit it or the network.
        WeightsError: the autoencoder or the checkpoint cannot be read.
        NumericalError: the loss is not finite.
        KeyboardInterrupt: the process was asked to stop; the checkpoint is written.
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
    task = Denoising(replace(config, flip=False), z, torch.cat([labels, labels]) if config.flip else labels)
    file = Trainer(task, Path(out), classes, device).run(every)
    network, told = weights.read(file)
    both = LatentNetwork(network, autoencoder.cpu())
    both.shift.copy_(shift)
    both.scale.copy_(scale)
    for known in ("format", "version", "network"):
        told.pop(known)
    weights.write(file, both, {**told, "picture": list(images.shape[1:])})
    return file
