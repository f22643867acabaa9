"""A denoiser whose network runs as `torch.compile` makes it.

The network is compiled where it is first asked, once a denoiser and shape; all steps and all later runs use it.  Our
own part of a step is a fused combination a register and gains nothing.
"""

from typing import Any

import torch
from torch import Tensor

from fewstep.denoisers.base import Denoiser


class Compiled(Denoiser):
    """The same denoiser, its network compiled; made by `compiled`.

    It does not show its network, so that a guide that would change the network's inside is refused instead of being
    compiled away.
    """

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.path, inner.shape, inner.predicts, inner.null, inner.limits)
        self.name, self.inner = inner.name, inner
        self._raw = torch.compile(inner.raw)

    def told(self, t: Tensor) -> Tensor:
        return self.inner.told(t)

    def basis(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner.basis(t)

    def raw(self, x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        return self._raw(x, told, **cond)

    def encode(self, pictures: Tensor) -> Tensor:
        return self.inner.encode(pictures)

    def decode(self, state: Tensor) -> Tensor:
        return self.inner.decode(state)

    @property
    def latent(self) -> bool:
        return self.inner.latent

    @property
    def picture_shape(self) -> tuple[int, ...]:
        return self.inner.picture_shape


def compiled(denoiser: Denoiser) -> Denoiser:
    """The denoiser with its network compiled; the same object for the same denoiser."""
    if isinstance(denoiser, Compiled):
        return denoiser
    kept = denoiser.__dict__.get("_compiled")
    if kept is None:
        kept = denoiser.__dict__["_compiled"] = Compiled(denoiser)
    return kept
