"""The weights of one step of the adjoint equation, from time t back to the noisier s; float64, on the host.

On the flow, with ρ = σ/α, κ = 1 and w = σ, or with κ = 2 and w = σρ for the reverse equation with its full noise, which
has the network's part twice (a prime is a derivative by t):

    eps   (α·a)′ = −κ·ρ′·V                   V = α²·aᵀ∂ε̂/∂x
    x0    (w·a)′ = κ·(w/σ)(ασ′ − σα′)·V      V = aᵀ∂x̂₀/∂x

and a condition's or weight's share grows by −κρ′·V_z, V_z = α·aᵀ∂ε̂/∂z, or by (κ/σ)(ασ′ − σα′)·V_z, V_z = aᵀ∂x̂₀/∂z.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from fewstep.paths import Path
from fewstep.solvers.gauss_legendre import gauss_legendre

NODES, SHARES = gauss_legendre(12)


class AdjointWeights(NamedTuple):
    """V = value_a·a + value_x·aᵀ∂x̂₀/∂x, V_z = value_z·aᵀ∂x̂₀/∂z, and what a step makes of them:

    a_s = carry·a + now_x·V + change_x·(V − V_r),      z_s = z + now_z·V_z + change_z·(V_z − V_zr).
    """

    value_a: float
    value_x: float
    value_z: float
    carry: float
    now_x: float
    now_z: float
    change_x: float
    change_z: float


def eps_weights(path: Path, t: float, s: float, r: float | None, full_noise: bool) -> AdjointWeights:
    """The published weights.

    Args:
        path: with α > 0 at s.
        t, s: where the step begins and ends, 0 < t < s.
        r: the time before, r < t; None for order 1.
        full_noise: whether κ is 2.
    """
    (alpha, sigma), (alpha_s, sigma_s) = ((float(path.alpha(u)), float(path.sigma(u))) for u in (t, s))
    now = (1 + full_noise) * (sigma / alpha - sigma_s / alpha_s)
    slope = 0.0
    if r is not None:
        slope = float((path.lam(s) - path.lam(t)) / (path.lam(t) - path.lam(r))) / 2
    values = (alpha**2 / sigma, -(alpha**3) / sigma, -(alpha**2) / sigma)
    return AdjointWeights(*values, alpha / alpha_s, now / alpha_s, now, slope * now / alpha_s, slope * now)


def x0_weights(path: Path, t: float, s: float, r: float | None, full_noise: bool) -> AdjointWeights:
    """The weights in x̂₀, by quadrature in time; arguments are those of `eps_weights`, and α may be 0 at s."""
    at = torch.cat([(t + s) / 2 + (s - t) / 2 * NODES, torch.tensor([t], dtype=torch.float64)])
    alpha, sigma = path.alpha(at), path.sigma(at)
    alpha_s, sigma_s = path.alpha(s), path.sigma(s)
    ratio = sigma**2 * alpha_s / (alpha * sigma_s**2) if full_noise else sigma / sigma_s  # w/w_s
    on_z = (1 + full_noise) * (alpha * path.d_sigma(at) - sigma * path.d_alpha(at)) / sigma
    on_z = on_z[:-1] * SHARES * (s - t) / 2
    on_x = ratio[:-1] * on_z
    slope = 0 * on_z if r is None else (at[:-1] - t) / (t - r)
    sums = (float(v.sum()) for v in (on_x, on_z, slope * on_x, slope * on_z))
    return AdjointWeights(0.0, 1.0, 1.0, float(ratio[-1]), *sums)


WEIGHTS: dict[str, Callable[[Path, float, float, float | None, bool], AdjointWeights]] = {
    "eps": eps_weights,
    "x0": x0_weights,
}
