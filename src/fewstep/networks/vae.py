"""A small variational autoencoder: pictures to latents of a quarter of the sides and back (Kingma & Welling 2014).

    q(z | x) = N(μ(x), diag exp v(x)),      x̂ = D(z)

Pictures are folded in squares of 2×2 and halved once more, so that a latent is a quarter as wide and high.
"""

from typing import Any

from torch import Tensor, nn


class Residual(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))) of one width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip
        nn.init.zeros_(self.body[5].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _end(width: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1))


class VAE(nn.Module):
    """Encoder and decoder for small pictures.

    Args:
        channels: the channels of the picture, whose sides are multiples of 4.
        latent: the channels of a latent.
        width: the channels at half the sides, a multiple of 8; twice as many at a quarter.
        depth: residual blocks at each of the two sizes.
    """

    def __init__(self, channels: int, latent: int = 8, width: int = 48, depth: int = 2) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "kind": "vae", "channels": channels, "latent": latent, "width": width, "depth": depth,
        }  # fmt: skip
        fine, coarse = width, 2 * width
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, fine, 3, padding=1), *(Residual(fine) for _ in range(depth)),
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1), *(Residual(coarse) for _ in range(depth)),
            _end(coarse, 2 * latent),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(latent, coarse, 3, padding=1), *(Residual(coarse) for _ in range(depth)),
            nn.Upsample(scale_factor=2.0, mode="nearest"), nn.Conv2d(coarse, fine, 3, padding=1),
            *(Residual(fine) for _ in range(depth)), _end(fine, 4 * channels), nn.PixelShuffle(2),
        )  # fmt: skip

    def moments(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(μ, v), the mean and the log-variance of q(z | x), of pictures (batch, channels, height, width)."""
        mean, log_variance = self.encoder(pictures).chunk(2, 1)
        return mean, log_variance.clamp(-20.0, 10.0)

    def encode(self, pictures: Tensor) -> Tensor:
        """μ, (batch, latent, height/4, width/4)."""
        return self.moments(pictures)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """D(z), (batch, channels, height, width)."""
        return self.decoder(latents)

    def forward(self, pictures: Tensor) -> Tensor:
        """D(μ(x)), of the pictures' shape."""
        return self.decode(self.encode(pictures))
