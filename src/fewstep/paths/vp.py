"""Variance-preserving paths, α² + σ² = 1.

Continuous, with β(t) = β₀ + (β₁ − β₀)t (Song et al. 2021, "Score-Based Generative Modeling through SDEs"):

    log α(t) = −¼(β₁ − β₀)t² − ½β₀t,      f = −β/2,      g² = β.

Discrete, for a network trained on N steps with β_1 … β_N: α at t = k/N is ∏_{j≤k} √(1 − β_j), so that t = 0 is clean
data and t = (i + 1)/N is the index i which the network was told; between these times log α is linear in t.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.checking import checked
from fewstep.errors import ArgumentError, unknown
from fewstep.paths.base import Path, as_time


def _sigma(log_alpha: Tensor) -> Tensor:
    return (-torch.expm1(2 * log_alpha)).sqrt()


def _log_alpha(lam: Tensor | float) -> Tensor:
    """log α where the half-log-SNR is `lam`: −½ log(1 + e^{−2λ})."""
    lam = as_time(lam)
    return -0.5 * torch.logaddexp(torch.zeros_like(lam), -2 * lam)


class VariancePreserving(Path):
    """A path that is known by log α, its σ = √(1 − α²)."""

    @abstractmethod
    def log_alpha(self, t: Tensor | float) -> Tensor:
        """log α(t)."""

    def alpha(self, t: Tensor | float) -> Tensor:
        return self.log_alpha(t).exp()

    def sigma(self, t: Tensor | float) -> Tensor:
        return _sigma(self.log_alpha(t))

    def lam(self, t: Tensor | float) -> Tensor:
        log_alpha = self.log_alpha(t)
        return log_alpha - _sigma(log_alpha).log()


@checked
@dataclass(frozen=True)
class VP(VariancePreserving):
    """The variance-preserving path with linear β: log α = −¼(β₁ − β₀)t² − ½β₀t.

    Args:
        beta_min: β₀ > 0, the noise rate at t = 0.
        beta_max: β₁ ≥ β₀, the noise rate at t = 1.
    """

    kind: ClassVar[str] = "vp"
    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max < math.inf:
            raise ArgumentError(f"VP needs 0 < beta_min <= beta_max, got {self.beta_min} and {self.beta_max}")

    @staticmethod
    def from_betas(betas: str | Sequence[float] | Tensor, steps: int | None = None) -> "DiscreteVP":
        """The path of a network trained on N discrete noise levels.

        Args:
            betas: the N rates β in (0, 1) or one of "linear" (1e-4 … 0.02), "scaled_linear" (Stable Diffusion:
                √β from √0.00085 to √0.012) and "cosine" (Nichol & Dhariwal 2021, β ≤ 0.999).
            steps: N of a named schedule, 1000 unless given; "linear" is scaled by 1000/N.

        Raises:
            ArgumentError: an unknown name, a rate outside (0, 1), or `steps` that contradicts the list.
        """
        if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool)):
            raise ArgumentError(f"steps must be a whole number, got {steps!r}")
        if isinstance(betas, str):
            values = _named_betas(betas, 1000 if steps is None else steps)
        else:
            try:
                values = torch.as_tensor(betas, dtype=torch.float64).flatten()
            except (TypeError, ValueError, RuntimeError) as error:
                raise ArgumentError(f"betas must be a name or a list of rates, got {betas!r}") from error
            if steps is not None and steps != len(values):
                raise ArgumentError(f"steps={steps} contradicts the {len(values)} betas given; leave steps out")
        return DiscreteVP(tuple(values.tolist()))

    def log_alpha(self, t: Tensor | float) -> Tensor:
        """log α(t)."""
        t = as_time(t)
        return -0.25 * (self.beta_max - self.beta_min) * t**2 - 0.5 * self.beta_min * t

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        a, b, c = 0.25 * (self.beta_max - self.beta_min), 0.5 * self.beta_min, -_log_alpha(lam)
        return 2 * c / (b + (b * b + 4 * a * c).sqrt())

    def beta(self, t: Tensor | float) -> Tensor:
        """β(t) = β₀ + (β₁ − β₀)t."""
        return self.beta_min + (self.beta_max - self.beta_min) * as_time(t)

    def d_alpha(self, t: Tensor | float) -> Tensor:
        return -0.5 * self.beta(t) * self.alpha(t)

    def d_sigma(self, t: Tensor | float) -> Tensor:
        return 0.5 * self.beta(t) * self.alpha(t) ** 2 / self.sigma(t)

    def drift(self, t: Tensor | float) -> Tensor:
        return -0.5 * self.beta(t)

    def diffusion(self, t: Tensor | float) -> Tensor:
        return self.beta(t).sqrt()


@checked
@dataclass(frozen=True)
class DiscreteVP(VariancePreserving):
    """The variance-preserving path through N discrete noise levels; made by `VP.from_betas`.

    Args:
        betas: the N rates, each in (0, 1); t = (i + 1)/N is the index i in 0 … N − 1.
    """

    kind: ClassVar[str] = "vp-discrete"
    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.betas or not all(0 < b < 1 for b in self.betas):
            raise ArgumentError("betas must be a non-empty list of rates strictly between 0 and 1")

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Of a thousand numbers, so reckoned once."""
        return hash(self.betas)

    @cached_property
    def _table(self) -> Tensor:
        """log α at t = 0, 1/N … 1."""
        steps = torch.log1p(-torch.tensor(self.betas, dtype=torch.float64)).cumsum(0)
        return torch.cat([torch.zeros(1, dtype=torch.float64), 0.5 * steps])

    def _segment(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The left node of the segment that holds t, and the slope of log α there."""
        table, n = self._table.to(t.device), len(self.betas)
        left = (t.detach() * n).floor().long().clamp(0, n - 1)
        return left, (table[left + 1] - table[left]) * n

    def log_alpha(self, t: Tensor | float) -> Tensor:
        """log α(t), linear between the nodes."""
        t = as_time(t)
        left, slope = self._segment(t)
        return self._table.to(t.device)[left] + slope * (t - left.double() / len(self.betas))

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        falls, n = -_log_alpha(lam), len(self.betas)
        table = -self._table.to(falls.device)
        left = (torch.searchsorted(table, falls.detach().contiguous(), right=True) - 1).clamp(0, n - 1)
        return (left + (falls - table[left]) / (table[left + 1] - table[left])) / n

    def d_alpha(self, t: Tensor | float) -> Tensor:
        return self.drift(t) * self.alpha(t)

    def d_sigma(self, t: Tensor | float) -> Tensor:
        return -self.drift(t) * self.alpha(t) ** 2 / self.sigma(t)

    def drift(self, t: Tensor | float) -> Tensor:
        return self._segment(as_time(t))[1]

    def diffusion(self, t: Tensor | float) -> Tensor:
        return (-2 * self.drift(t)).sqrt()

    def model_time(self, t: Tensor | float) -> Tensor:
        """The index t·N − 1 that the network was trained with, as a real number."""
        return as_time(t) * len(self.betas) - 1

    def t_of_index(self, index: Tensor | float) -> Tensor:
        """The time (i + 1)/N of the network's index i; the inverse of `model_time`."""
        return (as_time(index) + 1) / len(self.betas)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "betas": list(self.betas)}


def _named_betas(name: str, n: int) -> Tensor:
    if n < 1:
        raise ArgumentError(f"steps must be at least 1, got {n}")
    if name == "linear":
        return torch.linspace(0.1 / n, 20.0 / n, n, dtype=torch.float64)
    if name == "scaled_linear":
        return torch.linspace(0.00085**0.5, 0.012**0.5, n, dtype=torch.float64) ** 2
    if name == "cosine":
        t = torch.arange(n + 1, dtype=torch.float64) / n
        bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
    raise unknown("beta schedule", name, ["linear", "scaled_linear", "cosine"])
