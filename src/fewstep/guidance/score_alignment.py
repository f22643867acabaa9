"""Score alignment: whether a longer or shorter starting noise makes likelier samples, at every time of the flow.

    v(λ_first) = ∇log p(x),      dv/dλ = J_u·v along the flow dx/dλ = u,      aligned where v·∇log p_t(x_t) > 0

v·∇log p_t(x_t) is what log p_t gains when x_first moves along its score; while it is positive, `prior_guidance` is
monotone.  On Gaussian data it stays what it is, ‖v(λ_first)‖².
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError


def score_alignment(
    denoiser: Denoiser, start: Tensor, times: Tensor, cond: Mapping[str, Any] | None = None
) -> tuple[Tensor, Tensor]:
    """(v·s, its cosine) at every time, each (times, batch), by derivatives of the steps of ddim.

    Args:
        denoiser: the model; a time costs an evaluation and two derivatives of it.
        start: (batch, *shape), the state at the first time.
        times: float64, falling, all with α and σ more than 0.
        cond: the denoiser's conditions.

    Raises:
        ArgumentError: times that do not fall or where the score is not defined.
    """
    path, times = denoiser.path, torch.as_tensor(times, dtype=torch.float64)
    alpha, sigma = path.alpha(times), path.sigma(times)
    if times.ndim != 1 or not bool((times.diff() < 0).all()) or not bool(((alpha > 0) & (sigma > 0)).all()):
        raise ArgumentError(f"times must fall, with α and σ more than 0, got {times.tolist()}")
    x, v, found = start.detach(), None, []
    for i, t in enumerate(times):
        x0, pushed = _pushed(denoiser, x, t, v, cond or {})
        score = (float(alpha[i]) * x0 - x) / float(sigma[i]) ** 2
        if v is None:
            v = score
            x0, pushed = _pushed(denoiser, x, t, v, cond or {})
        inner = (v * score).flatten(1).sum(1)
        found.append(torch.stack([inner, inner / (v.flatten(1).norm(dim=1) * score.flatten(1).norm(dim=1))]))
        if i + 1 < len(times):
            ratio = float(sigma[i + 1] / sigma[i])
            factor = float(alpha[i + 1]) - ratio * float(alpha[i])
            x, v = ratio * x + factor * x0, ratio * v + factor * pushed
    inner, cosine = torch.stack(found, 1)
    return inner, cosine


def _pushed(
    denoiser: Denoiser, x: Tensor, t: Tensor, v: Tensor | None, cond: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """(x̂₀, J·v) at x: the derivative of uᵀJ with respect to u, along v; without v the latter is x̂₀ too."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
        at = x.detach().requires_grad_(v is not None)
        x0 = denoiser(at, t, **cond)
        if v is None:
            return x0.detach(), x0.detach()
        u = torch.zeros_like(x0, requires_grad=True)
        (pulled,) = torch.autograd.grad(x0, at, u, create_graph=True)
        (pushed,) = torch.autograd.grad(pulled, u, v)
    return x0.detach(), pushed
