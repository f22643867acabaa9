"""The mixtures that claims of tuners are measured on; no tuning of ours saw them."""

from functools import cache
from typing import Any

from torch import Tensor

from fewstep import make_plan
from fewstep.paths import Path
from fewstep.tuning.descent import mixtures
from fewstep.tuning.problem import Problem


@cache
def world(path: Path, which: int, samples: int = 64) -> tuple[Any, Tensor, Tensor]:
    """(denoiser, starts, ends): 0, 1 and 2 have 20 modes, from overlapping to separated, 3 has scales like pictures."""
    return mixtures(path, 8, samples)[which]


def mixture_errors(path: Path, solver: str, grid: str, steps: int, which: int, samples: int = 64) -> float:
    """The error of a solver on a grid, as `tune` measures it: RMSE to the flow, sliced W2 of plans with noise."""
    denoiser, start, ends = world(path, which, samples)
    return Problem(denoiser, steps).error(make_plan(path, solver, grid, steps), start, ends)
