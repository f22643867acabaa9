"""A denoiser of p(x₀) ∝ e^{−U(x₀)} from values of U alone: no gradient, no data, no network.

With a reference N(m, C) near p, x₀ given x = α·x₀ + σ·ε would be N(μ(x), S) with S = (C⁻¹ + (α/σ)²)⁻¹ and
μ = S(C⁻¹m + (α/σ²)x).  Draws x₀ʲ from there are weighed to p,

    x̂₀ = Σ_j w_j x₀ʲ,      w_j ∝ e^{−U(x₀ʲ)} N(x; α·x₀ʲ, σ²)/q(x₀ʲ),      q the density that x₀ʲ was drawn from.

alone     each row has its own draws; with N(0, 1) for a reference this is Föllmer's drift (Huang et al. 2021)
pooled    all rows use the draws of all, q = the mean over rows i of N(μ(x_i), S): n·J values of U serve n² J weights

Draws come in pairs ±z, which makes x̂₀ exact where p is the reference.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.denoisers.base import Denoiser
from fewstep.errors import ArgumentError
from fewstep.noise import TREE, check_key, draw
from fewstep.paths import Path

# Times are told apart to this, so that every step has draws of its own.
TICKS = 2**40


@dataclass(frozen=True)
class Reference:
    """The Gaussian N(m, C) that p is thought to resemble.

    Args:
        mean: m, float64 (d,).
        covariance: C, float64 (d, d), symmetric and positive.
    """

    mean: Tensor
    covariance: Tensor

    def __post_init__(self) -> None:
        if self.covariance.shape != (len(self.mean), len(self.mean)):
            raise ArgumentError(
                f"a mean {tuple(self.mean.shape)} needs a covariance of its size, got {tuple(self.covariance.shape)}"
            )
        if not bool((torch.linalg.eigvalsh(self.covariance) > 0).all()):
            raise ArgumentError("the covariance of a reference must be positive")


@dataclass(frozen=True)
class Weighed:
    """Draws and what they weigh.

    Args:
        draws: float64 (rows, J, d), or (1, rows·J, d) where they are pooled.
        logs: log w up to a constant of each row, (rows, J or rows·J).
        target: log of the weight with which each pooled draw stands for p itself, (rows·J,); None where rows are alone.
    """

    draws: Tensor
    logs: Tensor
    target: Tensor | None


class EnergyDenoiser(Denoiser):
    """x̂₀ of p ∝ e^{−U} by weighed draws.

    Args:
        energy: U; (batch, *shape) float64 → (batch,).
        path: any path.
        shape: the shape of one sample.
        draws: J, how many values of U an answer costs a row; even, at least 2.
        reference: what p is thought to resemble; N(0, 1) unless given.
        pooled: whether rows share their draws, and so depend on one another.
        seed: of the draws; they are functions of it and the time.
        limits: the range of the data.

    Raises:
        ArgumentError: a number out of its range, or a reference of another size.
    """

    def __init__(
        self,
        energy: Callable[[Tensor], Tensor],
        path: Path,
        shape: tuple[int, ...],
        draws: int = 64,
        reference: Reference | None = None,
        pooled: bool = False,
        seed: int = 0,
        limits: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        super().__init__(path, shape, "x0", limits=limits)
        check_key(seed, [])
        if draws < 2 or draws % 2:
            raise ArgumentError(f"draws must be an even number of at least 2, got {draws!r}")
        size = math.prod(self.shape)
        if reference is None:
            one = torch.ones(size, dtype=torch.float64)
            reference = Reference(0 * one, torch.diag(one))
        if len(reference.mean) != size:
            raise ArgumentError(f"the reference has {len(reference.mean)} numbers, a sample has {size}")
        self.energy, self.draws, self.reference, self.pooled, self.seed = energy, draws, reference, pooled, seed

    def raw(self, x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        """x̂₀ at one time for all rows."""
        if cond:
            raise ArgumentError(f"an energy takes no conditions, got {sorted(cond)}")
        weighed = self.weigh(x, told)
        share = weighed.logs.softmax(1)
        x0 = share @ weighed.draws[0] if self.pooled else (share[..., None] * weighed.draws).sum(1)
        return x0.reshape(x.shape).to(x.dtype)

    def weigh(self, x: Tensor, told: Tensor) -> Weighed:
        """The draws for states x at one time, and their weights.

        Raises:
            ArgumentError: more than one time, or states of another shape.
        """
        if x.shape[1:] != self.shape:
            raise ArgumentError(f"an energy's denoiser takes states of shape {self.shape}, got {tuple(x.shape[1:])}")
        if told.numel() != 1:
            raise ArgumentError(f"an energy's denoiser takes one time for all rows, got {tuple(told.shape)}")
        t = told.detach().double().cpu().reshape(())
        alpha, sigma = self.path.alpha(t).to(x.device), self.path.sigma(t).to(x.device)
        flat, rows = x.double().flatten(1), len(x)
        c, v = torch.linalg.eigh(self.reference.covariance.to(x.device))
        mean = self.reference.mean.to(x.device)
        below = sigma**2 + alpha**2 * c
        centre = (sigma**2 * (mean @ v) + alpha * c * (flat @ v)) / below
        width = (c * sigma**2 / below).sqrt()
        samples = range(rows) if self.pooled else [0]
        z = draw(self.seed, samples, (self.draws // 2, flat.shape[1]), int(t * TICKS), TREE)[:, 0].double().to(x.device)
        z = torch.cat([z, -z], 1)
        inner = centre[:, None] + width * z  # in the eigenvectors of C
        drawn = inner @ v.mT
        energy = self.energy(drawn.reshape(-1, *self.shape)).double().reshape(rows, self.draws)
        scaled = inner / width
        if not self.pooled:
            off = -0.5 * ((flat[:, None] - alpha * drawn) / sigma).square().sum(-1)
            return Weighed(drawn, off - energy + 0.5 * z.square().sum(-1), None)
        pool, every = drawn.reshape(1, -1, drawn.shape[-1]), scaled.reshape(-1, scaled.shape[-1])
        mixed = (-0.5 * _squares(centre / width, every)).logsumexp(0)  # log q up to what is the same for all draws
        target = -energy.flatten() - mixed
        off = -0.5 * _squares(flat / sigma, alpha / sigma * pool[0])
        return Weighed(pool, off + target, target)


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (len(a), len(b))."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()
