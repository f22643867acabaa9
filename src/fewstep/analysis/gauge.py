"""Gauge freedom: what a learned score may hold beside a gradient without changing what is sampled.

Let ŝ = ∇log p_t + r.  The flow and the reverse equation made of ŝ keep every marginal p_t if and only if

    ∇·r + r·∇log p_t = 0,

so r is a gauge; being a gradient is neither needed nor enough.  Every field is uniquely ∇φ + r with r a gauge, and
E‖ŝ − s‖² = E‖∇φ − s‖² + E‖r‖².  What the flow's Jacobian ∂x_t/∂x₁ does near the data tells the dimension of the data at
a point: a direction along it keeps its singular value, one across it falls with σ̄.
"""

from collections.abc import Callable
from typing import Any

import torch
from scipy.linalg import solve_sylvester
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.planning import make_plan
from fewstep.sampling import sample

Field = Callable[[Tensor, Tensor, Tensor], Tensor]


class Gauged(Denoiser):
    """A denoiser whose score has a field added: x̂₀ + (σ²/α)·r.

    Args:
        inner: the denoiser.
        field: field(x, t, score) → r, the shape of x; `turned(S)` is a gauge of every denoiser.
    """

    def __init__(self, inner: Denoiser, field: Field) -> None:
        super().__init__(inner.path, inner.shape, "x0", inner.null, inner.limits)
        self.inner, self.field = inner, field

    def raw(self, x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        alpha, sigma = (v.to(x.dtype) for v in (self.path.alpha(told), self.path.sigma(told)))
        x0 = self.inner(x, told, **cond)
        score = (alpha * x0 - x) / sigma**2
        return x0 + sigma**2 / alpha * self.field(x, told, score)


def turned(matrix: Tensor) -> Field:
    """r = S·∇log p_t with S antisymmetric: without divergence and across the score, so a gauge of any density.

    Args:
        matrix: S, (d, d), d numbers a sample.

    Raises:
        ArgumentError: S is not antisymmetric.
    """
    if matrix.ndim != 2 or not torch.allclose(matrix, -matrix.mT):
        raise ArgumentError("matrix must be antisymmetric, (d, d)")
    return lambda x, t, score: (score.flatten(1) @ matrix.to(score).mT).reshape(x.shape)


def _jacobian(field: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """∂field/∂x of every row, (batch, d, d)."""
    flat = x.flatten(1).detach().requires_grad_()
    with torch.enable_grad():
        out = field(flat.reshape(x.shape)).flatten(1)
        rows = [torch.autograd.grad(out[:, i].sum(), flat, retain_graph=True)[0] for i in range(out.shape[1])]
    return torch.stack(rows, 1)


def asymmetry(field: Callable[[Tensor], Tensor], x: Tensor, probes: int = 0, seed: int = 0) -> Tensor:
    """How far a field is from a gradient at each row: ‖J − Jᵀ‖/‖J‖ of its Jacobian J, (batch,).

    Args:
        field: field(x) → the shape of x; differentiable, row by row.
        x: (batch, *shape).
        probes: random directions ξ for E‖Jξ − Jᵀξ‖²/E‖Jξ‖², Jξ by differences, where x has too many numbers for
            its whole Jacobian, which 0 asks for.
        seed: of the probes.

    Raises:
        ArgumentError: a bad number of probes.
    """
    if not isinstance(probes, int) or isinstance(probes, bool) or probes < 0:
        raise ArgumentError(f"probes must be an integer of at least 0, got {probes!r}")
    if not probes:
        j = _jacobian(field, x)
        return (j - j.mT).flatten(1).norm(dim=1) / j.flatten(1).norm(dim=1).clamp(min=1e-300)
    generator, apart, size = torch.Generator().manual_seed(seed), x.new_zeros(len(x)), x.new_zeros(len(x))
    nudge = torch.finfo(x.dtype).eps ** (1 / 3)
    for _ in range(probes):
        ahead = torch.randn(x.shape, dtype=x.dtype, generator=generator).to(x.device)
        free = x.detach().requires_grad_()
        with torch.enable_grad():
            behind = torch.autograd.grad(field(free), free, ahead)[0]
        with torch.no_grad():
            across = (field(x + nudge * ahead) - field(x - nudge * ahead)) / (2 * nudge)
        apart = apart + (across - behind).flatten(1).square().sum(1)
        size = size + across.flatten(1).square().sum(1)
    return (apart / size.clamp(min=1e-30)).sqrt()


def gauge_residual(field: Callable[[Tensor], Tensor], score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """∇·r + r·∇log p at each row, (batch,): 0 everywhere if r is a gauge.

    Args:
        field, score: r and ∇log p, as functions of x, row by row.
        x: (batch, *shape).
    """
    divergence = _jacobian(field, x).diagonal(dim1=1, dim2=2).sum(1)
    return divergence + (field(x).flatten(1) * score(x).flatten(1)).sum(1).detach()


@method(
    name="gauge-split",
    papers=["On gauge freedom, conservativity and intrinsic dimensionality estimation in diffusion models"],
    arxiv="2402.03845", family="theory", summary="A linear score as a gradient and a gauge, both measured.",
)  # fmt: skip
def gauge_split(matrix: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Split the linear field x ↦ M·x on N(0, C) into a gradient K·x and a gauge C·Ω·x.

        M = K + C·Ω,      K symmetric, Ω antisymmetric,      CΩ + ΩC = M − Mᵀ.

    Args:
        matrix: M, (d, d).
        covariance: C, (d, d), positive definite.

    Returns:
        (K, C·Ω), float64; E‖M·x‖² is the sum of theirs.

    Raises:
        ArgumentError: other shapes, or C is not symmetric and positive definite.
    """
    m, c = matrix.double().cpu(), covariance.double().cpu()
    if m.ndim != 2 or m.shape[0] != m.shape[1] or c.shape != m.shape:
        raise ArgumentError(f"matrix and covariance must be (d, d), got {tuple(m.shape)} and {tuple(c.shape)}")
    if not torch.allclose(c, c.mT) or float(torch.linalg.eigvalsh(c).min()) <= 0:
        raise ArgumentError("covariance must be symmetric and positive definite")
    omega = torch.from_numpy(solve_sylvester(c.numpy(), c.numpy(), (m - m.mT).numpy()))
    gauge = c @ omega
    return m - gauge, gauge


@method(
    name="intrinsic-dimension",
    papers=["On gauge freedom, conservativity and intrinsic dimensionality estimation in diffusion models"],
    arxiv="2402.03845", family="theory", summary="The dimension of the data at a point, from the flow's Jacobian.",
)  # fmt: skip
def intrinsic_dimension(
    denoiser: Denoiser, start: Tensor, level: float = 0.01, steps: int = 96, nudge: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """How many directions the data has where the flow takes each noise.

    The singular values of Y = ∂x_t/∂x₁ are found by differences at two levels, `level` and twice it; a direction
    counts if d log(value)/d log σ̄ is below ½ between them: 0 along the data, 1 across it.

    Args:
        denoiser: the model; asked in float64 where it can be.
        start: (batch, *shape), noise at t = 1.
        level: σ̄ where it is measured: below the data's own spread, above its finest structure.
        steps: of the plan down to there.
        nudge: how far the neighbours of a start lie from it, in units of σ(1).

    Returns:
        (dimensions (batch,), singular values (2, batch, d) at twice the level and at it).

    Raises:
        ArgumentError: a level that the path does not have, starts of another shape, a bad number.
    """
    path = denoiser.path
    if tuple(start.shape[1:]) != denoiser.shape:
        raise ArgumentError(f"start must have shape (batch, *{denoiser.shape}), got {tuple(start.shape)}")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 3:
        raise ArgumentError(f"steps must be an integer of at least 3, got {steps!r}")
    if not nudge > 0:
        raise ArgumentError(f"nudge must be above 0, got {nudge!r}")
    times = path.t_of_lam(-torch.tensor([2 * level, level], dtype=torch.float64).log())
    if not level > 0 or not bool((times > 0).all() and (times < 1).all()):
        raise ArgumentError(f"level must be a σ/α that the path has, got {level!r}")
    x = start.double()
    size = x[0].numel()
    step = nudge * float(path.sigma(1.0))
    moves = step * torch.eye(size, dtype=torch.float64, device=x.device).reshape(size, *x.shape[1:])
    near = torch.cat([x[:, None] + moves, x[:, None] - moves], 1).flatten(0, 1)
    found = []
    first = float(path.t_of_lam(torch.tensor(-8.0, dtype=torch.float64)))
    noisy = min(1.0, first) if path.kind != "ve" else 1.0
    for t in times:
        lam = torch.linspace(float(path.lam(noisy)), float(path.lam(t)), steps + 1, dtype=torch.float64)
        grid = torch.cat([torch.ones(1, dtype=torch.float64) * noisy, path.t_of_lam(lam[1:-1]), t[None]])
        ends = sample(denoiser, start=near, plan=make_plan(path, "dpm-solver++3m", grid)).x / path.alpha(t)
        up, down = ends.reshape(len(x), 2, size, size).unbind(1)
        found.append(torch.linalg.svdvals((up - down) / (2 * step)))
    values = torch.stack(found)
    slope = (values[0] / values[1].clamp(min=1e-300)).log() / torch.log(torch.tensor(2.0, dtype=torch.float64))
    return (slope < 0.5).sum(1), values
