"""A network that lives on the latents of an autoencoder, and that autoencoder, as one.

    z = (μ(x) − shift)·scale,      x = D(z/scale + shift)

shift and scale, one number a channel of the latent, give the latents of the training data mean 0 and variance 1.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fewstep.networks.vae import VAE


class LatentNetwork(nn.Module):
    """net(z, time, label) with the autoencoder that z belongs to.

    Args:
        network: the network, {"kind": …} and its arguments; or one that is built.
        autoencoder: the arguments of a VAE; or one that is built.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module | dict[str, Any], autoencoder: VAE | dict[str, Any]) -> None:
        from fewstep.networks import build

        super().__init__()
        self.network = network if isinstance(network, nn.Module) else build(network)
        built = autoencoder if isinstance(autoencoder, VAE) else build(autoencoder)
        if not isinstance(built, VAE):
            raise TypeError(f"autoencoder must be of kind 'vae', got {type(built).__name__}")
        self.autoencoder = built
        self.config: dict[str, Any] = {
            "kind": "latent", "network": self.network.config, "autoencoder": self.autoencoder.config,
        }  # fmt: skip
        latent = self.autoencoder.config["latent"]
        self.register_buffer("shift", torch.zeros(latent))
        self.register_buffer("scale", torch.ones(latent))

    def forward(self, z: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """z (batch, latent, height, width), time (batch,), label (batch,) int64 or None → the shape of z."""
        return self.network(z, time, label)

    def encode(self, pictures: Tensor) -> Tensor:
        """The latents of pictures (batch, channels, height, width)."""
        return (self.autoencoder.encode(pictures) - self._place(self.shift)) * self._place(self.scale)

    def decode(self, latents: Tensor) -> Tensor:
        """The pictures of latents (batch, latent, height, width)."""
        return self.autoencoder.decode(latents / self._place(self.scale) + self._place(self.shift))

    def _place(self, values: Tensor) -> Tensor:
        return values[:, None, None]
