"""The exact target and the exact soft value of a linear reward r = aᵀx on a mixture of Gaussians.

    p*(x₀) ∝ p(x₀)·e^{κ·aᵀx₀}:   weights ∝ w_k·e^{κaᵀμ_k + ½κ²aᵀC_k a},   means μ_k + κC_k a,   covariances C_k
    V_t(x) = log Σ_k ρ_k(x)·e^{κaᵀm_k(x) + ½κ²aᵀS_k a},

with ρ_k, m_k, S_k the weights, means and covariances of x₀ given x_t = x.  (A quadratic reward is a linear-Gaussian
likelihood, so its target is `GaussianMixture.posterior`.)
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.worlds import GaussianMixture


@dataclass(frozen=True, eq=False)
class TiltedMixture:
    """A mixture tilted by a linear reward.

    Args:
        world: the mixture, of few numbers, since covariances are made dense.
        direction: a, of the world's shape.
        strength: κ.

    Raises:
        ArgumentError: a direction of another shape, or a strength that is not finite.
    """

    world: GaussianMixture
    direction: Tensor
    strength: float = 1.0

    def __post_init__(self) -> None:
        a = torch.as_tensor(self.direction, dtype=torch.float64)
        if a.shape != self.world.shape:
            raise ArgumentError(f"direction must have the world's shape {self.world.shape}, got {tuple(a.shape)}")
        if not math.isfinite(self.strength):
            raise ArgumentError(f"strength must be finite, got {self.strength!r}")
        object.__setattr__(self, "direction", a)

    def reward(self, x: Tensor) -> Tensor:
        """aᵀx, (batch,)."""
        return x.double().flatten(1) @ self.direction.flatten().to(x.device)

    def _covariances(self) -> Tensor:
        return torch.stack([self.world.component_covariance(k) for k in range(len(self.world.means))])

    def _gains(self) -> tuple[Tensor, Tensor, Tensor]:
        """(C_k, κ·C_k a, log of each component's E[e^{κr}])."""
        covariances = self._covariances()
        a = self.strength * self.direction.flatten().to(covariances.device)
        pull = covariances @ a
        return covariances, pull, self.world.means @ a + 0.5 * pull @ a

    @property
    def target(self) -> GaussianMixture:
        """p*."""
        covariances, pull, logs = self._gains()
        weights = (self.world.weights.log() + logs).softmax(0)
        return GaussianMixture.full(weights, (self.world.means + pull).reshape(-1, *self.world.shape), covariances)

    @property
    def evidence(self) -> float:
        """log E[e^{κ·r(x₀)}]."""
        return float((self.world.weights.log() + self._gains()[2]).logsumexp(0))

    def value(self, path: Path, x: Tensor, t: Tensor | float) -> Tensor:
        """V_t(x), float64 (batch,).

        Args:
            path: on which x lies.
            x: (batch, *shape).
            t: its time.
        """
        share = self.world.component_posterior(x, path, t)
        covariances, pull, logs = self._gains()
        alpha, variance = float(path.alpha(t)), float(path.sigma(t)) ** 2
        seen = alpha**2 * covariances + variance * torch.eye(covariances.shape[1]).to(covariances)
        gain = alpha * torch.linalg.solve(seen, pull)
        off = x.double().flatten(1)[:, None] - alpha * self.world.means
        narrowed = logs - 0.5 * alpha * (gain * pull).sum(-1)
        worth = narrowed + (off * gain).sum(-1)
        return (share.log() + worth).logsumexp(-1)
