"""A plan's exact error on Gaussian data, without sampling.

For x₀ ~ N(m, C) the denoiser is linear: along an eigenvector of C with variance c and mean m,

    x̂₀ = g·x + (1 − α·g)·m,      g = α·c/(α²·c + σ²),

so with L = M + B·g the registers' mean a and covariance Q obey, per eigenvalue,

    a′ = L a + B (1 − α·g) m,      Q′ = L Q Lᵀ + N Nᵀ,

and the output's distance to the data is W2² = Σ (a_x − m)² + (√Q_xx − √c)².  Everything is differentiable in the plan's
coefficients and times, and in the spectrum.
"""

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Plan, Step

# Keeps 0/0 at 0 where neither data nor noise has variance, and √'s slope finite at 0.
TINY = 1e-300


def gaussian_output(
    plan: Plan, variances: Tensor, means: Tensor | None = None, exact_start: bool = False
) -> tuple[Tensor, Tensor]:
    """The mean and variance of a plan's samples along each eigenvector of Gaussian data.

    Args:
        plan: with one time for all; from the plan's first time on.
        variances: (d,), the eigenvalues of the data's covariance, at least 0.
        means: (d,), the data's mean along the eigenvectors; 0 unless given.
        exact_start: begin with the true N(α·m, α²·c + σ²) instead of the noise N(0, σ²) that sampling begins with.

    Returns:
        mean and variance of x after the last step, float64 (d,) each.

    Raises:
        ArgumentError: variances that are negative or not finite, means of another shape, times within a sample.
    """
    c = torch.as_tensor(variances, dtype=torch.float64)
    m = torch.zeros_like(c) if means is None else torch.as_tensor(means, dtype=torch.float64)
    if c.ndim != 1 or m.shape != c.shape or not bool(c.isfinite().all()) or bool((c < 0).any()):
        raise ArgumentError(
            f"variances must be (d,), finite and at least 0, and means (d,); got {c.shape} and {m.shape}"
        )
    if plan.place:
        raise ArgumentError(f"the plan must have one time for all, its times have the place {tuple(plan.place)}")
    size, path = len(plan.registers), plan.path
    alpha, sigma = path.alpha(plan.times[0]), path.sigma(plan.times[0])
    first_mean, first_variance = (alpha * m, alpha**2 * c + sigma**2) if exact_start else (0 * c, sigma**2 + 0 * c)
    one = [torch.ones_like(c) if name == "one" else torch.zeros_like(c) for name in plan.registers]
    mean = torch.stack([first_mean, *one[1:]])
    covariance = torch.zeros(size, size, len(c), dtype=torch.float64)
    covariance[0, 0] = first_variance
    for step in plan:
        linear, shift, drawn = _linear_step(step, size, path, c, m)
        mean = torch.einsum("tfd,fd->td", linear, mean) + shift
        covariance = torch.einsum("tfd,fgd,ugd->tud", linear, covariance, linear) + (drawn @ drawn.mT)[..., None]
    return mean[0], covariance[0, 0]


def _linear_step(step: Step, size: int, path: Path, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A step on Gaussian data: L (to, from, d), the shift by the mean (to, d), and N (to, draws)."""
    levels = [(register, path.alpha(t), path.sigma(t)) for register, t in step.asks]
    gains = [a * c / (a**2 * c + s**2).clamp_min(TINY) for _, a, s in levels]
    one = torch.ones((), dtype=torch.float64)
    linear = [[torch.zeros_like(c) for _ in range(size)] for _ in range(size)]
    shift = [torch.zeros_like(c) for _ in range(size)]
    draws = 1 + max((k for entries in step.writes.values() for kind, k, _ in entries if kind == "N"), default=0)
    drawn = [[0 * one for _ in range(draws)] for _ in range(size)]
    for to in range(size):
        for kind, source, value in step.writes.get(to, [("M", to, one)]):
            if kind == "M":
                linear[to][source] = linear[to][source] + value
            elif kind == "N":
                drawn[to][source] = value
            else:
                register, a, _ = levels[source]
                linear[to][register] = linear[to][register] + value * gains[source]
                shift[to] = shift[to] + value * (1 - a * gains[source]) * m
    rows = torch.stack([torch.stack(row) for row in linear])
    return rows, torch.stack(shift), torch.stack([torch.stack(row) for row in drawn])


def gaussian_w2(plan: Plan, variances: Tensor, means: Tensor | None = None, exact_start: bool = False) -> Tensor:
    """The Wasserstein-2 distance between a plan's samples and the Gaussian data; exact and differentiable.

    Arguments and errors are those of `gaussian_output`.
    """
    mean, variance = gaussian_output(plan, variances, means, exact_start)
    m = 0.0 if means is None else means
    spread = variance.clamp_min(TINY).sqrt() - torch.as_tensor(variances, dtype=torch.float64).sqrt()
    return ((mean - m).square() + spread.square()).sum().sqrt()
