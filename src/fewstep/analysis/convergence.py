"""The order of convergence of a solver, measured where the answer is known.

A deterministic plan is run on an exact mixture and compared with the flow itself; of a stochastic one the law of the
samples is compared, on Gaussian data, where it is exact (weak order).  The order is log₂ of how much the error falls
when the grid is halved.
"""

import math
from collections.abc import Sequence

import torch

from fewstep.analysis.flow import exact_flow
from fewstep.analysis.gaussian import gaussian_output
from fewstep.paths import Path
from fewstep.planning import make_plan
from fewstep.sampling import sample
from fewstep.solvers import Solver, solver_named
from fewstep.worlds import GaussianMixture


def convergence_errors(
    solver: str | Solver, path: Path, counts: Sequence[int] = (40, 80), first: float = -2.0, last: float = 2.5
) -> list[float]:
    """The error of a solver with these numbers of steps on grids uniform in λ, between λ = `first` and `last`."""
    engine = solver_named(solver) if isinstance(solver, str) else solver
    grids = [path.t_of_lam(torch.linspace(first, last, n + 1, dtype=torch.float64)) for n in counts]
    if engine.stochastic:
        c, m = torch.tensor([0.05, 0.3, 1.5], dtype=torch.float64), torch.tensor([0.4, -0.3, 0.2], dtype=torch.float64)
        t = grids[0][-1]
        want = path.alpha(t) * m, path.alpha(t) ** 2 * c + path.sigma(t) ** 2
        laws = [gaussian_output(make_plan(path, engine, grid), c, m, exact_start=True) for grid in grids]
        return [float(torch.cat([got[0] - want[0], got[1] - want[1]]).square().mean().sqrt()) for got in laws]
    means = torch.tensor([[-0.6, 0.5], [0.8, -0.1]], dtype=torch.float64)
    denoiser = GaussianMixture([0.3, 0.7], means, torch.tensor([[0.0625, 0.1], [0.16, 0.05]])).denoiser(path)
    start, end = (float(path.t_of_lam(lam)) for lam in (first, last))
    x = torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = float(path.alpha(start)) * 0.4 + float(path.sigma(start)) * x
    exact = exact_flow(denoiser, x, start, end, tolerance=1e-12)
    runs = [sample(denoiser, start=x, plan=make_plan(path, engine, grid)).x for grid in grids]
    return [float((run - exact).square().mean().sqrt()) for run in runs]


def measured_order(solver: str | Solver, path: Path, counts: tuple[int, int] = (40, 80)) -> float:
    """The order of convergence between two numbers of steps: log(e₁/e₂)/log(n₂/n₁).

    Args:
        solver: a name of the catalogue, or a solver.
        path: any path.
        counts: the two numbers of grid intervals, rising.
    """
    coarse, fine = convergence_errors(solver, path, counts)
    return math.log(coarse / fine) / math.log(counts[1] / counts[0])
