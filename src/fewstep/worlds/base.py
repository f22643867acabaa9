"""A distribution whose denoiser, score, density and posterior are exact, on any path.

A world speaks of x₀ in its own float64 coordinates; of x_t = α(t)·x₀ + σ(t)·ε it says

    x̂₀ = E[x₀ | x_t],      ∇ log p_t(x) = (α·x̂₀ − x)/σ²,      log p_t(x).
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.paths import Path


class World(ABC):
    """A distribution of x₀ with exact answers.

    Args:
        shape: the shape of one sample.
        labels: how many classes a condition `label` may name; 0 for none.
    """

    shape: tuple[int, ...]
    labels: int

    @abstractmethod
    def sample(self, n: int, seed: int = 0, label: Tensor | int | None = None) -> Tensor:
        """n samples of x₀, float64 (n, *shape)."""

    @abstractmethod
    def denoise(self, x: Tensor, path: Path, t: Tensor | float, label: Tensor | int | None = None) -> Tensor:
        """x̂₀ = E[x₀ | x_t = x], of x's shape and dtype; t broadcasts against x."""

    @abstractmethod
    def log_density(self, x: Tensor, path: Path, t: Tensor | float, label: Tensor | int | None = None) -> Tensor:
        """log p_t(x), float64 (batch,); t = 0 gives the density of the data, where it has one."""

    @abstractmethod
    def posterior(self, matrix: Tensor, y: Tensor, noise: Tensor | float) -> "World":
        """The world of x₀ given y = matrix·x₀ + noise·n, n ~ N(0, 1).

        Args:
            matrix: (measurements, d), acting on x₀ flattened.
            y: (measurements,).
            noise: standard deviation of each measurement, more than 0.
        """

    def score(self, x: Tensor, path: Path, t: Tensor | float, label: Tensor | int | None = None) -> Tensor:
        """∇ log p_t(x) for σ(t) > 0, of x's shape and dtype."""
        t = torch.as_tensor(t, dtype=torch.float64, device=x.device)
        sigma = path.sigma(t)
        if bool((sigma == 0).any()):
            raise ArgumentError(f"the score divides by σ(t), which is 0 at t = {t.min().item()}")
        score = (path.alpha(t) * self.denoise(x.double(), path, t, label) - x) / sigma**2
        return score.to(x.dtype)

    def denoiser(self, path: Path, predicts: str = "x0", limits: tuple[float, float] = (-1.0, 1.0)) -> "WorldDenoiser":
        """The world as a denoiser of ours on `path`, as if a network had learnt it without error."""
        return WorldDenoiser(self, path, predicts, limits)


class WorldDenoiser(Denoiser):
    """The exact denoiser of a world; with classes it takes a condition `label`, whose null is their number."""

    def __init__(self, world: World, path: Path, predicts: str, limits: tuple[float, float]) -> None:
        null = {"label": world.labels} if world.labels else None
        super().__init__(path, world.shape, predicts, null=null, limits=limits)
        self.world = world

    def raw(self, x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        """What a perfect network would answer, in the prediction that this denoiser has."""
        unknown = set(cond) - set(self.null)
        if unknown:
            raise ArgumentError(f"this world takes the conditions {sorted(self.null)}, got {sorted(unknown)}")
        x0 = self.world.denoise(x, self.path, told, cond.get("label"))
        if self.predicts == "x0":
            return x0
        a, c = (value.to(x.dtype) for value in self.basis(told))
        return (x0 - a * x) / c
