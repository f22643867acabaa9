"""The mixtures that claims of tuners are measured on; no tuning of ours saw them."""

from dataclasses import replace
from functools import cache
from typing import Any

from torch import Tensor

from fewstep import make_plan
from fewstep.paths import Path
from fewstep.tuning.problem import Problem, Tuner
from fewstep.tuning.random_mixtures import mixtures
from fewstep.tuning.settling import settled


@cache
def world(path: Path, which: int, samples: int = 64) -> tuple[Any, Tensor, Tensor]:
    """(denoiser, starts, ends): 0, 1 and 2 have 20 modes, from overlapping to separated, 3 has scales like pictures."""
    return mixtures(path, 8, samples)[which]


def mixture_errors(path: Path, solver: str, grid: str, steps: int, which: int, samples: int = 64) -> float:
    """The error of a solver on a grid, as `tune` measures it: RMSE to the flow, sliced W2 of plans with noise."""
    denoiser, start, ends = world(path, which, samples)
    return Problem(denoiser, steps).error(make_plan(path, solver, grid, steps), start, ends)


def tuned_errors(
    tuner: Tuner, problem: Problem, start: Tensor, ends: Tensor, evaluations: int
) -> tuple[float, float, float]:
    """The errors of a tuner's start, of what it found, and of what `tune` makes of both (`settling`)."""
    problem = replace(problem, evaluations=evaluations, state={}, history=[], spent=0)
    before, found = tuner.untuned(problem), tuner(problem)
    plans = before, found, settled(problem, before, found)[0]
    first, second, third = (problem.error(plan, start, ends) for plan in plans)
    return first, second, third


def told_gains(rows: list[tuple[int, float, float, float]]) -> str:
    """Errors before, as found and as settled, at some numbers of evaluations."""
    return ", ".join(f"{n}: {a:.3f} → {b:.3f} (settled {c:.3f})" for n, a, b, c in rows)
