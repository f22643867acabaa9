"""Control of the log-density: samples that end with the log-density that was asked for, and noise that keeps it.

Along dx/dλ = u + (div u + b)/‖s‖²·s, with u the probability flow and s the score, d log p_t(x_t)/dλ = b exactly.  So

    x̂₀′ = x̂₀ − (σ/α)·(div u + b)·ε̂/‖ε̂‖²,      b(λ) = dℓ/dλ + (L − ℓ(Λ) − log p(x_first) + ℓ(λ_first))/(Λ − λ_first)

leads log p to L at λ = Λ, by the way of a Gaussian's typical value ℓ(λ) = −½Σ log(2πe·(α²c + σ²)) and a straight line.
b = −div u + √(2D)·Φ⁻¹(q) would be `DensityGuidance`.  Noise orthogonal to the score, paid for by

    x ← x + φ√(2Δλ)·σ·Pz − φ²Δλ·σ²·tr(P·∇²log p)·s/‖s‖²,      P = 1 − ssᵀ/‖s‖²,

keeps d log p_t by Itô's rule, and so makes the guided flow an equation with noise.  The traces are those of the
denoiser's Jacobian, by one random vector: tr J ≈ vᵀJv with v = ±1.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, Guide, coefficient, squares
from fewstep.paths import Path

# Draws 0 … 63 are a guide's own; these are for the traces and for the noise.
PROBES, NOISE = 40, 39


@dataclass(frozen=True)
class _Slopes:
    """α and σ, and what they change by a unit of λ, at a time."""

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor


def _slopes(path: Path, t: Tensor) -> _Slopes:
    alpha, sigma, a, s = path.alpha(t), path.sigma(t), path.d_alpha(t), path.d_sigma(t)
    # dλ/dt = α′/α − σ′/σ.
    rate = a / alpha - s / sigma
    return _Slopes(alpha, sigma, a / rate, s / rate)


def _along(ask: Ask, x0: Tensor, v: Tensor) -> Tensor:
    """vᵀJv of each sample, (batch,), with J = ∂x̂₀/∂x."""
    (pulled,) = torch.autograd.grad(x0, ask.x, v, retain_graph=True, create_graph=ask.differentiated)
    return (pulled * v).flatten(1).sum(1)


def _trace(ask: Ask, x0: Tensor, probes: int) -> Tensor:
    """tr J of each sample, (batch,), the mean of `probes` estimates."""
    return torch.stack([_along(ask, x0, _signs(ask, k)) for k in range(probes)]).mean(0)


def _signs(ask: Ask, k: int) -> Tensor:
    return torch.where(ask.noise(PROBES + k) < 0, -1.0, 1.0).to(ask.x.dtype)


def _rows(value: Tensor) -> Tensor:
    """A number a sample, or one for all, as (batch or 1,)."""
    if value.ndim and value.numel() != len(value):
        raise ArgumentError(f"the log-density is of one time a sample, got times of shape {tuple(value.shape)}")
    return value.reshape(-1)


def _told(value: Tensor, like: Tensor) -> float | Tensor:
    """A coefficient of the host, (batch or 1,), as it multiplies numbers of samples that stand where `like` does."""
    return float(value) if value.numel() == 1 else value.to(like.device, like.dtype)


def _scaled(numbers: float | Tensor, like: Tensor) -> Tensor:
    return (numbers if isinstance(numbers, float) else numbers.reshape(-1, *[1] * (like.ndim - 1))) * like


@method(
    name="density-control",
    papers=["Devil is in the Details: Density Guidance for Detail-Aware Generation with Flow Models"],
    family="guidance",
    arxiv="2502.05807",
)
@dataclass(frozen=True)
class DensityControl(Guide):
    """Exact control of the log-density (Karczewski et al. 2025): it ends at the value that was asked for.

    A step costs one evaluation and `probes` gradients through it.  The flow must be followed closely: many steps.

    Args:
        target: L = log p at λ = `until`, in nats, of the state x there; None leaves the answer as it is.
        until: Λ, the half-log-SNR at which it is met, and from which on nothing is changed.
        variance: c, what the data is thought to vary by: a number, or of the shape of a sample; the closer it is, the
            less the flow is pushed.  The first state is taken for a draw of N(0, α²c + σ²).
        probes: random vectors a trace, 1 … 24.

    Raises:
        ArgumentError: numbers out of their ranges; at the run, a start at or after `until`.
    """

    level: ClassVar[str] = "answer"
    needs_grad: ClassVar[bool] = True
    target: float | None = None
    until: float = 3.0
    variance: float | Tensor = 1.0
    probes: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.probes <= 24 or not bool((torch.as_tensor(self.variance) > 0).all()):
            raise ArgumentError(f"probes must be 1 … 24 and variance more than 0, got {self.probes}, {self.variance}")

    def init(self, denoiser: Denoiser, batch: int) -> Any:
        """The line to the target, once the first question has drawn it."""
        try:
            self._spectrum().expand(denoiser.shape)
        except RuntimeError:
            got = tuple(self._spectrum().shape)
            raise ArgumentError(f"variance must be a number or of shape {denoiser.shape}, got {got}") from None
        return ()

    def needs_order(self) -> bool:
        return self.target is not None

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        lam = _rows(ask.path.lam(ask.t))
        if self.target is None or bool((lam >= self.until).all()) or not bool(lam.isfinite().all()):
            return x0, state
        state = state or (self._line(ask, lam),)
        at = _slopes(ask.path, ask.t)
        rate = _told(_typical_rate(self._spectrum(), at, x0.shape[1:]), x0) + state[0]
        alpha, sigma, d_alpha, d_sigma = (_rows(v) for v in (at.alpha, at.sigma, at.d_alpha, at.d_sigma))
        trace, size = _trace(ask, x0, self.probes), math.prod(x0.shape[1:])
        divergence = _told(d_alpha - d_sigma * alpha / sigma, x0) * trace + _told(size * d_sigma / sigma, x0)
        rest = ask.x - coefficient(at.alpha, x0) * x0
        square = squares(rest).flatten().clamp_min(torch.finfo(x0.dtype).tiny)
        strength = _told(torch.where(lam < self.until, sigma.square() / alpha, 0.0), x0)
        return x0 - _scaled(strength * (divergence + rate) / square, rest), state

    def _spectrum(self) -> Tensor:
        return torch.as_tensor(self.variance, dtype=torch.float64)

    def _line(self, ask: Ask, lam: Tensor) -> Tensor:
        """What must be gained a unit of λ beyond the typical, of each sample: known at the first state."""
        assert self.target is not None
        if bool((lam >= self.until).any()):
            raise ArgumentError(f"the run must begin below until = {self.until}, got λ = {lam.max().item():.3g}")
        spectrum, path = self._spectrum().expand(ask.x.shape[1:]).flatten(), ask.path
        width = _rows(path.alpha(ask.t))[:, None] ** 2 * spectrum + _rows(path.sigma(ask.t))[:, None] ** 2
        # log p(x) less the typical value: only the exponents differ.
        first = ask.x if ask.differentiated else ask.x.detach()
        ahead = 0.5 * (1 - first.flatten(1).square() / width.to(ask.x)).sum(1)
        t = path.t_of_lam(self.until)
        end = -0.5 * (2 * math.pi * math.e * (path.alpha(t) ** 2 * spectrum + path.sigma(t) ** 2)).log().sum()
        return (float(self.target - end) - ahead) / _told(self.until - lam, ask.x)


def _typical_rate(spectrum: Tensor, at: _Slopes, shape: torch.Size) -> Tensor:
    """dℓ/dλ, (batch or 1,)."""
    spectrum = spectrum.expand(shape).flatten()
    alpha, sigma, d_alpha, d_sigma = (_rows(v)[:, None] for v in (at.alpha, at.sigma, at.d_alpha, at.d_sigma))
    return -((alpha * d_alpha * spectrum + sigma * d_sigma) / (alpha**2 * spectrum + sigma**2)).sum(1)


@method(
    name="density-noise",
    papers=["Devil is in the Details: Density Guidance for Detail-Aware Generation with Flow Models"],
    family="guidance",
    arxiv="2502.05807",
)
@dataclass(frozen=True)
class DensityNoise(Guide):
    """The stochastic form of density guidance (Karczewski et al. 2025): noise along the level sets of the density.

    Put it after `DensityGuidance` or `DensityControl`, with a solver that asks once a step (ddim; heun is refused), in
    many steps.  A step costs one evaluation and `probes` + 1 gradients through it.

    Args:
        amount: φ, the share of the noise of the full reverse equation; the authors' 0.2 early and 0.3 late; 0 leaves
            the answer as it is.
        window: (low, high) in λ; only steps that begin within have noise.  Early noise changes shapes, late textures.
        probes: random vectors a trace, 1 … 23.

    Raises:
        ArgumentError: numbers out of their ranges; with a plan, one that asks several times a step.
    """

    level: ClassVar[str] = "answer"
    needs_grad: ClassVar[bool] = True
    keeps: ClassVar[str] = "eps"
    amount: float = 0.2
    window: tuple[float, float] = (-5.0, -2.0)
    probes: int = 1

    def __post_init__(self) -> None:
        if self.amount < 0 or not 1 <= self.probes <= 23 or self.window[0] > self.window[1]:
            raise ArgumentError(
                f"amount must be at least 0, window rise and probes be 1 … 23, got {self.amount}, {self.window}, "
                f"{self.probes}"
            )

    def needs_order(self) -> bool:
        return self.amount != 0

    def needs_one_question(self) -> bool:
        return self.amount != 0

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        lam, after = _rows(ask.path.lam(ask.t)), _rows(ask.path.lam(ask.t_next))
        low, high = self.window
        noisy = (lam >= low) & (lam <= high) & lam.isfinite() & after.isfinite()
        if self.amount == 0 or not bool(noisy.any()):
            return x0, state
        alpha, sigma = _rows(ask.path.alpha(ask.t)), _rows(ask.path.sigma(ask.t))
        time = torch.where(noisy, self.amount**2 * (after - lam), 0.0)
        eps = (ask.x - coefficient(ask.path.alpha(ask.t), x0) * x0) / coefficient(ask.path.sigma(ask.t), x0)
        eps = eps if ask.differentiated else eps.detach()
        unit = eps / eps.flatten(1).norm(dim=1).reshape(-1, *[1] * (x0.ndim - 1)).clamp_min(1e-12)
        z = ask.noise(NOISE).to(x0)
        across = z - _scaled((z * unit).flatten(1).sum(1), unit)
        size = math.prod(x0.shape[1:])
        kept = _trace(ask, x0, self.probes) - _along(ask, x0, unit)
        kept = kept if ask.differentiated else kept.detach()
        # σ²·tr(P·∇²log p) = α·tr(PJ) − (D − 1), and s/‖s‖² is −σ·ε̂/‖ε̂‖².
        bent = _told(alpha, x0) * kept - (size - 1)
        length = eps.flatten(1).norm(dim=1).clamp_min(1e-12)
        back = _scaled(_told(time * sigma, x0) * bent / length, unit)
        moved = _scaled(_told((2 * time).sqrt() * sigma, x0), across) + back
        # Answers that keep ε̂ move x′ by α′·(x̂₀′ − x̂₀).
        return x0 + _scaled(_told(1 / _rows(ask.path.alpha(ask.t_next)), x0), moved), state
