"""Training of an autoencoder: mean (x − D(z))² + kl·mean ½(μ² + e^v − 1 − v), z = μ + e^{v/2}·ξ.

    μ, v     the encoder's mean and log-variance; the second mean is over the numbers of a latent
    kl       small, so that latents stay near N(0, 1) and pictures sharp

AdamW; the rate rises over 500 steps and then falls as a cosine to 0. `trainer` takes the steps.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.errors import ArgumentError
from fewstep.networks.vae import VAE
from fewstep.training.adamw import AdamWTask
from fewstep.training.batch import answer, first_draws
from fewstep.training.config import AutoencoderConfig

JUDGED = 2048


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, e^v) ‖ N(0, 1)) of every number, in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


@dataclass(frozen=True)
class Autoencoding(AdamWTask):
    """The task of an autoencoder, see `trainer.Task`.

    Args:
        config: the run.
        images: uint8 (images, channels, height, width), the sides multiples of 4.
        labels: int64 (images,); the autoencoder is not told them.
        test: images of the same shape that are only looked at when the run is done.

    Raises:
        ArgumentError: the sides are no multiples of 4, or the test images have another shape.
    """

    config: AutoencoderConfig
    images: Tensor
    labels: Tensor
    test: Tensor | None = None

    def __post_init__(self) -> None:
        images, test = self.images, self.test
        if images.shape[2] % 4 or images.shape[3] % 4:
            raise ArgumentError(f"an autoencoder needs sides that are multiples of 4, got {tuple(images.shape[2:])}")
        if test is not None and (test.shape[1:] != images.shape[1:] or len(test) == 0):
            raise ArgumentError(f"test needs images of shape {tuple(images.shape[1:])}, got {tuple(test.shape)}")

    def loss(self, network: nn.Module, step: int, device: str) -> Tensor:
        """The squared error and a little of the divergence, on the batch of a step."""
        assert isinstance(network, VAE)
        generator, _, x = first_draws(self.config, self.images, step)
        told = answer(network.encoder, self.config.precision, device, x)
        mean, log_variance = told.chunk(2, 1)
        log_variance = log_variance.clamp(-20.0, 10.0)
        xi = torch.randn(mean.shape, generator=generator).to(device)
        made = answer(network.decoder, self.config.precision, device, mean + (0.5 * log_variance).exp() * xi)
        return (made - x.to(device)).square().mean() + self.config.kl * divergence(mean, log_variance).mean()

    def describe(self) -> dict[str, Any]:
        """Nothing beyond its shape and classes."""
        return {}

    @torch.no_grad()
    def judge(self, network: nn.Module, device: str) -> dict[str, Any]:
        """The mean squared error of D(μ(x)), of test images where there are some, else of the first that it learnt."""
        images = self.images[:JUDGED] if self.test is None else self.test
        x = [part.float() / 127.5 - 1 for part in images.split(256)]
        errors = [(network(part.to(device)).cpu() - part).square().flatten(1).mean(1) for part in x]
        error = torch.cat(errors).double()
        psnr = float((10 * (4 / error).log10()).mean())
        print(f"PSNR {psnr:.2f} dB on {len(images)} images", flush=True)
        return {"mse": float(error.mean()), "psnr": psnr, "on_test_images": self.test is not None}
