"""The exact denoiser of a mixture that sees only some numbers of its state.

With the visible part of x_t = α·x₀ + σ·ε under component k, of covariance V_k = α²·mC_k m + σ²·m + (1 − m) (the hidden
numbers stand alone, as 1),

    x̂₀ = Σ_k w_k·(μ_k + α·C_k m V_k⁻¹ m(x − α·μ_k)),      w_k ∝ π_k·N(m·x; α·m·μ_k, V_k)
"""

import torch
from torch import Tensor

from fewstep.denoisers import wrap
from fewstep.denoisers.masked import Masked
from fewstep.paths import Path
from fewstep.worlds.mixture import GaussianMixture


def masked_denoiser(world: GaussianMixture, path: Path) -> Masked:
    """E[x₀ | m·x_t, m] of a mixture, as a denoiser with the condition `mask`; for few dimensions."""
    covariances = torch.stack([world.component_covariance(k) for k in range(len(world.means))])

    def believed(x: Tensor, t: Tensor, mask: Tensor) -> Tensor:
        flat, m = x.double().flatten(1)[:, None], mask.double().flatten(1)[:, None]
        alpha, sigma = (f(t.double()).reshape(-1, 1, 1) for f in (path.alpha, path.sigma))
        off = m * (flat - alpha * world.means)
        diagonal = torch.diag_embed(sigma.square() * m + 1 - m)
        v = alpha[..., None].square() * m[..., :, None] * covariances * m[..., None, :] + diagonal
        solved = torch.linalg.solve(v, off[..., None])[..., 0]
        each = world.means + alpha * (covariances @ (m * solved)[..., None])[..., 0]
        logs = world.weights.log() - 0.5 * (off * solved).sum(-1) - 0.5 * torch.linalg.slogdet(v).logabsdet
        return (logs.softmax(1)[..., None] * each).sum(1).reshape(x.shape).to(x.dtype)

    return Masked(wrap(believed, path, "x0", shape=world.shape, time="t"))
