"""The worlds that claims are measured on, and the error that most of them speak of."""

from functools import cache

import torch
from torch import Tensor

from fewstep import make_plan, sample
from fewstep.analysis import exact_flow
from fewstep.denoisers import Denoiser
from fewstep.grids import Grid
from fewstep.paths import Path
from fewstep.solvers import Solver
from fewstep.worlds import GaussianMixture


@cache
def twenty_modes() -> GaussianMixture:
    """Twenty unequal modes in 64 dimensions, each with its own spread along four directions."""
    generator = torch.Generator().manual_seed(0)
    means = 0.6 * torch.randn(20, 64, dtype=torch.float64, generator=generator)
    basis = torch.linalg.qr(torch.randn(20, 64, 4, dtype=torch.float64, generator=generator))[0]
    spread = 0.3 * torch.rand(20, 4, dtype=torch.float64, generator=generator)
    weights = torch.rand(20, dtype=torch.float64, generator=generator) + 0.2
    return GaussianMixture(weights, means, torch.full((20, 1), 0.01), basis, spread)


@cache
def _start_and_end(path: Path, samples: int, begin: float) -> tuple[Tensor, Tensor]:
    denoiser = twenty_modes().denoiser(path)
    generator = torch.Generator().manual_seed(1)
    start = float(path.sigma(begin)) * torch.randn(samples, 64, dtype=torch.float64, generator=generator)
    return start, exact_flow(denoiser, start, begin, 0.0, tolerance=1e-8)


def flow_error(
    path: Path, solver: str | Solver, evaluations: int, grid: str | Grid = "logsnr", samples: int = 128
) -> float:
    """The median over samples of the RMSE to the exact flow, on `twenty_modes`, at a number of evaluations."""
    start, exact = _start_and_end(path, samples, 1.0)
    plan = make_plan(path, solver, grid, evaluations=evaluations)
    return rmse(twenty_modes().denoiser(path), plan, start, exact)


def rmse(denoiser: Denoiser, plan: object, start: Tensor, exact: Tensor) -> float:
    """The median over samples of the root-mean-square difference between a plan's end and the exact one."""
    x = sample(denoiser, start=start, plan=plan).x  # type: ignore[arg-type]
    return float((x - exact).flatten(1).square().mean(1).sqrt().median())
