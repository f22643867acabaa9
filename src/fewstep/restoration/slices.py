"""Volumes as stacks of pictures: a denoiser of pictures asked slice by slice, an operator on pictures applied to each.

    x̂₀(volume) = (x̂₀(slice 1), …, x̂₀(slice D)),      A(volume) = (A(slice 1), …, A(slice D))

As a prior it takes the slices for independent; what they have in common must come from the method, as in DiffusionMBIR.
"""

from typing import Any

from torch import Tensor

from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.restoration.measurement import Measurement
from fewstep.restoration.operators.base import Function, Operator


class Slices(Denoiser):
    """A denoiser of volumes (depth, *shape) that asks a denoiser of pictures about every slice.

    Args:
        inner: the denoiser of one slice; a condition that it takes is one for all slices of a volume.
        depth: how many slices a volume has, at least 1.

    Raises:
        ArgumentError: an argument of the wrong kind.
    """

    def __init__(self, inner: Denoiser, depth: int) -> None:
        if not isinstance(inner, Denoiser) or inner.latent:
            raise ArgumentError(f"inner must be a denoiser of pictures, got {inner!r}")
        if not isinstance(depth, int) or isinstance(depth, bool) or depth < 1:
            raise ArgumentError(f"depth must be an integer of at least 1, got {depth!r}")
        super().__init__(inner.path, (depth, *inner.shape), inner.predicts, inner.null, inner.limits)
        self._inner, self._depth = inner, depth

    def told(self, t: Tensor) -> Tensor:
        return self._inner.told(t)

    def raw(self, x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        """The inner denoiser's own answer at every slice."""
        if told.ndim:
            place = (len(x), self._depth, *told.shape[2:])
            told = told.expand(place).flatten(0, 1)
        each = {k: self._repeated(v, len(x)) for k, v in cond.items()}
        return self._inner.raw(x.flatten(0, 1), told, **each).reshape(x.shape)

    def _repeated(self, value: Any, rows: int) -> Any:
        whole = isinstance(value, Tensor) and value.ndim > 0 and len(value) == rows
        return value.repeat_interleave(self._depth, 0) if whole else value

    def basis(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._inner.basis(t)


class EverySlice(Operator):
    """A linear operator on pictures, applied to every slice of a volume; y is (batch, depth, …).

    Args:
        operator: with A, A_adjoint and A_dagger, ours or deepinv's.

    Raises:
        ArgumentError: an operator that is not linear.
    """

    def __init__(self, operator: Any) -> None:
        if not callable(getattr(operator, "A_adjoint", None)) or not getattr(operator, "linear", True):
            raise ArgumentError(f"operator must be linear, got {operator!r}")
        self.operator = operator
        if hasattr(operator, "spectral"):
            self.spectral = self._spectral

    def A(self, x: Tensor) -> Tensor:
        return self._each(self.operator.A, x)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self._each(self.operator.A_adjoint, y)

    def A_dagger(self, y: Tensor) -> Tensor:
        return self._each(self.operator.A_dagger, y)

    @property
    def has_dagger(self) -> bool:
        return Measurement.inverts(self.operator)

    def restrict(self, y: Tensor) -> Tensor:
        restrict = getattr(self.operator, "restrict", None)
        return y if restrict is None else self._each(restrict, y)

    def _spectral(self, function: Function, x: Tensor) -> Tensor:
        return self._each(lambda v: self.operator.spectral(function, v), x)

    @staticmethod
    def _each(apply: Function, volume: Tensor) -> Tensor:
        made = apply(volume.flatten(0, 1))
        return made.reshape(*volume.shape[:2], *made.shape[1:])
