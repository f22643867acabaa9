"""What every path gives: how data becomes noise, x_t = α(t)·x₀ + σ(t)·ε, with t = 0 data and t = 1 noise.

From α and σ follow the half-log-SNR λ = log(α/σ), which falls as t grows, and the forward equation
dx = f(t) x dt + g(t) dW with

    f = α′/α,      g² = 2σ(σ′ − f·σ).

Everything is float64 and elementwise on tensors of any shape.  A path is a frozen dataclass: its fields are its
parameters, it compares by value and it saves as JSON.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor


def as_time(t: Tensor | float) -> Tensor:
    """The time as a float64 tensor; a tensor keeps its shape, its device and its gradient."""
    return torch.as_tensor(t, dtype=torch.float64)


class Path(ABC):
    """How data becomes noise: x_t = α(t)·x₀ + σ(t)·ε for t in [0, 1]."""

    kind: ClassVar[str]

    @abstractmethod
    def alpha(self, t: Tensor | float) -> Tensor:
        """α(t), the factor of the data; 1 at t = 0."""

    @abstractmethod
    def sigma(self, t: Tensor | float) -> Tensor:
        """σ(t), the factor of the noise; 0 at t = 0."""

    @abstractmethod
    def lam(self, t: Tensor | float) -> Tensor:
        """λ(t) = log(α/σ), the half-log-SNR: +∞ at t = 0 and falling; −∞ where α = 0."""

    @abstractmethod
    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        """The time at which the half-log-SNR is `lam`: the inverse of `lam(t)`."""

    @abstractmethod
    def d_alpha(self, t: Tensor | float) -> Tensor:
        """α′(t) = dα/dt."""

    @abstractmethod
    def d_sigma(self, t: Tensor | float) -> Tensor:
        """σ′(t) = dσ/dt; infinite at t = 0 where σ grows like √t."""

    def drift(self, t: Tensor | float) -> Tensor:
        """f(t) = α′/α, the linear drift of the forward equation."""
        return self.d_alpha(t) / self.alpha(t)

    def diffusion(self, t: Tensor | float) -> Tensor:
        """g(t) = √(2σ(σ′ − f·σ)), the noise rate of the forward equation."""
        sigma = self.sigma(t)
        return (2 * sigma * (self.d_sigma(t) - self.drift(t) * sigma)).sqrt()

    def model_time(self, t: Tensor | float) -> Tensor:
        """The time as a network trained on this path is used to being told it; t itself unless the path says."""
        return as_time(t)

    def to_json(self) -> dict[str, Any]:
        """The path as plain data; `fewstep.paths.from_json` makes it again."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]
