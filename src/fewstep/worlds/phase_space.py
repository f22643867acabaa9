"""A mixture of Gaussians in phase space: the law of position and momentum at every b is exact.

With independent numbers in each component, x₀ ~ Σ w_k N(μ_k, diag(v_k)) and z = μ(b)·x₀ + N(0, Σ(b)) for each number,

    p_b(z) = Σ_k w_k ∏_j N(z_j; μ(b)·μ_kj, S_kj),      S_kj = v_kj·μμᵀ + Σ,
    ∇ log p_b(z) = −Σ_k p(k | z)·S_k⁻¹(z − μ·μ_k).

Written without the seen state of `paths.phase_space`, so that each checks the other.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.paths.phase_space import PhaseSpace
from fewstep.worlds.mixture import GaussianMixture


@dataclass(frozen=True)
class PhaseSpaceWorld:
    """A mixture as data of a phase-space diffusion.

    Args:
        mixture: the law of x₀, without a basis (independent numbers within a component).
        space: the diffusion.

    Raises:
        ArgumentError: the mixture's covariances have a basis.
    """

    mixture: GaussianMixture
    space: PhaseSpace = field(default_factory=PhaseSpace)

    def __post_init__(self) -> None:
        if self.mixture.basis.shape[-1]:
            raise ArgumentError("a phase-space world needs a mixture without a basis: independent numbers")

    def sample(self, n: int, b: float, seed: int = 0) -> Tensor:
        """n pairs z at b, float64 (n, 2, *shape): positions first."""
        x0 = self.mixture.sample(n, seed)
        generator = torch.Generator().manual_seed(seed + 1)
        noise = torch.randn(n, *self.mixture.shape, 2, dtype=torch.float64, generator=generator)
        z = x0[..., None] * self.space.mean(b) + noise @ torch.linalg.cholesky(self.space.covariance(b)).mT
        return z.movedim(-1, 1)

    def log_density(self, z: Tensor, b: float) -> Tensor:
        """log p_b(z), float64 (batch,), of pairs (batch, 2, *shape) at b > 0."""
        return self._parts(z, b)[0].logsumexp(-1)

    def score(self, z: Tensor, b: float) -> Tensor:
        """∇ log p_b(z), of z's shape."""
        logs, pulls = self._parts(z, b)
        score = -(logs.softmax(-1)[:, :, None, None] * pulls).sum(1)
        return score.movedim(-1, 1).reshape(z.shape)

    def _parts(self, z: Tensor, b: float) -> tuple[Tensor, Tensor]:
        """(log w_k p(z | k), S_k⁻¹(z − μ·μ_k)): (batch, K) and (batch, K, d, 2)."""
        means = self.mixture.means
        pairs = z.double().reshape(len(z), 2, -1).movedim(1, -1)[:, None]
        mean, covariance = self.space.mean(b), self.space.covariance(b)
        wide = self.mixture.variance.expand(means.shape)[..., None, None] * mean[:, None] * mean + covariance
        off = pairs - means[..., None] * mean
        pulls = (torch.linalg.inv(wide) @ off[..., None])[..., 0]
        squares = (off * pulls).sum((-1, -2))
        volume = torch.logdet(2 * math.pi * wide).sum(-1)
        return self.mixture.weights.log() - 0.5 * (squares + volume), pulls
