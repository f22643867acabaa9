"""A denoiser of latents: its state is z = E(x) of a picture x, and pictures are D(z)."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fewstep.denoisers.base import Denoiser
from fewstep.errors import ArgumentError

Codec = Callable[[Tensor], Tensor]


class Latent(Denoiser):
    """A denoiser with the autoencoder that its states belong to.

    Args:
        inner: the denoiser of latents.
        encode: E, pictures (batch, *picture_shape) → latents (batch, *inner.shape), differentiable.
        decode: D, the other way.
        picture_shape: the shape of one picture.

    Raises:
        ArgumentError: an argument of the wrong kind.
    """

    def __init__(self, inner: Denoiser, encode: Codec, decode: Codec, picture_shape: tuple[int, ...]) -> None:
        if not isinstance(inner, Denoiser) or inner.latent:
            raise ArgumentError(f"inner must be a denoiser without an autoencoder of its own, got {inner!r}")
        if not callable(encode) or not callable(decode):
            raise ArgumentError("encode and decode must be functions of a tensor")
        super().__init__(inner.path, inner.shape, inner.predicts, inner.null, inner.limits)
        self.net = getattr(inner, "net", None)
        self._inner, self._encode, self._decode, self._pictures = inner, encode, decode, tuple(picture_shape)

    @property
    def picture_shape(self) -> tuple[int, ...]:
        return self._pictures

    @property
    def latent(self) -> bool:
        return True

    def encode(self, pictures: Tensor) -> Tensor:
        return self._encode(pictures)

    def decode(self, state: Tensor) -> Tensor:
        return self._decode(state)

    def told(self, t: Tensor) -> Tensor:
        return self._inner.told(t)

    def raw(self, x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        return self._inner.raw(x, told, **cond)

    def basis(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._inner.basis(t)
