"""Mixtures of Gaussians in their eigenbases: x₀ ~ Σ_k w_k N(μ_k, C_k), C_k = U_k diag(e_k) U_kᵀ + v_k I.

With U_k orthonormal (d × r), x_t given component k is N(α·μ_k, α²·C_k + σ²), so with c each eigenvalue of C_k

    E[x₀ | x_t, k] = μ_k + α·c/(α²·c + σ²) (x_t − α·μ_k)      along each eigenvector,

mixed by the posterior weights.  r = 0 is isotropic (or diagonal, v_k a vector), v = 0 with r = d is any covariance, and
v = 0 with r = 0 are points.  Everything is matrix products of batch × d × (components·r).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.shapes import broadcast_shapes
from fewstep.worlds.base import World

# The variance of points at t = 0, so that the nearest one takes all the weight.
TINY = 1e-30
DENSE = 2048


class _Seen(NamedTuple):
    """What a state tells: log p_t of each component (batch, K), and E[x₀ | x, k] mixed by given weights."""

    logs: Tensor
    gain: Tensor
    projected: Tensor
    more: Tensor


class GaussianMixture(World):
    """x₀ ~ Σ_k w_k N(μ_k, U_k diag(e_k) U_kᵀ + v_k I).

    Args:
        weights: (K,), more than 0; they are scaled to sum to 1.
        means: (K, *shape).
        variance: v, (K, 1), or (K, d) for diagonal covariances without a basis.
        basis: U, (K, d, r) with orthonormal columns; none unless given.
        spread: e, (K, r), the variance along each column beyond v, at least 0.
        component_labels: the class of each component, (K,) from 0; makes `label` a condition.

    Raises:
        ArgumentError: shapes that do not fit, weights or variances that are negative or not finite.
    """

    def __init__(
        self,
        weights: Tensor | Sequence[float],
        means: Tensor,
        variance: Tensor,
        basis: Tensor | None = None,
        spread: Tensor | None = None,
        component_labels: Tensor | Sequence[int] | None = None,
    ) -> None:
        w = torch.as_tensor(weights, dtype=torch.float64)
        means = torch.as_tensor(means, dtype=torch.float64)
        self.shape = tuple(means.shape[1:])
        self.means = means.reshape(len(means), -1)
        count, d = self.means.shape
        self.variance = torch.as_tensor(variance, dtype=torch.float64)
        self.basis = torch.zeros(count, d, 0, dtype=torch.float64) if basis is None else basis.double()
        self.spread = torch.zeros(count, 0, dtype=torch.float64) if spread is None else spread.double()
        rank = self.basis.shape[-1]
        fits = self.variance.shape in ((count, 1), (count, d) if rank == 0 else (count, 1))
        if (
            w.shape != (count,)
            or not fits
            or self.basis.shape != (count, d, rank)
            or self.spread.shape != (count, rank)
        ):
            raise ArgumentError(
                f"{count} means of {d} numbers need weights ({count},), variance ({count}, 1) or, without a basis, "
                f"({count}, {d}), basis ({count}, {d}, r), spread ({count}, r); got {tuple(w.shape)}, "
                f"{tuple(self.variance.shape)}, {tuple(self.basis.shape)}, {tuple(self.spread.shape)}"
            )
        for name, value in (("weights", w), ("variance", self.variance), ("spread", self.spread)):
            if not bool(value.isfinite().all()) or bool((value < 0).any()):
                raise ArgumentError(f"{name} must be finite and at least 0")
        if not self.means.isfinite().all() or not self.basis.isfinite().all() or not w.sum() > 0:
            raise ArgumentError("means and basis must be finite, and some weight more than 0")
        if rank == d:  # a whole basis leaves nothing for v
            self.spread, self.variance = self.spread + self.variance, torch.zeros_like(self.variance)
        self.weights = w / w.sum()
        self.component_labels = None if component_labels is None else torch.as_tensor(component_labels).long()
        if self.component_labels is not None and (
            self.component_labels.shape != (count,) or self.component_labels.min() < 0
        ):
            raise ArgumentError(f"component_labels must be {count} whole numbers from 0, got {component_labels}")
        self.labels = 0 if self.component_labels is None else int(self.component_labels.max()) + 1
        # The columns of all bases side by side, (d, K·r), made once: a copy a call would cost more than the products.
        self._columns = self.basis.movedim(0, 1).reshape(d, -1)
        self._projected_means = (self.means[:, None] @ self.basis)[:, 0]

    @staticmethod
    def full(weights: Tensor | Sequence[float], means: Tensor, covariances: Tensor) -> "GaussianMixture":
        """The mixture with covariances (K, d, d), symmetric and not negative.

        Raises:
            ArgumentError: a covariance is not symmetric or has a negative eigenvalue.
        """
        c = torch.as_tensor(covariances, dtype=torch.float64)
        if c.ndim != 3 or c.shape[1] != c.shape[2] or not torch.allclose(c, c.mT, atol=1e-10 * float(c.abs().max())):
            raise ArgumentError(f"covariances must be symmetric matrices (K, d, d), got {tuple(c.shape)}")
        e, u = torch.linalg.eigh((c + c.mT) / 2)
        if bool((e < -1e-9 * e.amax(-1, keepdim=True).clamp_min(1e-12)).any()):
            raise ArgumentError(f"a covariance has the negative eigenvalue {float(e.min()):.3g}")
        return GaussianMixture(weights, means, torch.zeros(len(c), 1), u, e.clamp_min(0))

    @property
    def mean(self) -> Tensor:
        """E[x₀], float64 of `shape`."""
        return (self.weights @ self.means).reshape(self.shape)

    def component_covariance(self, k: int) -> Tensor:
        """C_k as a dense matrix (d, d)."""
        u, d = self.basis[k], self.means.shape[1]
        return u @ torch.diag(self.spread[k]) @ u.mT + torch.diag(self.variance[k].expand(d))

    @property
    def covariance(self) -> Tensor:
        """Cov[x₀] as a dense matrix (d, d)."""
        centred = self.means - self.mean.flatten()
        between = centred.mT @ (self.weights[:, None] * centred)
        return between + sum((w * self.component_covariance(k) for k, w in enumerate(self.weights)), torch.zeros(()))  # type: ignore[return-value]

    def _log_weights(self, batch: int, label: Tensor | int | None) -> Tensor:
        logs = self.weights.log().expand(batch, -1)
        if label is None:
            return logs
        if self.component_labels is None:
            raise ArgumentError("this world has no classes, so it takes no label")
        label = torch.as_tensor(label).cpu().reshape(-1, 1)
        if bool((label < 0).any()) or bool((label > self.labels).any()):
            raise ArgumentError(f"label must be 0 … {self.labels - 1}, or {self.labels} for none; got {label.tolist()}")
        out = (label != self.labels) & (self.component_labels != label)
        return logs.masked_fill(out, -math.inf).log_softmax(-1)

    def sample(self, n: int, seed: int = 0, label: Tensor | int | None = None) -> Tensor:
        """n samples of x₀, float64 (n, *shape)."""
        generator = torch.Generator().manual_seed(seed)
        logs = self._log_weights(n, label).expand(n, -1)
        pick = torch.multinomial(logs.exp(), 1, generator=generator)[:, 0]
        d, rank = self.basis.shape[1:]
        x = self.means[pick] + self.variance[pick].sqrt() * torch.randn(n, d, generator=generator, dtype=torch.float64)
        along = self.spread.sqrt()[pick] * torch.randn(n, rank, generator=generator, dtype=torch.float64)
        for k in pick.unique():
            x[pick == k] += along[pick == k] @ self.basis[k].mT
        return x.reshape(n, *self.shape)

    def _on(self, device: torch.device) -> "GaussianMixture":
        if self.means.device != device:
            for name in ("weights", "means", "variance", "basis", "spread", "_columns", "_projected_means"):
                setattr(self, name, getattr(self, name).to(device))
        return self

    def _levels(self, x: Tensor, path: Path, t: Tensor | float) -> tuple[Tensor, Tensor, bool]:
        """(α, σ²) as (batch or 1, 1 or d), and whether they differ within a sample."""
        t = torch.as_tensor(t, dtype=torch.float64, device=x.device)
        inside = any(side > 1 for side in t.shape[-len(self.shape) :])
        if inside:
            t = t.expand(broadcast_shapes(t.shape, (1, *self.shape)))
        if t.ndim:
            t = t.reshape(-1, self.means.shape[1] if inside else 1)
        return path.alpha(t), path.sigma(t).square(), inside

    def _see(self, x: Tensor, alpha: Tensor, variance: Tensor, label: Tensor | int | None) -> _Seen:
        """Bayes' rule on flat x (batch, d), with one (α, σ²) a sample, or one a number where there is no basis."""
        d, rank = self.basis.shape[1:]
        v = self.variance  # (K, 1 or d)
        alpha, variance = (torch.atleast_2d(value)[:, None] for value in (alpha, variance))  # (batch, 1, 1 or d)
        width = (alpha.square() * v + variance).clamp_min(TINY)  # (batch, K, 1 or d)
        gain = alpha * v / width
        projected = x.new_zeros(len(x), len(v), 0)
        more = projected
        if width.shape[-1] > 1:
            distance = ((x[:, None] - alpha * self.means).square() / width).sum(-1)
            volume = width.expand(-1, -1, d).log().sum(-1)
        else:
            # |x − αμ|² by its parts: one product of batch × d × K instead of a (batch, K, d) difference.
            square = (
                x.square().sum(-1)[:, None]
                - 2 * alpha[..., 0] * (x @ self.means.mT)
                + alpha[..., 0].square() * self.means.square().sum(-1)
            )
            if rank:
                projected = (x @ self._columns).reshape(len(x), -1, rank) - alpha * self._projected_means
                square = square - projected.square().sum(-1)
            distance = square.clamp_min(0) / width[..., 0] if rank < d else torch.zeros_like(square)
            volume = (d - rank) * width[..., 0].log()
        if rank:
            wide = (alpha.square() * (v + self.spread) + variance).clamp_min(TINY)
            distance = distance + (projected.square() / wide).sum(-1)
            volume = volume + wide.log().sum(-1)
            more = alpha * (v + self.spread) / wide - gain
        logs = self._log_weights(len(x), label).to(x.device) - 0.5 * (distance + volume + d * math.log(2 * math.pi))
        return _Seen(logs, gain, projected, more)

    def denoise(self, x: Tensor, path: Path, t: Tensor | float, label: Tensor | int | None = None) -> Tensor:
        """x̂₀ = E[x₀ | x_t = x], of x's shape and dtype; t broadcasts against x."""
        self._on(x.device)
        flat = x.double().reshape(len(x), -1)
        alpha, variance, inside = self._levels(x, path, t)
        if inside and self.basis.shape[-1]:
            return self._denoise_densely(flat, alpha, variance, label).reshape(x.shape).to(x.dtype)
        seen = self._see(flat, alpha, variance, label)
        share = seen.logs.softmax(-1)[..., None]  # (batch, K, 1)
        alpha = torch.atleast_2d(alpha)[:, None]
        if seen.gain.shape[-1] == 1:
            x0 = (share * (1 - alpha * seen.gain))[..., 0] @ self.means + (share * seen.gain).sum(1) * flat
        else:
            x0 = (share * (self.means + seen.gain * (flat[:, None] - alpha * self.means))).sum(1)
        if self.basis.shape[-1]:
            x0 = x0 + (share * seen.more * seen.projected).reshape(len(flat), -1) @ self._columns.mT
        return x0.reshape(x.shape).to(x.dtype)

    def _dense(self, alpha: Tensor, variance: Tensor, d: int) -> tuple[Tensor, Tensor]:
        """(C_k, Cov[x_t | k]) for times that differ within a sample; (K, d, d) and (batch, K, d, d)."""
        if d > DENSE:
            raise ArgumentError(
                f"times within a sample need dense covariances here, of at most {DENSE} numbers; got {d}"
            )
        c = torch.stack([self.component_covariance(k) for k in range(len(self.means))])
        a = alpha[:, None]
        return c, a[..., :, None] * c * a[..., None, :] + torch.diag_embed((variance + 1e-14)[:, None])

    def _denoise_densely(self, x: Tensor, alpha: Tensor, variance: Tensor, label: Tensor | int | None) -> Tensor:
        c, seen = self._dense(alpha, variance, x.shape[1])
        off = x[:, None] - alpha[:, None] * self.means
        factor = torch.linalg.cholesky(seen.expand(len(x), -1, -1, -1))
        solved = torch.cholesky_solve(off[..., None], factor)[..., 0]
        volume = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        logs = self._log_weights(len(x), label).to(x.device) - 0.5 * ((off * solved).sum(-1) + volume)
        believed = self.means + torch.einsum("kij,bkj->bki", c, alpha[:, None] * solved)
        return (logs.softmax(-1)[..., None] * believed).sum(1)

    def log_density(self, x: Tensor, path: Path, t: Tensor | float, label: Tensor | int | None = None) -> Tensor:
        """log p_t(x), float64 (batch,), for one time a sample; +∞ where points have no density."""
        self._on(x.device)
        alpha, variance, inside = self._levels(x, path, t)
        if inside and self.basis.shape[-1]:
            raise ArgumentError("log_density takes one time a sample here, as the covariances have a basis")
        return self._see(x.double().reshape(len(x), -1), alpha, variance, label).logs.logsumexp(-1)

    def component_posterior(
        self, x: Tensor, path: Path, t: Tensor | float, label: Tensor | int | None = None
    ) -> Tensor:
        """p(k | x_t = x), float64 (batch, K), for one time a sample."""
        self._on(x.device)
        alpha, variance, _ = self._levels(x, path, t)
        return self._see(x.double().reshape(len(x), -1), alpha, variance, label).logs.softmax(-1)

    def posterior(self, matrix: Tensor, y: Tensor, noise: Tensor | float) -> "GaussianMixture":
        """The mixture of x₀ given y = matrix·x₀ + noise·n: exact weights, means and covariances.

        Component k is updated by S = A C_k Aᵀ + noise², K = C_k Aᵀ S⁻¹, μ′ = μ + K (y − A μ), C′ = C − K A C, and
        w′ ∝ w·N(y; A μ, S).

        Args:
            matrix: A, (measurements, d), acting on x₀ flattened.
            y: (measurements,).
            noise: standard deviation of each measurement, more than 0: a number or (measurements,).

        Raises:
            ArgumentError: shapes that do not fit, noise of 0, or more than 2,048 numbers a sample.
        """
        a, y = matrix.double().cpu(), torch.as_tensor(y, dtype=torch.float64).flatten()
        d = self.means.shape[1]
        deviation = torch.as_tensor(noise, dtype=torch.float64).expand(len(y))
        if a.shape != (len(y), d) or not bool((deviation > 0).all()):
            raise ArgumentError(
                f"matrix must be ({len(y)}, {d}) and noise more than 0, got {tuple(a.shape)} and {noise}"
            )
        points = not bool(self.variance.any()) and not bool(self.spread.any())
        if d > DENSE and not points:
            raise ArgumentError(f"the posterior has dense covariances, of at most {DENSE} numbers; got {d}")
        noise_covariance = torch.diag(deviation.square())
        logs, means, covariances = [], [], []
        for k, mean in enumerate(self.means.cpu()):
            c = torch.zeros(0, 0, dtype=torch.float64) if points else self.component_covariance(k).cpu()
            ac = torch.zeros(len(y), d, dtype=torch.float64) if points else a @ c
            normal = torch.distributions.MultivariateNormal(a @ mean, ac @ a.mT + noise_covariance)
            gain = torch.cholesky_solve(ac, normal.scale_tril).mT
            logs.append(self.weights[k].cpu().log() + normal.log_prob(y))
            means.append(mean + gain @ (y - a @ mean))
            covariances.append(c if points else (c - gain @ ac + (c - gain @ ac).mT) / 2)
        weights, centres = torch.stack(logs).softmax(0), torch.stack(means).reshape(-1, *self.shape)
        if points:
            return GaussianMixture(weights, centres, torch.zeros(len(means), 1))
        return GaussianMixture.full(weights, centres, torch.stack(covariances))
