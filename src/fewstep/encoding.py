"""Data to noise and between noises: the probability flow run upwards, and spherical interpolation of what it gives.

A solver without noise is a rule for the step between any two times, so on the same grid read upwards it takes data to
its latent noise (Song et al. 2021, DDIM): with one held answer, and x̂₀ asked at the lower time t of each pair t < t′,

    x′ = (σ′/σ)·x + (α′ − α·σ′/σ)·x̂₀(x, t).

Decoding by the same grid gives the data back up to an error that falls as the grid is refined.  The grid's lowest time
above 0 stands for clean data, x = α·x₀ there.  Between two noises a and b at an angle θ, weight w of b,

    slerp(a, b, w) = (sin((1 − w)θ)·a + sin(wθ)·b)/sin θ.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError, PlanError
from fewstep.grids import Grid
from fewstep.guidance import Guide
from fewstep.planning import make_plan
from fewstep.results import Output
from fewstep.sampling import sample
from fewstep.solvers import Solver, solver_named

# Below this sine of their angle two noises are as good as parallel.
PARALLEL = 1e-4
# Beyond it a weight is a slip of the keyboard, and noises so far out are not finite.
FARTHEST = 100.0


def encode(
    denoiser: Denoiser,
    x: Tensor,
    *,
    solver: str | Solver = "dpm-solver++",
    grid: str | Grid | Tensor | Sequence[float] = "logsnr",
    steps: int | None = None,
    guides: Sequence[Guide] = (),
    cond: Mapping[str, Any] | None = None,
) -> Output:
    """The latent noise of data: `sample(denoiser, start=out.x, solver=…, grid=…, steps=…)` gives the data back.

    Args:
        denoiser: the model.
        x: (batch, *shape), clean data; its dtype and device are used.
        solver: one without noise whose steps look at a grid's times alone: "ddim", or at higher order "dpm-solver++",
            "dpm-solver++3m", "deis" or "unipc".
        grid: as in `sample`; it is walked upwards, from its lowest time above 0.
        steps: the number of grid intervals, at least 2; 50 unless given.
        guides: as in `sample`; guidance other than what decodes gives other data back.
        cond: as in `sample`.

    Returns:
        The state at the grid's first time, and what it cost.

    Raises:
        ArgumentError: a bad argument, or a solver that draws noise or cannot be walked upwards.
    """
    if not isinstance(denoiser, Denoiser):
        raise ArgumentError(f"denoiser must be a fewstep denoiser (see fewstep.wrap), got {type(denoiser).__name__}")
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ArgumentError(f"x must be a floating-point tensor (batch, *shape), got {x!r:.80}")
    engine, path = solver_named(solver) if isinstance(solver, str) else solver, denoiser.path
    if not callable(engine) or not hasattr(engine, "stochastic"):
        raise ArgumentError(f"solver must be a name or a solver, got {solver!r}")
    if engine.stochastic:
        raise ArgumentError(f"encoding needs a solver without noise, and {solver!r} draws some")
    default = 50 if steps is None and isinstance(grid, str) else steps
    times = make_plan(path, "ddim", grid, default).times
    times = times[path.sigma(times) > 0].flip(0)
    if len(times) < 2:
        raise ArgumentError("encoding needs a grid with at least two times above 0")
    named = solver if isinstance(solver, str) else type(solver).__name__
    try:
        plan = engine(
            path, times, {"solver": named, "grid": grid if isinstance(grid, str) else "given", "upwards": True}
        )
    except PlanError as error:
        raise ArgumentError(f"solver {named!r} cannot be walked upwards; take 'ddim' or 'dpm-solver++'") from error
    start = float(path.alpha(times[0])) * x
    return sample(denoiser, start=start, plan=plan, guides=guides, cond=cond)


def slerp(a: Tensor, b: Tensor, weight: float | Tensor) -> Tensor:
    """Spherical interpolation of two batches of noise, (sin((1 − w)θ)·a + sin(wθ)·b)/sin θ, θ the angle of each pair.

    Args:
        a, b: (batch, *shape) of one shape; neither may be all zeros.
        weight: w of b: a number, or (batch,), one each; 0 gives a and 1 gives b.

    Returns:
        (batch, *shape); of a pair that is all but parallel, the straight line between its two.

    Raises:
        ArgumentError: shapes that differ, a zero, or a weight of another shape.
    """
    if not all(isinstance(v, Tensor) and v.is_floating_point() for v in (a, b)) or a.shape != b.shape or a.ndim < 2:
        got = [f"{v.dtype} {tuple(v.shape)}" if isinstance(v, Tensor) else repr(v) for v in (a, b)]
        raise ArgumentError(f"a and b must be floating-point, of one shape (batch, …), got {got[0]} and {got[1]}")
    if not all(bool(v.isfinite().all()) for v in (a, b)):
        raise ArgumentError("a and b must be finite, and one holds NaN or Inf")
    if not isinstance(weight, (int, float, Tensor)):
        raise ArgumentError(f"weight must be a number or ({len(a)},), got {weight!r}")
    w = torch.as_tensor(weight, dtype=torch.float64, device=a.device)
    if not bool((w.abs() <= FARTHEST).all()):
        raise ArgumentError(f"weight must lie within ±{FARTHEST:.0f}, got {weight!r}")
    if w.ndim and w.shape != (len(a),):
        raise ArgumentError(f"weight must be a number or ({len(a)},), got {tuple(w.shape)}")
    flat = [v.double().flatten(1) for v in (a, b)]
    lengths = [v.norm(dim=1) for v in flat]
    if not all(bool((v > 0).all()) for v in lengths):
        raise ArgumentError("an angle needs both a and b to be other than 0")
    angle = ((flat[0] * flat[1]).sum(1) / (lengths[0] * lengths[1])).clamp(-1, 1).acos()
    sine = angle.sin()
    apart = sine > PARALLEL
    safe = torch.where(apart, sine, torch.ones_like(sine))
    shares = [torch.where(apart, (v * angle).sin() / safe, v + 0 * angle) for v in (1 - w, w)]
    of_a, of_b = (v.reshape(-1, *[1] * (a.ndim - 1)).to(a.dtype) for v in shares)
    return of_a * a + of_b * b
