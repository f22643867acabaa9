"""Phase space: data as a position x with a momentum m beside it, and noise that comes mostly by way of the momentum.

Phase-space Langevin diffusion (Pandey & Mandt 2023) in the clock b = ∫β dt, from b = 0, data with m ~ N(0, κM):

    dx = ½(m/M − Γx)db + √Γ dW,      dm = ½(−x − νm)db + √(Mν) dW′,      1/M = (ν − Γ)²/4,

critically damped, towards x ~ N(0, 1) and m ~ N(0, M).  Of the pair z = (x, m) at b, for every number of the data,

    z = μ(b)·x₀ + N(0, Σ(b)),      μ = e^{−(ν+Γ)b/4}·(1 + (ν − Γ)b/4, −b/2).

All that z tells of x₀ is one number, μᵀΣ⁻¹z: so the pair is worth an ordinary state α·x₀ + σ·ε of half-log-SNR

    λ = ½ log(μᵀΣ⁻¹μ),      x_seen = (σ/√(μᵀΣ⁻¹μ))·μᵀΣ⁻¹z,      z = (μ/(σ√(μᵀΣ⁻¹μ)))·x_seen + r·ξ,

with r·ξ independent of x₀ and x_seen.  An ordinary denoiser at x_seen therefore knows the score of the pair exactly:

    ∇ log p(z) = −Σ⁻¹(z − μ·x̂₀).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.paths.base import as_time

# Beyond this λ a pair tells so little of the data that the clock need not run further.
LEAST = -12.0


@dataclass(frozen=True)
class Kernel:
    """What the pair is at some b: all float64 of b's shape, and the two numbers of a vector in a last place of 2.

    Args:
        mean: μ.
        inverse: Σ⁻¹, (…, 2, 2).
        worth: √(μᵀΣ⁻¹μ) = e^λ.
        rest: r, what the seen state leaves open.
    """

    mean: Tensor
    inverse: Tensor
    worth: Tensor
    rest: Tensor

    @property
    def seen(self) -> Tensor:
        """The factors of (x, m) in x_seen/σ."""
        return (self.inverse @ self.mean[..., None])[..., 0] / self.worth[..., None]

    @property
    def frame(self) -> Tensor:
        """(x, m) from (x_seen/σ, ξ), where ξ ~ N(0, 1) is what the seen state leaves open: (…, 2, 2)."""
        return torch.stack([self.mean / self.worth[..., None], self.rest], -1)


@dataclass(frozen=True)
class PhaseSpace:
    """The diffusion of position and momentum; the defaults are those of the published CIFAR-10 model.

    Args:
        friction: Γ > 0, the noise rate of the position.
        momentum_friction: ν > Γ, that of the momentum.
        start: κ > 0, the momentum's variance at the data as a share of M.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    friction: float = 0.01
    momentum_friction: float = 4.01
    start: float = 0.04

    def __post_init__(self) -> None:
        if not 0 < self.friction < self.momentum_friction < math.inf:
            raise ArgumentError(
                f"0 < friction < momentum_friction is needed, got {self.friction!r} and {self.momentum_friction!r}"
            )
        if not 0 < self.start < math.inf:
            raise ArgumentError(f"start must be more than 0, got {self.start!r}")

    @property
    def mass(self) -> float:
        """M = 4/(ν − Γ)²."""
        return 4 / (self.momentum_friction - self.friction) ** 2

    def mean(self, b: Tensor | float) -> Tensor:
        """μ(b), (…, 2)."""
        b = as_time(b)
        apart, both = self.momentum_friction - self.friction, self.momentum_friction + self.friction
        return torch.exp(-both * b / 4)[..., None] * torch.stack([1 + apart * b / 4, -b / 2], -1)

    def covariance(self, b: Tensor | float) -> Tensor:
        """Σ(b) of z given x₀, (…, 2, 2)."""
        b = as_time(b)
        apart, rate = self.momentum_friction - self.friction, (self.momentum_friction + self.friction) / 2
        shrink, fresh, mass, start = torch.exp(-rate * b), -torch.expm1(-rate * b), self.mass, self.start * self.mass
        across = start / mass**2 / 4 - 1 / mass / 2
        xx = fresh + shrink * (across * b**2 - apart * b / 2)
        xm = shrink * ((apart / 4 - start / mass * apart / 8) * b**2 + start / mass * b / 2)
        mm = mass * fresh + shrink * ((start / mass / 4 - 0.5) * b**2 + (mass - start) * apart * b / 2 + start)
        return torch.stack([torch.stack([xx, xm], -1), torch.stack([xm, mm], -1)], -2)

    def kernel(self, b: Tensor | float) -> Kernel:
        """What the pair is at b > 0."""
        mean, inverse, told = self._told(b)
        across = torch.stack([-told[..., 1], told[..., 0]], -1)
        size = (across * (inverse @ across[..., None])[..., 0]).sum(-1).sqrt()
        return Kernel(mean, inverse, (mean * told).sum(-1).sqrt(), across / size[..., None])

    def _told(self, b: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """μ, Σ⁻¹ and Σ⁻¹μ."""
        mean, inverse = self.mean(b), torch.linalg.inv(self.covariance(b))
        return mean, inverse, (inverse @ mean[..., None])[..., 0]

    def lam(self, b: Tensor | float) -> Tensor:
        """λ(b) = ½ log(μᵀΣ⁻¹μ), which falls as b grows."""
        mean, _, told = self._told(b)
        return (mean * told).sum(-1).sqrt().log()

    def b_of_lam(self, lam: Tensor | float) -> Tensor:
        """The b > 0 at which a pair is worth a state of half-log-SNR `lam`, taken as at least −12."""
        lam = as_time(lam).clamp_min(LEAST)
        low, high = torch.full_like(lam, -80.0), torch.full_like(lam, 5.0)
        # 60 halvings of log b: to the spacing of float64.
        for _ in range(60):
            middle = (low + high) / 2
            earlier = self.lam(middle.exp()) > lam
            low, high = torch.where(earlier, middle, low), torch.where(earlier, high, middle)
        return ((low + high) / 2).exp()
