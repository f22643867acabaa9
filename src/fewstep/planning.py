"""From a solver's and a grid's name to a plan, or to the loop that runs without one."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import fields
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from fewstep.aliases import SAMPLERS, split
from fewstep.catalog import methods
from fewstep.errors import ArgumentError
from fewstep.grids import Grid, Levels, grid_named
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.results import Output
from fewstep.solvers import Solver, solver_named
from fewstep.solvers.tuned import auto_plan

# Steps and evaluations beyond it are a slip of the keyboard: the table alone would fill the memory.
MOST = 100_000
# What a loop is called with as `sample` is.
LOOP_OPTIONS = {"start", "cond", "guides", "seed", "first", "dtype", "device"}


def make_plan(
    path: Path,
    solver: str | Solver = "dpm-solver++",
    grid: str | Grid | Levels | Tensor | Sequence[float] | None = None,
    steps: int | None = None,
    *,
    evaluations: int | None = None,
    start: float = 1.0,
    model: str = "",
) -> Plan:
    """The plan of a solver on a grid.

    Args:
        path: the path of the denoiser.
        solver: a name of the catalogue or of another tool ("DPM++ 2M Karras"), or a solver; "auto" is the shipped tuned
            plan for these evaluations, on its own grid, or UniPC where none fits.
        grid: a name, a grid, or the times themselves, falling: (steps + 1,) or (steps + 1, *place); or, by `Levels`,
            a list in σ, in λ or in a network's timesteps; "logsnr" unless given.
        steps: the number of grid intervals, at least 1; not with a list of times.
        evaluations: the number of evaluations that may be spent instead; the most steps that fit are taken.
        start: the first time, in (0, 1].
        model: the name of a shipped model, whose own tuned plans "auto" prefers.

    Raises:
        ArgumentError: an unknown name, both or neither of steps and evaluations, a number out of its range.
        PlanError: the solver's table is not consistent on this grid.
    """
    if not isinstance(path, Path):
        raise ArgumentError(f"path must be a path such as VP() or Flow(), got {path!r}")
    if solver == "auto":
        if (steps is None) == (evaluations is None) or grid is not None or start != 1:
            raise ArgumentError("solver='auto' takes one of steps and evaluations; it has its own grid from t = 1")
        made = auto_plan(path, steps if steps is not None else evaluations or 0, model)
        if made is not None:
            return made
        solver = "unipc"
    if isinstance(solver, str):
        solver, grid = named(solver, grid)
    grid = "logsnr" if grid is None else grid
    plain = isinstance(start, (int, float)) and all(isinstance(v, (int, type(None))) for v in (steps, evaluations))
    if isinstance(solver, str) and isinstance(grid, str) and plain and _comparable(path):
        known = _known(path, solver, grid, steps, evaluations, start)
        # Its tables are never changed; what is said of where it came from may be.
        own = copy(known)
        object.__setattr__(own, "source", dict(known.source))
        return own
    return _made(path, solver, grid, steps, evaluations, start)


def named(solver: str, grid: Any) -> tuple[str, Any]:
    """A solver's name and grid as ours, where another tool's name such as "DPM++ 2M Karras" says both.

    Raises:
        ArgumentError: the name says a grid, and another is given.
    """
    found = None if solver in _solvers() else split(solver)
    if found is None:
        return solver, grid
    sampler, its = found
    if its is not None and grid is not None and not (isinstance(grid, str) and grid == its):
        raise ArgumentError(f"solver={solver!r} names the grid {its!r} itself; leave grid={grid!r} out")
    ours, parameters = SAMPLERS[sampler]
    return sampler if parameters else ours, its if grid is None else grid


@cache
def _solvers() -> frozenset[str]:
    return frozenset(m.name for m in methods())


def _comparable(path: Path) -> bool:
    """Whether equal means the same: a path of numbers alone."""
    return all(isinstance(getattr(path, f.name), (int, float, str, tuple)) for f in fields(path))  # type: ignore[arg-type]


@lru_cache(maxsize=64, typed=True)
def _known(path: Path, solver: str, grid: str, steps: Any, evaluations: Any, start: Any) -> Plan:
    """`_made`, kept: by far the most of a small network's first run would be planning again."""
    with torch.inference_mode(False):
        return _made(path, solver, grid, steps, evaluations, start)


