"""A denoiser around another one, the same in all but how its network is asked."""

from torch import Tensor

from fewstep.denoisers.base import Denoiser


class Around(Denoiser):
    """All of the inner denoiser but its `raw`.

    It does not show the network, so that a guide that would change the network's inside is refused instead of being
    passed by.

    Args:
        inner: the denoiser.
    """

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.path, inner.shape, inner.predicts, inner.null, inner.limits)
        self.name, self.inner = inner.name, inner

    def told(self, t: Tensor) -> Tensor:
        return self.inner.told(t)

    def basis(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner.basis(t)

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
