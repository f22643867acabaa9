"""A teacher's states at a student's times, and a student that is tuned row by row on the way.

A teacher is a plan on a finer grid that holds all of the student's times; both start at the same noises.
"""

from dataclasses import replace

import torch
from torch import Tensor

from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.program import Run
from fewstep.sampling import sample
from fewstep.session import prepare
from fewstep.tuning.problem import Problem


def refined(path: Path, times: Tensor, pieces: int) -> Tensor:
    """The grid with every interval cut in so many pieces, even in λ, or in t where λ is infinite at an end.

    Args:
        path: gives λ.
        times: float64 (steps + 1,), falling.
        pieces: at least 1.

    Returns:
        float64 (steps·pieces + 1,); every `pieces`-th time is one of `times`.
    """
    share = torch.arange(pieces, dtype=torch.float64)[None] / pieces
    first, last = times[:-1, None], times[1:, None]
    even = first + share * (last - first)
    low, high = path.lam(first), path.lam(last)
    finite = low.isfinite() & high.isfinite()
    inner = path.t_of_lam(torch.where(finite, low + share * (high - low), 0.0))
    cut = torch.where(finite & (share > 0), inner, even)
    return torch.cat([cut.flatten(), times[-1:]])


def rows_lead(plan: Plan) -> tuple[Tensor, list[int], list[int]]:
    """Where each row of a plan leads: the times of a teacher for it, each row's place among them, and its register.

    A row leads to what the next answer is asked for, the last to x at the plan's end.
    """
    ends = torch.cat([plan.ask_times[1:], plan.times[-1:]])
    times = torch.cat([plan.times[:1], ends]).unique(sorted=True).flip(0)
    places = [int((times == end).nonzero()[0]) for end in ends]
    return times, places, [*plan.asks[1:, 1].tolist(), 0]


def taught(problem: Problem, solver: str, times: Tensor, start: Tensor, pieces: int) -> Tensor:
    """A solver's states at `times` on the grid that is `pieces` times finer; its evaluations are counted.

    Returns:
        (steps + 1, batch, *shape).
    """
    path = problem.denoiser.path
    plan = make_plan(path, solver, refined(path, times, pieces))
    cond = problem.condition(len(start))
    out = sample(problem.denoiser, start=start, plan=plan, cond=cond, guides=problem.guides, keep="trajectory")
    problem.spent += out.stats.evaluations * len(start)
    assert out.trajectory is not None
    rows = [0]
    for i, t in enumerate(plan.times[1:].tolist(), 1):  # a solver of several rows a step is at a time more than once
        if len(rows) <= len(times) - 1 and t == float(times[len(rows)]):
            rows.append(i)
        elif t == float(times[len(rows) - 1]):
            rows[-1] = i
    return out.trajectory[rows]


class Prefix:
    """A run of a plan as far as some row, from which candidates for the rows after it go on.

    Args:
        problem: the model.
        start: (batch, *shape), the noises.
    """

    def __init__(self, problem: Problem, start: Tensor) -> None:
        self.problem, self.start = problem, start
        self.row, self._run = 0, None  # type: int, Run | None

    def go(self, plan: Plan, to: int, grad: bool = False) -> tuple[Run, Tensor]:
        """The run before row `to`, as a plan with the same registers goes on from here; and the last answer x̂₀.

        The prefix itself does not move.
        """
        problem = self.problem
        cond = problem.condition(len(self.start))
        session = prepare(problem.denoiser, None, start=self.start, plan=plan, guides=problem.guides, cond=cond)
        run = session.program.start(self.start, session.cond, session.noise)
        if self._run is not None:
            kept = self._run
            run = replace(kept, registers=list(kept.registers), memories=list(kept.memories), sums=[])
        before = run.evaluations
        with torch.set_grad_enabled(grad):
            for row in range(self.row, to):
                session.program.step(run, row)
            answer = session.program.preview(run)
        problem.spent += (run.evaluations - before) * len(self.start)
        return run, answer

    def move(self, plan: Plan, to: int) -> None:
        """Go on to before row `to` for good."""
        if to > self.row:
            self.keep(self.go(plan, to)[0], to)

    def keep(self, run: Run, to: int) -> None:
        """Stand from now on where a run stands, before row `to`."""
        self._run, self.row = run, to

    def register(self, index: int) -> Tensor:
        """A register as it stands."""
        assert self._run is not None
        value = self._run.registers[index]
        assert value is not None
        return value

    @staticmethod
    def asked(run: Run) -> Tensor:
        """The state that the last answer was for."""
        assert run.answer is not None
        return run.answer[0]

    @staticmethod
    def state(run: Run) -> Tensor:
        """The register x of a run."""
        x = run.registers[0]
        assert x is not None
        return x
