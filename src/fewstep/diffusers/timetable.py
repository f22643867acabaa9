"""A plan as a pipeline walks through it: one timestep for every evaluation.

A pipeline asks its network at the latents that it holds, calls `step` with the answer and gets new latents.  So the
latents between two evaluations are the register that the next one is asked at: the state x, or a stage of a step with
several evaluations.  Several independent asks of one step come one after another.  Rows without an evaluation follow
the row before them at once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.denoisers import Denoiser
from fewstep.diffusers.conventions import Convention
from fewstep.errors import ArgumentError
from fewstep.paths import change_of_basis
from fewstep.plan import Plan
from fewstep.program import Program
from fewstep.rows import Row

AT_THE_BEGINNING = 10**9


class _Silent(Denoiser):
    """Stands for a network that is asked elsewhere; it answers with x̂₀, so that nothing is folded."""

    def raw(self, x: Tensor, told: Tensor, **cond: object) -> Tensor:
        raise AssertionError("the pipeline asks the network, not the plan")


@dataclass(frozen=True)
class Entry:
    """One evaluation: the row it belongs to, whether it is the row's last, what is asked, and x̂₀ = on_x·x + on_raw·raw.

    Args:
        row: the number of the plan's row.
        last: whether the row is taken after it.
        register: the register that is asked.
        t: the time of that register.
        told: what the network is told, as float32 holds it.
        on_x, on_raw: the change of basis.
    """

    row: int
    last: bool
    register: int
    t: float
    told: float
    on_x: float
    on_raw: float


class Timetable:
    """The evaluations of a plan in order, what a pipeline reads of them, and where it may begin.

    Args:
        plan: the plan.
        convention: how the model was trained.

    Raises:
        ArgumentError: a plan that no pipeline can run, and why.
    """

    def __init__(self, plan: Plan, convention: Convention) -> None:
        if plan.place:
            raise ArgumentError("a pipeline tells its network one time for all; this plan has several")
        if plan.path != convention.path:
            raise ArgumentError(
                f"the plan is for a path {plan.path!s:.60} …, the pipeline's model lives on {convention.path!s:.60} …"
            )
        if not len(plan.asks) or plan.asks[0].tolist() != [0, 0]:
            raise ArgumentError("a pipeline asks its network at the first latents; this plan does something else first")
        program = Program(plan, _Silent(plan.path, (1,)))
        self.plan, self.rows, self.restarts = plan, program.rows, program.restarts
        on_x, on_raw = change_of_basis(plan.path, plan.ask_times, convention.predicts, "x0")
        if not (on_x.isfinite().all() and on_raw.isfinite().all()):
            raise ArgumentError(
                f"the network predicts {convention.predicts}, which does not tell x̂₀ at every time of the plan: "
                "start the grid below t = 1"
            )
        told = convention.told(plan.ask_times)
        whole = bool((told == told.round()).all()) and not convention.flows
        self.timesteps = told.round().long() if whole else told.float()
        steps = plan.asks[:, 0].tolist()
        last = [before != after for before, after in zip(steps, [*steps[1:], None], strict=True)]
        columns = (plan.ask_times, self.timesteps, on_x, on_raw)
        self.entries = [
            Entry(row, final, register, *numbers)
            for (row, register), final, *numbers in zip(
                plan.asks.tolist(), last, *(column.tolist() for column in columns), strict=True
            )
        ]
        self.sigmas = convention.level(torch.cat([plan.ask_times, plan.times[-1:]])).float()
        self.starts = [i for i in range(len(self.entries)) if self._may_begin(i)]

    def rows_after(self, jump: int) -> list[Row]:
        """The rows that hold when `jump` steps were taken since the state was put there."""
        return self.restarts[jump] if jump < len(self.restarts) else self.rows

    @property
    def order(self) -> int:
        """Evaluations from one place where the run may begin to the next; 1 where they are not evenly apart."""
        gaps = {after - before for before, after in zip(self.starts, self.starts[1:], strict=False)}
        return gaps.pop() if len(gaps) == 1 else 1

    @property
    def counts(self) -> set[int]:
        """What a pipeline may call its number of steps: intervals between its times, places to begin, evaluations."""
        return {len(self.plan.times.unique()) - 1, len(self.starts), len(self.entries)}

    def _may_begin(self, at: int) -> bool:
        """Whether a run that begins at evaluation `at` with x alone never needs a register that nobody wrote.

        A restart's rows hand down also what they never look at: a register made of unwritten ones is as unwritten.
        """
        first = self.entries[at]
        if at == 0:
            return True
        if self.entries[at - 1].row == first.row or first.register or first.t != float(self.plan.times[first.row]):
            return False
        names = self.plan.registers
        known = {0, *(i for i, name in enumerate(names) if name == "one")}
        for jump, index in enumerate(range(first.row, len(self.rows))):
            row = self.rows_after(jump)[index]
            asked = [q.register for q in row.questions]
            if asked != [q.register for q in self.rows[index].questions] or not known >= set(asked):
                return False
            made = {to for to, terms in row.writes if known >= {source for source, _ in terms if source < len(names)}}
            known = (known - {to for to, _ in row.writes}) | made
            if 0 not in known:
                return False
            if len(known) == len(names) and jump >= len(self.restarts):
                break
        return True
