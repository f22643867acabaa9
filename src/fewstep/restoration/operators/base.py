"""What every degradation gives: A, its adjoint and its pseudo-inverse, by the names that deepinv's physics have.

    y = A(x),      ⟨A x, y⟩ = ⟨x, Aᵀ y⟩,      A† y = the shortest x with the least ‖A x − y‖.

An operator whose singular vectors are at hand (AᵀA = V diag(d²) Vᵀ) also applies functions of its singular values,

    spectral(f, x) = V diag(f(d)) Vᵀ x,      d = 0 on the null space,

from which A†, proximal maps and the noise rules of whole methods follow.  x is (batch, *shape), y (batch, …), both
real.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.restoration.operators.conjugate_gradients import solve_by_cg

Function = Callable[[Tensor], Tensor]

# Singular values below this share of the largest count as 0.
NEGLIGIBLE = 1e-6


def inverse_square(d: Tensor) -> Tensor:
    """1/d² where d is not negligible, else 0."""
    kept = d > NEGLIGIBLE * d.amax()
    return torch.where(kept, 1 / torch.where(kept, d, 1.0).square(), 0.0)


class Operator(ABC):
    """A degradation y = A(x).

    `by_channel` says that every channel of a picture is measured by itself and like the others, so that the singular
    values of one are those of all.
    """

    linear: ClassVar[bool] = True
    by_channel: ClassVar[bool] = False

    @abstractmethod
    def A(self, x: Tensor) -> Tensor:
        """What is measured of x, (batch, …)."""

    def A_adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y, of x's shape; a linear operator has one."""
        raise ArgumentError(f"{type(self).__name__} is not linear, so it has no adjoint")

    def A_dagger(self, y: Tensor) -> Tensor:
        """A† y, of x's shape; by conjugate gradients unless the operator knows better."""
        pulled = self.A_adjoint(y)
        return solve_by_cg(lambda x: self.A_adjoint(self.A(x)), pulled, torch.zeros_like(pulled))

    @property
    def has_dagger(self) -> bool:
        """Whether there is an A†."""
        return self.linear or type(self).A_dagger is not Operator.A_dagger

    def beside(
        self, key: Any, like: Tensor, dtype: torch.dtype | None = None, make: Callable[[], Tensor] | None = None
    ) -> Tensor:
        """A tensor of the operator's on the device of `like` and in its dtype, kept: no step makes or moves it again.

        Args:
            key: the tensor's name, or what tells what is made from others.
            like: what it goes with.
            dtype: another dtype than that of `like`.
            make: makes it on the host; else it is the attribute `key`.
        """
        kept: dict[Any, Tensor] = self.__dict__.setdefault("_beside", {})
        at = (key, like.device, like.dtype if dtype is None else dtype)
        if at not in kept:
            kept[at] = (getattr(self, key) if make is None else make()).to(like.device, at[2])
        return kept[at]

    def restrict(self, y: Tensor) -> Tensor:
        """y without what the operator never measures, such as the hidden pixels of a picture."""
        return y


class SpectralOperator(Operator):
    """A linear operator whose singular vectors are at hand."""

    @abstractmethod
    def spectral(self, function: Function, x: Tensor) -> Tensor:
        """V diag(f(d)) Vᵀ x.

        Args:
            function: f, from singular values d ≥ 0 (any shape) to factors of the same shape.
            x: (batch, *shape).
        """

    def A_dagger(self, y: Tensor) -> Tensor:
        return self.spectral(inverse_square, self.A_adjoint(y))


class RowOrthogonalOperator(SpectralOperator):
    """A linear operator with A Aᵀ = scale²·I on what it measures, so that AᵀA/scale² is a projection.

    `scale` is its one singular value beside 0.
    """

    scale: float

    def spectral(self, function: Function, x: Tensor) -> Tensor:
        none, full = function(torch.tensor([0.0, self.scale], dtype=x.dtype, device=x.device))
        seen = self.A_adjoint(self.A(x)) / self.scale**2
        return none * (x - seen) + full * seen

    def A_dagger(self, y: Tensor) -> Tensor:
        return self.A_adjoint(y) / self.scale**2


class ConvolutionOperator(SpectralOperator):
    """A linear operator on pictures (batch, channels, height, width) with AᵀA diagonal in the Fourier basis."""

    @abstractmethod
    def gains(self, height: int, width: int, like: Tensor) -> Tensor:
        """The singular values at every frequency, real (height, width), symmetric where pictures are real."""

    def spectral(self, function: Function, x: Tensor) -> Tensor:
        factor = function(self.gains(x.shape[-2], x.shape[-1], x))
        return torch.fft.ifft2(factor * torch.fft.fft2(x)).real
