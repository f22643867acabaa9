"""What a model says of data: the log-density by its flow, and whether its scores belong to one law at all.

In z = x/α the flow is dz/dλ = x̂₀ − z, so the density of a point follows from the noise that the flow takes it to:

    log p₀(x₀) = log p(z(λ₁)) + ∫_{λ₁}^{λ₀} (d − tr ∂x̂₀/∂z) dλ.

Scores of one law under noise obey the equation of Fokker and Planck,

    ∂_t s = ∇[½g²·∇·s + ½g²·‖s‖² − f·x·s],      f = α′/α,  g² = −2σ²λ′,

and a network's need not: what is left over tells how far its times contradict one another.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError


def _answer_and_trace(
    denoiser: Denoiser, z: Tensor, lam: Tensor, probes: Tensor | None, cond: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """x̂₀ and tr ∂x̂₀/∂z of every row; the trace exactly, or by E[ξ·(∂x̂₀/∂z)ξ] over the probes ξ."""
    t = denoiser.path.t_of_lam(lam)
    with torch.enable_grad():
        free = z.detach().requires_grad_()
        x0 = denoiser(denoiser.path.alpha(t).to(z.dtype) * free, t, **cond)
        flat = x0.flatten(1)
        if probes is None:
            rows = range(flat.shape[1])
            trace = sum(
                torch.autograd.grad(flat[:, i].sum(), free, retain_graph=True)[0].flatten(1)[:, i] for i in rows
            )
        else:
            parts = [
                (torch.autograd.grad(x0, free, probe.expand_as(x0), retain_graph=True)[0] * probe).flatten(1).sum(1)
                for probe in probes
            ]
            trace = torch.stack(parts).mean(0)
    assert isinstance(trace, Tensor)
    return x0.detach(), trace


@method(
    name="flow-likelihood", papers=["The Principles of Diffusion Models"], arxiv="2510.21890", family="theory",
    summary="The log-density of data under a model, by its flow.",
)  # fmt: skip
def log_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    steps: int = 100,
    reach: float = 8.0,
    probes: int = 0,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
) -> Tensor:
    """log p₀(x) in nats, (batch,); by the classical method of order 4 in λ.

    Args:
        denoiser: the model.
        x: (batch, *shape), clean data.
        steps: of the integration; each asks the network four times.
        reach: λ where x begins; data finer than e^−reach is seen blurred.
        probes: random directions for the trace; 0 is the exact one, which costs as many gradients as x has numbers.
        seed: of the probes.
        cond: as the network takes them.

    Raises:
        ArgumentError: another shape, or a number out of its range.
    """
    if tuple(x.shape[1:]) != denoiser.shape or not x.is_floating_point():
        raise ArgumentError(f"x must be floating-point of shape (batch, *{denoiser.shape}), got {tuple(x.shape)}")
    for name, value, least in (("steps", steps, 1), ("probes", probes, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ArgumentError(f"{name} must be an integer of at least {least}, got {value!r}")
    path, size, told = denoiser.path, x[0].numel(), dict(cond or {})
    end = max(-reach, float(path.lam(1.0)))
    if not end < reach < math.inf:
        raise ArgumentError(f"reach must lie above the λ = {end:.3g} of the noisy end, got {reach!r}")
    directions = None
    if probes:
        draws = torch.randint(0, 2, (probes, 1, *x.shape[1:]), generator=torch.Generator().manual_seed(seed))
        directions = (2 * draws - 1).to(x)
    grid = torch.linspace(reach, end, steps + 1, dtype=torch.float64)
    h, z, total = float(grid[1] - grid[0]), x.detach(), torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for lam in grid[:-1]:
        slopes: list[tuple[Tensor, Tensor]] = []
        for share in (0.0, 0.5, 0.5, 1.0):
            at = z if not slopes else z + share * h * slopes[-1][0]
            x0, trace = _answer_and_trace(denoiser, at, lam + share * h, directions, told)
            slopes.append((x0 - at, size - trace))
        (a, p), (b, q), (c, r), (d, s) = slopes
        z, total = z + h / 6 * (a + 2 * b + 2 * c + d), total - h / 6 * (p + 2 * q + 2 * r + s)
    # At the noisy end z is nearly normal around μ = x̂₀(0): log p = −½(z − μ)·(z − x̂₀)/σ̄² − d·log(σ̄·√2π), but for terms
    # in (the data's spread/σ̄)².
    t = path.t_of_lam(grid[-1])
    with torch.no_grad():
        middle, answer = (denoiser(path.alpha(t).to(v.dtype) * v, t, **told) for v in (0 * z, z))
    far = ((z - middle) * (z - answer)).flatten(1).sum(1) * math.exp(2 * end)
    return total - 0.5 * far - 0.5 * size * math.log(2 * math.pi) + size * end


@method(
    name="fokker-planck", papers=["The Principles of Diffusion Models"], arxiv="2510.21890", family="theory",
    summary="How far a model's scores at different times contradict one another.",
)  # fmt: skip
def fokker_planck_residual(denoiser: Denoiser, x: Tensor, t: float, nudge: float = 1e-4) -> Tensor:
    """‖∂_t s − ∇[…]‖/‖∂_t s‖ at each row, (batch,): 0 for the scores of one law under noise.

    Args:
        denoiser: the model; float64 is wanted, and a size of a few dozen numbers at most.
        x: (batch, *shape), states at time t.
        t: the time, with room for `nudge` on both sides.
        nudge: of the differences in time.

    Raises:
        ArgumentError: another shape, or a time out of its range.
    """
    if tuple(x.shape[1:]) != denoiser.shape:
        raise ArgumentError(f"x must have shape (batch, *{denoiser.shape}), got {tuple(x.shape)}")
    if not nudge < t < 1 - nudge:
        raise ArgumentError(f"t must lie between {nudge} and {1 - nudge}, got {t!r}")
    path = denoiser.path

    def score(free: Tensor, at: float) -> Tensor:
        alpha, sigma = float(path.alpha(at)), float(path.sigma(at))
        return (alpha * denoiser(free, at) - free) / sigma**2

    before, after = t - nudge, t + nudge
    f = (math.log(float(path.alpha(after))) - math.log(float(path.alpha(before)))) / (2 * nudge)
    speed = (float(path.lam(after)) - float(path.lam(before))) / (2 * nudge)
    g2 = -2 * float(path.sigma(t)) ** 2 * speed
    with torch.enable_grad():
        free = x.detach().requires_grad_()
        s = score(free, t)
        flat = s.flatten(1)
        divergence = x.new_zeros(len(x))
        for i in range(flat.shape[1]):
            row = torch.autograd.grad(flat[:, i].sum(), free, create_graph=True)[0]
            divergence = divergence + row.flatten(1)[:, i]
        inner = 0.5 * g2 * (divergence + flat.square().sum(1)) - f * (free * s).flatten(1).sum(1)
        right = torch.autograd.grad(inner.sum(), free)[0].flatten(1)
    with torch.no_grad():
        left = ((score(x, after) - score(x, before)) / (2 * nudge)).flatten(1)
    return (left - right).norm(dim=1) / left.norm(dim=1)