def _made(path: Path, solver: Any, grid: Any, steps: int | None, evaluations: int | None, start: float) -> Plan:
    source: dict[str, Any] = {"solver": solver if isinstance(solver, str) else type(solver).__name__}
    engine = solver_named(solver) if isinstance(solver, str) else solver
    if not callable(engine) or not all(hasattr(engine, name) for name in ("order", "stochastic")):
        raise ArgumentError(f"solver must be a name or a solver (see CONTRIBUTING.md), got {solver!r}")
    told = "given"
    if isinstance(grid, Levels):
        grid, told = grid.times(path), f"given in {grid.unit}"
    if not isinstance(grid, str) and not callable(grid):
        if steps is not None or evaluations is not None:
            raise ArgumentError("a grid given as times has its own number of steps; leave steps and evaluations out")
        return engine(path, _times(grid), {**source, "grid": told})
    source["grid"] = grid if isinstance(grid, str) else type(grid).__name__
    make = grid_named(grid) if isinstance(grid, str) else grid
    if (steps is None) == (evaluations is None):
        raise ArgumentError(f"give one of steps and evaluations, got steps={steps} and evaluations={evaluations}")
    for name, value in (("steps", steps), ("evaluations", evaluations)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST):
            raise ArgumentError(f"{name} must be an integer of at least 1 and at most {MOST}, got {value!r}")
    if not isinstance(start, (int, float)) or not 0 < start <= 1:
        raise ArgumentError(f"start must lie in (0, 1], got {start!r}")
    if steps is not None:
        return engine(path, make(path, steps, start), source)
    return _most_steps(lambda n: engine(path, make(path, n, start), source), evaluations or 1)


def _times(grid: Tensor | Sequence[float]) -> Tensor:
    times = torch.as_tensor(grid, dtype=torch.float64)
    if times.ndim < 1 or len(times) < 2:
        raise ArgumentError(f"a grid of times needs at least two, got {times.tolist()}")
    if not times.isfinite().all() or times.min() < 0 or times.max() > 1:
        raise ArgumentError(f"times must lie in [0, 1], got {times.tolist()}")
    falls = times[1:] <= times[:-1]
    if not falls.all() or (times.ndim == 1 and not (times[1:] < times[:-1]).all()):
        raise ArgumentError("times must fall; in a grid with one time a place they may stand still")
    return times


def _most_steps(make: Callable[[int], Plan], evaluations: int) -> Plan:
    for steps in range(evaluations, 0, -1):
        plan = make(steps)
        if plan.evaluations <= evaluations:
            return plan
    raise ArgumentError(f"evaluations={evaluations} is fewer than one step costs, {plan.evaluations}")


def loop_asked(options: dict[str, Any]) -> Callable[..., Output] | None:
    """The loop that `solver` is or names, made with `grid` and `steps`; all three are taken out of the options.

    Args:
        options: of `sample`; what is left in them is what the loop is called with.

    Returns:
        None, and the options untouched, where `solver` is no loop of the catalogue.

    Raises:
        ArgumentError: an option that this loop does not take.
    """
    asked = options.get("solver")
    kind = (type(asked).__module__, type(asked).__name__)
    row = next(
        (m for m in methods() if m.family == "loops" and (asked == m.name or kind == (m.module, m.symbol))), None
    )
    if row is None:
        return None
    # Loops lie above this module; a name of the catalogue says where.
    made = getattr(import_module(row.module), row.symbol)
    own = {f.name for f in fields(made)}
    settable = own & {"grid", "steps"} if isinstance(asked, str) else set()
    taken = {key for key, value in options.items() if value is not None} - {"solver"}
    if not taken <= settable | LOOP_OPTIONS:
        raise ArgumentError(
            f"{row.name!r} is a loop and takes no {', '.join(sorted(taken - settable - LOOP_OPTIONS))} here; its own "
            f"parameters are {', '.join(sorted(own))}: fewstep.loops.loop_named({row.name!r}, …)(denoiser, …)"
        )
    given = {key: options[key] for key in settable & taken}
    for key in set(options) - LOOP_OPTIONS:
        del options[key]
    chosen: Any = made(**{**dict(row.arguments), **given}) if isinstance(asked, str) else asked
    loop: Callable[..., Output] = chosen
    return loop
