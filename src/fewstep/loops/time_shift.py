"""Time-Shift sampling: between steps each state is taken for that of the time which its own variance speaks of.

After a step of any solver from τ_i to the grid's t_{i+1} (Li et al. 2024),

    τ_{i+1} = argmin |Var(x) − σ²(τ)|  over  |τ − t_{i+1}| ≤ window/2,      Var(x) = Σ_p (x_p − mean x)²/(d − 1),

while t_{i+1} > cutoff, else τ_{i+1} = t_{i+1}.  The network is told τ, and the next step starts there.  σ² rises with
t, so the argmin is the root of Var(x) = σ²(τ), clipped to the window, and to a third of the way to the grid's next
times, so that no step, over which a multistep solver extrapolates, becomes short.

Var(x) stands for σ² only where α²·Var(x₀) is small beside it, and its own spread is σ²√(2/d): this is for data of many
numbers, at the noisy times above the cutoff.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.grids import Grid
from fewstep.loops.base import Loop, Walk, refuse_state_guides
from fewstep.paths import Path
from fewstep.plan import Builder, Plan, Step
from fewstep.planning import make_plan
from fewstep.results import Stats
from fewstep.session import Session
from fewstep.solvers import solver_named

# No solver looks at more times than these before or after a step.
SEEN = 4
HALVINGS = 50


@method(
    name="time-shift",
    papers=["Alleviating Exposure Bias in Diffusion Models through Sampling with Shifted Time Steps"],
    arxiv="2305.15583", family="loops",
    summary="Any solver, but the network is told the time that the state's own variance speaks of.",
)  # fmt: skip
@dataclass(frozen=True)
class TimeShift(Loop):
    """A solver whose times are shifted to fit the states.

    Args:
        solver: the name of a solver that takes one row a grid interval.
        grid: the name of its grid.
        steps: its number of steps, at least 1.
        window: the width around a grid time in which its shift may lie, in [0, 1]; 0 is the solver itself.
        cutoff: the time below which nothing is shifted, in [0, 1].

    Raises:
        ArgumentError: a parameter out of its range.
    """

    solver: str = "ddim"
    grid: str | Grid = "uniform"
    steps: int = 10
    window: float = 0.03
    cutoff: float = 0.3

    def __post_init__(self) -> None:
        for name in ("window", "cutoff"):
            if not 0 <= getattr(self, name) <= 1:
                raise ArgumentError(f"{name} must lie in [0, 1], got {getattr(self, name)!r}")

    def opening(self, path: Path) -> Plan:
        """The solver's plan on the grid itself."""
        plan = make_plan(path, self.solver, self.grid, self.steps)
        if plan.steps != self.steps:
            raise ArgumentError(f"time-shift needs a solver with one row a grid interval; {self.solver!r} takes more")
        return plan

    def run(self, session: Session) -> tuple[Tensor, Plan, Stats]:
        """Steps from shifted times to the grid's; the plan has the times that each sample was given."""
        refuse_state_guides(session, "time-shift")
        walk, engine, x = Walk(session), solver_named(self.solver), session.start
        whole = session.program.plan
        times = whole.times[:, None].expand(-1, len(x))
        shifted, rows = [times[0]], []
        others: list[Tensor | None] = [None] * (len(whole.registers) - 1)
        if "one" in whole.registers:
            others[whole.registers.index("one") - 1] = torch.ones_like(x)
        for index in range(whole.steps):
            past = shifted[-SEEN:]
            here = torch.stack([*past, *times[index + 1 : index + 1 + SEEN]])
            plan = engine(walk.path, walk.place(here))
            row = len(past) - 1
            first, *others = walk.take(plan, x, others, range(row, row + 1), index - row, whole.steps)
            assert first is not None
            x = first
            rows.append(list(plan)[row])
            t = times[index + 1]
            if float(t[0]) > self.cutoff and self.window:
                before, after = times[index], times[index + 2]
                low = t - ((t - after) / 3).clamp_max(self.window / 2)
                high = t + ((before - t) / 3).clamp_max(self.window / 2)
                t = closest_time(walk.path, x.double().flatten(1).var(1).cpu(), low, high)
            shifted.append(t)
        source = {"solver": "time-shift", **asdict(self)}
        plan = _record(walk.path, walk.place(torch.stack(shifted)), whole.registers, rows, source)
        return x, plan, Stats(walk.evaluations, 0.0)


def closest_time(path: Path, variance: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The time in [low, high] whose σ² is closest to a variance; all float64 of one shape."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = path.sigma(middle).square() > variance
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2


def _record(path: Path, times: Tensor, registers: tuple[str, ...], rows: list[Step], source: dict[str, Any]) -> Plan:
    """The plan whose steps are `rows`, standing at the shifted times."""
    builder = Builder(times, registers)
    for index, row in enumerate(rows):
        here = range(index, index + 1)
        for slot, (register, t) in enumerate(row.asks):
            builder.ask(registers[register], t[None], here, slot)
        for to, entries in row.writes.items():
            for kind, number, value in entries:
                noise = f"noise{number}" if kind == "N" else number
                builder.add(registers[to], registers[number] if kind == "M" else noise, value[None], here)
    deviates = "time-shift takes the state after a step for that of another time"
    return Plan.build(path, builder, order=1, source=source, deviates=deviates)
