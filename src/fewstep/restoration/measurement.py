"""A measurement: y = A(x) + noise, which a restorer must agree with, and the linear algebra that restorers share.

    pull(r, s²) = Aᵀ(s² A Aᵀ + σ_y² I)⁻¹ r

is the one solve of them all: with r = y − A x̂₀ and x₀ taken as N(x̂₀, s² I), it is the likelihood's score with
respect to x̂₀, and s²·pull the step to the posterior mean.  σ_y = 0 gives A†r/s².  It is made from singular values
where the operator has them, by a dense decomposition for small samples, else by conjugate gradients on (s² AᵀA + σ_y²
I) z = Aᵀ r.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.restoration.measurement_noise import NOISELESS, Gaussian, Noise
from fewstep.restoration.operators.base import Function, inverse_square
from fewstep.restoration.operators.conjugate_gradients import solve_by_cg
from fewstep.restoration.operators.matrix import DENSE, Matrix, dense_matrix

MISMATCH = 1e-3


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was measured, how, and with what noise.

    Args:
        operator: anything with A(x), and for linear operators A_adjoint(y) and A_dagger(y): ours, or deepinv's physics.
        y: (rows, …), what was measured, one row a picture; what the operator never measures is set to 0.
        noise: Gaussian(σ_y), Poisson(rate), or None.

    Raises:
        ArgumentError: no operator, a y that is not real and finite or that does not fit the operator, or a noise that
            is none of ours.
    """

    operator: Any
    y: Tensor = field(repr=False)
    noise: Noise | None = None
    _decomposed: list[Matrix] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if not callable(getattr(self.operator, "A", None)):
            raise ArgumentError(f"operator must have A(x), as Mask or deepinv's physics do; got {self.operator!r}")
        if not isinstance(self.y, Tensor) or not self.y.is_floating_point() or self.y.ndim < 2 or len(self.y) == 0:
            got = tuple(self.y.shape) if isinstance(self.y, Tensor) else type(self.y).__name__
            raise ArgumentError(f"y must be a real tensor (rows, …), one row a picture; got {got}")
        if self.noise is None:
            object.__setattr__(self, "noise", NOISELESS)
        if not isinstance(self.noise, Noise):
            raise ArgumentError(f"noise must be Gaussian(sigma), Poisson(rate) or None, got {self.noise!r}")
        restrict = getattr(self.operator, "restrict", None)
        try:
            seen = self.y if restrict is None else restrict(self.y)
        except RuntimeError as error:
            raise ArgumentError(f"y of shape {tuple(self.y.shape)} is none that the operator makes: {error}") from error
        if not bool(seen.isfinite().all()):
            raise ArgumentError(
                f"y must be finite where it was measured; {int((~seen.isfinite()).sum())} values are not"
            )
        object.__setattr__(self, "y", seen)

    @staticmethod
    def simulate(operator: Any, x: Tensor, noise: Noise | None = None, seed: int = 0) -> "Measurement":
        """The measurement of known data x, (rows, *shape); the noise is drawn with `seed`.

        Raises:
            ArgumentError: x is no tensor, noise none of ours, or what `Measurement` refuses.
        """
        noise = NOISELESS if noise is None else noise
        if not isinstance(noise, Noise):
            raise ArgumentError(f"noise must be Gaussian(sigma), Poisson(rate) or None, got {noise!r}")
        if not callable(getattr(operator, "A", None)):
            raise ArgumentError(f"operator must have A(x), as Mask or deepinv's physics do; got {operator!r}")
        if not isinstance(x, Tensor):
            raise ArgumentError(f"x must be a tensor (rows, *shape), got {type(x).__name__}")
        return Measurement(operator, noise.add(operator.A(x), torch.Generator().manual_seed(seed)), noise)

    @property
    def linear(self) -> bool:
        """Whether the operator has an adjoint."""
        said = getattr(self.operator, "linear", None)
        return callable(getattr(self.operator, "A_adjoint", None)) if said is None else bool(said)

    @property
    def sigma(self) -> float:
        """σ_y of Gaussian noise, 0 for none.

        Raises:
            ArgumentError: the noise is not Gaussian.
        """
        if not isinstance(self.noise, Gaussian):
            raise ArgumentError(f"this method needs Gaussian noise or none, got {self.noise!r}")
        return self.noise.sigma

    def seen(self, like: Tensor) -> Tensor:
        """y with the dtype and device of a state."""
        return self.y.to(like.device, like.dtype)

    def residual(self, x0: Tensor) -> Tensor:
        """y − A(x₀), (batch, …)."""
        return self.seen(x0) - self.operator.A(x0)

    def repeated(self, times: int) -> "Measurement":
        """The measurement with each row `times` times in a row."""
        return replace(self, y=self.y.repeat_interleave(times, 0))

    def check(self, shape: Sequence[int], limits: tuple[float, float] = (-1.0, 1.0)) -> None:
        """Refuse what does not fit a model, and warn of what can hardly be meant.

        Args:
            shape: the shape of one sample.
            limits: the range of the data.

        Raises:
            ArgumentError: A(x) has another shape than y, or the adjoint another shape than x.
        """
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, *shape, generator=generator).to(self.y)
        try:
            made = self.operator.A(x)
        except RuntimeError as error:
            raise ArgumentError(f"the operator does not take samples of {tuple(shape)}: {error}") from error
        if made.shape[1:] != self.y.shape[1:]:
            raise ArgumentError(
                f"the operator makes {tuple(made.shape[1:])} of a sample of {tuple(shape)}, but y is "
                f"{tuple(self.y.shape[1:])} a row"
            )
        if self.linear:
            self._check_adjoint(x, made, torch.randn(made.shape, generator=generator).to(self.y))
        reach = (limits[1] - limits[0]) / 2
        if isinstance(self.noise, Gaussian) and self.noise.sigma > reach:
            warnings.warn(
                f"the noise, sigma={self.noise.sigma}, is larger than the data, which lie within ±{reach} of their "
                "middle; sigma is in the units of x",
                stacklevel=3,
            )

    def _check_adjoint(self, x: Tensor, made: Tensor, y: Tensor) -> None:
        back = self.operator.A_adjoint(y)
        if back.shape != x.shape:
            raise ArgumentError(f"the operator's adjoint makes {tuple(back.shape)} where x is {tuple(x.shape)}")
        one, other = float((made * y).sum()), float((x * back).sum())
        mismatch = abs(one - other) / max(float(made.norm() * y.norm()), 1e-30)
        if mismatch > MISMATCH:
            warnings.warn(
                f"the operator's A_adjoint is not the adjoint of its A: <A x, y> = {one:.5g} but <x, A_adjoint y> = "
                f"{other:.5g}, apart by {mismatch:.1%} of |A x||y|",
                stacklevel=4,
            )

    def need_linear(self, who: str) -> None:
        """Refuse an operator without an adjoint.

        Raises:
            ArgumentError: naming the method that needs one.
        """
        if not self.linear:
            why = getattr(self.operator, "why_not_linear", "")
            raise ArgumentError(f"{who} needs a linear operator, got {type(self.operator).__name__}{why}")

    def project(self, difference: Tensor) -> Tensor:
        """A† of a residual, of x's shape."""
        return self.operator.A_dagger(difference)

    def matrix(self, shape: Sequence[int]) -> Tensor:
        """The operator as a dense matrix (measurements, d), float64, without rows that measure nothing."""
        dense = dense_matrix(self.operator, shape)
        return dense[dense.abs().amax(1) > 0]

    def has_spectrum(self, shape: Sequence[int]) -> bool:
        """Whether functions of the operator's singular values can be applied to samples of that shape."""
        known = hasattr(self.operator, "spectral") or hasattr(self.operator, "V_adjoint")
        return self.linear and (known or math.prod(self._alike(shape)) <= DENSE)

    def _alike(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of what is measured by itself: one channel where all are measured alike, else the whole sample."""
        return (1, *shape[1:]) if getattr(self.operator, "by_channel", False) else tuple(shape)

    def spectral(self, function: Function, x: Tensor) -> Tensor:
        """V diag(f(d)) Vᵀ x, (batch, *shape), for f from singular values to factors.

        Raises:
            ArgumentError: the operator has no singular vectors at hand and the sample is too large to find them.
        """
        operator = self.operator
        if hasattr(operator, "spectral"):
            return operator.spectral(function, x)
        if hasattr(operator, "V_adjoint"):  # deepinv's decomposable physics
            mask = operator.mask if isinstance(operator.mask, Tensor) else torch.as_tensor(operator.mask)
            return operator.V(function(mask.abs().to(x)) * operator.V_adjoint(x))
        shape = self._alike(x.shape[1:])
        if not self._decomposed:
            self._decomposed.append(Matrix(dense_matrix(operator, shape), shape))
        return self._decomposed[0].spectral(function, x.reshape(-1, *shape)).reshape(x.shape)

    def pull(self, residual: Tensor, spread: float, sigma: float | None = None) -> Tensor:
        """Aᵀ(spread·A Aᵀ + σ_y² I)⁻¹ residual, of x's shape.

        Args:
            residual: (batch, …) as y.
            spread: s² ≥ 0, the variance that x₀ is given; more than 0 where σ_y = 0.
            sigma: σ_y; the measurement's own unless given.
        """
        variance = (self.sigma if sigma is None else sigma) ** 2
        if variance == 0:
            return self.project(residual) / spread
        pulled = self.operator.A_adjoint(residual)
        if self.has_spectrum(pulled.shape[1:]):
            return self.spectral(lambda d: 1 / (spread * d.square() + variance), pulled)
        return solve_by_cg(
            lambda z: spread * self.operator.A_adjoint(self.operator.A(z)) + variance * z, pulled, pulled / variance
        )

    def misfit_gradient(self, x: Tensor) -> Tensor:
        """∇ ½‖A(x) − y‖², of x's shape."""
        if self.linear:
            return -self.operator.A_adjoint(self.residual(x))
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            loss = 0.5 * self.residual(at).square().sum()
        return torch.autograd.grad(loss, at)[0]

    def first_guess(self, drawn: Tensor) -> Tensor:
        """Where a search for x₀ may begin: A†y where the operator has it, else a draw of x's shape."""
        return self.project(self.seen(drawn)).expand_as(drawn) if self.inverts(self.operator) else drawn

    @staticmethod
    def inverts(operator: Any) -> bool:
        """Whether an operator has a pseudo-inverse A†."""
        said = getattr(operator, "has_dagger", None)
        return callable(getattr(operator, "A_dagger", None)) if said is None else bool(said)

    def prox_step(self, residual: Tensor, spread: float) -> Tensor:
        """spread·pull(residual, spread), for σ_y = 0 and spread = ∞ too, where it is A† of the residual."""
        if self.sigma == 0 or spread == float("inf"):
            return self.project(residual)
        return spread * self.pull(residual, spread)


def observed_share(measurement: Measurement, x: Tensor) -> Tensor:
    """P x = A†A x, the part of x that is measured."""
    if hasattr(measurement.operator, "spectral"):
        return measurement.spectral(lambda d: d.square() * inverse_square(d), x)
    return measurement.project(measurement.operator.A(x))
