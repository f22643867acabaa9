"""Grids as noise levels ρ = σ/α = e^{−λ}, and plans on them; what tuners of a grid share.

In x/α and ρ every path is the variance-exploding one, so that one rule in ρ serves all.
"""

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan

RHO_MIN, RHO_MAX = 0.002, 80.0


def intervals(path: Path, solver: str, evaluations: int) -> int:
    """The most grid intervals that a solver takes with so many evaluations.

    Raises:
        ArgumentError: not even one interval can be paid for.
    """
    for n in range(evaluations, 0, -1):
        if make_plan(path, solver, "logsnr", n).evaluations <= evaluations:
            return n
    raise ArgumentError(f"evaluations={evaluations} is fewer than one step of {solver!r} costs")


def top_level(path: Path) -> float:
    """ρ where sampling begins, at most `RHO_MAX` on a path that begins with less or no data."""
    return min(float(torch.exp(-path.lam(1.0))), RHO_MAX)


def karras_levels(path: Path, count: int, power: float = 7.0, bottom: float = RHO_MIN) -> Tensor:
    """Levels (count,) from the path's first down to `bottom`, evenly spaced in their 1/power-th power."""
    share = torch.linspace(0, 1, count, dtype=torch.float64)
    top = top_level(path) ** (1 / power)
    return (top + share * (bottom ** (1 / power) - top)) ** power


def times_of(path: Path, levels: Tensor, end: bool = True) -> Tensor:
    """The times of falling levels: the first is t = 1, and with `end` the last stands for t = 0."""
    times = path.t_of_lam(-levels.log())
    times[0] = 1.0
    if end:
        times[-1] = 0.0
    return times


def plan_on(path: Path, solver: str, levels: Tensor) -> Plan:
    """The plan of a solver on falling levels (n + 1,), the last of which stands for the data themselves."""
    return make_plan(path, solver, times_of(path, levels))
