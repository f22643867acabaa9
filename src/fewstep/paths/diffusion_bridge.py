"""Diffusion bridges: a diffusion (α, σ) that is known to arrive at y at t = 1 (Zhou et al. 2024).

With ρ = σ/α and u = ρ²/ρ_1², the state given x₀ and the arrival at y is

    x_t = α(1 − u)·x₀ + (α/α_1)u·y + σ√(1 − u)·ε,

so that b = 1 and a = c = 0 at t = 1: the path is pinned to y, and its noise first rises and then falls.  Without y it
has the half-log-SNR

    e^{2λ} = e^{2λ_base(t)} − e^{2λ_base(1)}.

No step that scales the noise at hand leaves t = 1, as there is none: see `fewstep.solvers.bridge_boot`.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.paths.base import Path, as_time
from fewstep.paths.bridge import Bridge
from fewstep.paths.ve import VE
from fewstep.paths.vp import VP


class DiffusionBridge(Bridge, ABC):
    """The bridge of a base path whose noise at t = 1 is finite and whose data is not gone there."""

    @property
    @abstractmethod
    def base(self) -> Path:
        """The path of the diffusion that is pinned."""

    def _gap(self, t: Tensor | float) -> Tensor:
        """log u/2 = λ_base(1) − λ_base(t) ≤ 0; 0 at t = 1 whatever the rounding."""
        t = as_time(t)
        gap = (self.base.lam(1.0).to(t.device) - self.base.lam(t)).clamp(max=0)
        return torch.where(t == 1, torch.zeros_like(gap), gap)

    def _left(self, t: Tensor | float) -> Tensor:
        """1 − u, exact near both ends."""
        # 0.0 makes the zero at t = 1 positive, so that slopes there have their sign.
        return 0.0 - torch.expm1(2 * self._gap(t))

    def alpha(self, t: Tensor | float) -> Tensor:
        return self.base.alpha(t) * self._left(t)

    def shift(self, t: Tensor | float) -> Tensor:
        return self.base.alpha(t) / self.base.alpha(1.0) * torch.exp(2 * self._gap(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        return self.base.sigma(t) * self._left(t).sqrt()

    def lam(self, t: Tensor | float) -> Tensor:
        return self.base.lam(t) + 0.5 * self._left(t).log()

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        return self.base.t_of_lam(0.5 * torch.logaddexp(2 * as_time(lam), 2 * self.base.lam(1.0))).clamp(max=1.0)

    def _d_share(self, t: Tensor | float) -> Tensor:
        """u′ = (g/α)²/ρ_1²."""
        rate = self.base.diffusion(t) / self.base.alpha(t)
        return rate**2 * torch.exp(2 * self.base.lam(1.0))

    def d_alpha(self, t: Tensor | float) -> Tensor:
        return self.base.d_alpha(t) * self._left(t) - self.base.alpha(t) * self._d_share(t)

    def d_shift(self, t: Tensor | float) -> Tensor:
        share = torch.exp(2 * self._gap(t))
        rise = self.base.d_alpha(t) * share + self.base.alpha(t) * self._d_share(t)
        return rise / self.base.alpha(1.0)

    def d_sigma(self, t: Tensor | float) -> Tensor:
        left = self._left(t).sqrt()
        return self.base.d_sigma(t) * left - self.base.sigma(t) * self._d_share(t) / (2 * left)

    def model_time(self, t: Tensor | float) -> Tensor:
        """The base path's own."""
        return self.base.model_time(t)


@dataclass(frozen=True)
class VPBridge(DiffusionBridge):
    """The bridge of the variance-preserving diffusion with linear β, `VP(beta_min, beta_max)`.

    Args:
        beta_min: β₀ > 0, the noise rate at t = 0.
        beta_max: β₁ ≥ β₀, the noise rate at t = 1; little, as y stands for the noise.
    """

    kind: ClassVar[str] = "vp-bridge"
    beta_min: float = 0.1
    beta_max: float = 2.1

    def __post_init__(self) -> None:
        VP(self.beta_min, self.beta_max)

    @property
    def base(self) -> VP:
        return VP(self.beta_min, self.beta_max)


@dataclass(frozen=True)
class VEBridge(DiffusionBridge):
    """The Brownian bridge, of the variance-exploding diffusion `VE(sigma_max)`: a = 1 − u, b = u = t².

    Args:
        sigma_max: the noise at t = 1 that the diffusion would have, in units of the data.
    """

    kind: ClassVar[str] = "ve-bridge"
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_max < math.inf:
            raise ArgumentError(f"VEBridge needs 0 < sigma_max, got {self.sigma_max}")

    @property
    def base(self) -> VE:
        return VE(self.sigma_max)
