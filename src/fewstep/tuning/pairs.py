"""Noises and the ends that the model's flow takes them to: what most losses of a tuner compare."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.plan import Plan
from fewstep.tuning.problem import Problem


def rows_of(problem: Problem, rows: Sequence[int]) -> Problem:
    """The problem of some of the noises alone: their conditions, and nothing spent yet."""
    cond = problem.condition(max(rows) + 1)
    picked = {
        k: v[torch.as_tensor(rows)] if isinstance(v, Tensor) else [v[i] for i in rows] if isinstance(v, list) else v
        for k, v in cond.items()
    }
    return replace(problem, cond=picked, spent=0, checkpoint=None, state={}, history=[])


def nearest(problem: Problem, plans: Sequence[Plan], start: Tensor, ends: Tensor) -> int:
    """Which of some plans leads nearest to the ends, by the geometric mean over noises of the RMSE.

    They are run in turn as far as the budget goes, and what they gave is kept; a single one is not run.
    """
    errors: list[float] = list(problem.state.get("errors", []))
    for plan in plans[len(errors) :] if len(plans) > 1 else ():
        if not problem.left(problem.run_cost(plan.evaluations, len(start))):
            break
        errors.append(float(off(problem.run(plan, start), ends)))
        problem.record(min(errors))
        problem.keep(errors=errors)
    return errors.index(min(errors)) if errors else 0


def off(x: Tensor, ends: Tensor) -> Tensor:
    """The geometric mean over samples of the RMSE, which one sample far off does not decide."""
    return (x - ends).flatten(1).square().mean(1).add(1e-14).sqrt().log().mean().exp()


class Pairs:
    """Noises and the ends that the model's flow takes them to, dealt out in random batches.

    Args:
        problem: whose first `problem.samples` noises of part 1 they are.
        batch: noises at a time.

    Raises:
        ArgumentError: a batch of more noises than the problem has.
    """

    def __init__(self, problem: Problem, batch: int) -> None:
        if problem.samples < batch:
            raise ArgumentError(f"samples must be at least {batch}, got {problem.samples}")
        self.problem, self.batch = problem, batch
        self.start, self.ends = problem.pairs(problem.samples, part=1)
        self.generator = torch.Generator().manual_seed(problem.seed)

    @property
    def options(self) -> dict[str, Any]:
        """What `descend` is told, so that the batches go on after a kill and the last point of a noisy loss is kept."""
        problem = self.problem
        noisy = self.batch < len(self.start)
        cost = problem.run_cost(problem.evaluations, self.batch)
        more = partial(problem.left, cost)
        return {"problem": problem, "generator": self.generator, "more": more, "keep_best": not noisy}

    def affordable(self, rounds: int) -> int:
        """So many rounds of a batch, or as many as the budget pays for."""
        each = self.problem.run_cost(self.problem.evaluations, self.batch)
        return self.problem.affordable("batches", rounds, each)

    @staticmethod
    def least(problem: Problem, batch: int) -> int:
        """What the flow's ends and one batch cost."""
        return problem.pairs_cost(problem.samples) + problem.run_cost(problem.evaluations, batch)

    def ran(self, plan: Plan) -> tuple[Tensor, Tensor]:
        """Where a plan takes the next batch, with gradients, and where the flow does."""
        pick = torch.randperm(len(self.start), generator=self.generator)[: self.batch]
        part = rows_of(self.problem, pick.tolist())
        x = part.run(plan, self.start[pick], grad=True)
        self.problem.spent += part.spent
        return x, self.ends[pick]

    def error(self, plan: Plan) -> Tensor:
        """The mean RMSE of the next batch, with gradients."""
        x, ends = self.ran(plan)
        return (x - ends).flatten(1).square().mean(1).add(1e-14).sqrt().mean()
