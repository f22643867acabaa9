"""Measuring a picture through the decoder of a latent model: z ↦ A(D(z)), which is not linear even where A is.

With it every restorer that takes any operator restores with a latent model: DPS becomes latent DPS, DAPS latent DAPS.
"""

from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from fewstep.denoisers import Denoiser
from fewstep.restoration.measurement import Measurement
from fewstep.restoration.operators.base import Operator


class Decoded(Operator):
    """A∘D of a latent model.

    Args:
        operator: A, on pictures.
        denoiser: whose `decode` D is, and whose `encode` E.
    """

    linear: ClassVar[bool] = False
    why_not_linear: ClassVar[str] = (
        ": through the decoder of a latent model none is; dps, daps, red-diff, psld and resample take any"
    )

    def __init__(self, operator: Any, denoiser: Denoiser) -> None:
        self.operator, self.denoiser = operator, denoiser

    def A(self, x: Tensor) -> Tensor:
        """A(D(z)) of latents."""
        return self.operator.A(self.denoiser.decode(x))

    def A_dagger(self, y: Tensor) -> Tensor:
        """E(A† y)."""
        return self.denoiser.encode(self.operator.A_dagger(y))

    @property
    def has_dagger(self) -> bool:
        return Measurement.inverts(self.operator)

    def restrict(self, y: Tensor) -> Tensor:
        restrict = getattr(self.operator, "restrict", None)
        return y if restrict is None else restrict(y)


def decoded(measurement: Measurement, denoiser: Denoiser) -> Measurement:
    """A measurement of pictures as a measurement of a model's states; itself where those are pictures."""
    if not denoiser.latent:
        return measurement
    return replace(measurement, operator=Decoded(measurement.operator, denoiser), _decomposed=[])


def of_pictures(measurement: Measurement) -> tuple[Measurement, Any, Any]:
    """(the measurement of pictures, E, D) behind one of states; E and D change nothing where states are pictures."""
    operator = measurement.operator
    if not isinstance(operator, Decoded):
        return measurement, _same, _same
    inner = replace(measurement, operator=operator.operator, _decomposed=[])
    return inner, operator.denoiser.encode, operator.denoiser.decode


def _same(x: Tensor) -> Tensor:
    return x
