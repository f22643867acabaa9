"""From a pipeline and the names of a solver and a grid to its scheduler."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.diffusers.plan_scheduler import PlanScheduler
from fewstep.errors import ArgumentError
from fewstep.grids import grid_named
from fewstep.plan import Plan
from fewstep.plan.files import dumps
from fewstep.planning import make_plan, named
from fewstep.solvers import solver_named


def scheduler(
    pipe_or_config: Any,
    solver: Any = None,
    grid: Any = None,
    steps: int | None = None,
    plan: Plan | str | Path | None = None,
) -> PlanScheduler:
    """A diffusers scheduler that runs a plan, for the model of a pipeline.

    Args:
        pipe_or_config: a pipeline, its scheduler, or a scheduler's config: what the model was trained on.
        solver: a name of the catalogue or of another tool ("DPM++ 2M Karras"), "auto" for the shipped tuned plans, or a
            solver (which needs `steps` or a grid of times); "dpm-solver++" unless given.
        grid: a name, the times themselves, or a grid (which needs `steps`); None for the model's own.
        steps: the one number of steps that it takes; what the pipeline asks for unless given.
        plan: a plan, or the path of its file, instead of the three.

    Raises:
        ArgumentError: a config that cannot be matched, or an argument out of its range; with the reason.
    """
    old = getattr(pipe_or_config, "scheduler", pipe_or_config)
    config = getattr(old, "config", old)
    if not isinstance(config, Mapping):
        raise ArgumentError(f"give a pipeline, a scheduler or its config, got {type(pipe_or_config).__name__}")
    if old is not config:
        config = {**config, "_class_name": type(old).__name__}
    ours = {"solver": "dpm-solver++", "grid": None, "steps": None, "plan": None}
    if plan is not None:
        if solver is not None or grid is not None or steps is not None:
            raise ArgumentError("a plan has its own solver, grid and steps; leave them out")
        plan = Plan.load(str(plan)) if isinstance(plan, (str, Path)) else plan
        if not isinstance(plan, Plan):
            raise ArgumentError(f"plan must be a plan or the path of its file, got {plan!r}")
        return PlanScheduler.from_config(config, **{**ours, "plan": dumps(plan)})
    solver = "dpm-solver++" if solver is None else solver
    if isinstance(grid, (Tensor, np.ndarray, Sequence)) and not isinstance(grid, str):
        grid = torch.as_tensor(np.asarray(grid, dtype=np.float64)).tolist()
    if isinstance(solver, str):
        solver, grid = named(solver, grid)
        if solver != "auto":
            solver_named(solver)  # refuses an unknown name now, and not when the pipeline runs
    if isinstance(grid, str):
        grid_named(grid)
    if isinstance(solver, str) and (grid is None or isinstance(grid, (str, list))):
        return PlanScheduler.from_config(config, **{**ours, "solver": solver, "grid": grid, "steps": steps})
    base = PlanScheduler.from_config(config, **ours)
    known = base._convention
    if known.dynamic and not isinstance(grid, list):
        raise ArgumentError("this model's shift depends on the picture's size: name solver and grid, or give a plan")
    if not isinstance(grid, list):
        if steps is None:
            raise ArgumentError("a solver or a grid as an object cannot be saved by name: give steps too")
        name = grid or ("uniform" if known.flows else "trailing")
        grid = known.shifted(make_plan(known.path, "euler", name, steps).times, None)
    made = make_plan(known.path, solver, torch.as_tensor(grid, dtype=torch.float64))
    return PlanScheduler.from_config(config, **{**ours, "plan": dumps(made)})
