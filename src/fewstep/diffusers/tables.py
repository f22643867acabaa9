"""The timetables of a scheduler: one for every number of steps or grid that pipelines asked of it."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from fewstep.diffusers.asked_grid import count_of
from fewstep.diffusers.conventions import Convention
from fewstep.diffusers.timetable import Timetable
from fewstep.errors import ArgumentError
from fewstep.plan import Plan
from fewstep.plan.files import loads
from fewstep.planning import make_plan

# A server of pictures of many sizes asks for as many grids.
MOST_KEPT = 64


class Tables:
    """What a scheduler's config holds, as timetables; threads share it.

    Args:
        config: solver, grid, steps and plan as `PlanScheduler` has them.
        convention: how the model was trained.

    Raises:
        ArgumentError: a plan that no pipeline can run, or steps that are no number of steps.
    """

    def __init__(self, config: Mapping[str, Any], convention: Convention) -> None:
        self.solver, self.grid, self.steps = (config[key] for key in ("solver", "grid", "steps"))
        self.convention = convention
        self.kept: dict[Any, Timetable] = {}
        self.plan = None if config["plan"] is None else loads(config["plan"])
        if self.plan is not None:
            self._fixed()
        elif self.steps is not None and not convention.dynamic:
            self.table(count_of(self.steps), None, None)

    def table(self, steps: int | None, grid: Tensor | None, mu: float | None) -> Timetable:
        """The timetable for a number of steps or a grid, and the resolution's shift where the model has one.

        Raises:
            ArgumentError: another number or a grid where the scheduler holds one plan, or was made for one number.
        """
        asked = "a grid" if grid is not None else f"num_inference_steps={steps}"
        if self.plan is not None or isinstance(self.grid, list):
            table = self._fixed()
            if grid is not None or steps not in table.counts:
                counts = " or ".join(map(str, sorted(table.counts)))
                raise ArgumentError(f"this scheduler holds one plan of {counts} steps, got {asked}")
            return table
        if self.steps is not None and steps != self.steps:
            raise ArgumentError(f"this scheduler was made for num_inference_steps={self.steps}, got {asked}")
        key = (steps, None if grid is None else tuple(grid.tolist()), mu)
        return self._kept(key, lambda: self._made(steps, grid, mu))

    def _fixed(self) -> Timetable:
        return self._kept("fixed", lambda: self.plan or make_plan(self.convention.path, self.solver, self.grid))

    def _kept(self, key: Any, make: Callable[[], Plan]) -> Timetable:
        table = self.kept.get(key)
        if table is None:
            table = self.kept[key] = Timetable(make(), self.convention)
            for old in list(self.kept)[:-MOST_KEPT]:
                self.kept.pop(old, None)
        return table

    def _made(self, steps: int | None, grid: Tensor | None, mu: float | None) -> Plan:
        path, flows = self.convention.path, self.convention.flows
        if self.solver == "auto":
            if grid is not None or self.grid is not None:
                raise ArgumentError("solver='auto' has its own grid: give a number of steps alone")
            return make_plan(path, "auto", steps=steps)
        if grid is None:
            name = self.grid or ("uniform" if flows else "trailing")
            grid = self.convention.shifted(make_plan(path, "euler", name, steps).times, mu)
        return make_plan(path, self.solver, grid)
