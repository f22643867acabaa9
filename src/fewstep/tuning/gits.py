"""GITS: the grid along which Euler's steps leave the trajectories least, found by dynamic programming.

In x/α and ρ = σ/α, with the states x_i of a teacher at many levels ρ_0 > … > ρ_{n−1} and d_i = (x_i − x̂₀_i)/ρ_i, one
jump from level i to level j lands at x̃_j = x_i + (ρ_j − ρ_i)·d_i.  Its cost is

    c_ij = E[dev(x̃_j) − dev(x_j)]     metric "dev": dev is the distance from the chord between a trajectory's ends
    c_ij = E‖x̃_j − x_j‖               metrics "l1" and "l2"

and the grid of K steps is the cheapest way from 0 to n − 1, later jumps weighted by more:

    V(j, 1) = c_{j,n−1},      V(j, k) = min over i of c_ji + γ·V(i, k−1).

Trajectories of a model all bend alike, so that a few hundred noises suffice for all.  Which metric and γ are best
depends on the model, the solver and the number of steps; unless they are given, all of some are tried, and the grid is
taken whose ends are nearest to the teacher's.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.sampling import stream
from fewstep.tuning.levels import intervals, karras_levels, plan_on, times_of, top_level
from fewstep.tuning.pairs import nearest
from fewstep.tuning.problem import Problem, Tuner

METRICS = ("dev", "l1", "l2")
# What is tried, the published first.
TRIED, GAMMAS = ("dev", "l2"), (1.15, 1.0, 1.3, 0.8, 0.9, 1.1, 1.2, 1.5)


def deviation(points: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """The distance of points (…, d) from the line through `first` and `last` (…, d)."""
    chord = last - first
    off = points - first
    along = (off * chord).sum(-1, keepdim=True) / chord.square().sum(-1, keepdim=True)
    return (off - along * chord).norm(dim=-1)


def jump_costs(levels: Tensor, states: Tensor, answers: Tensor, metric: str = "dev") -> Tensor:
    """c_ij of one Euler jump between any two levels, i < j; ∞ elsewhere.

    Args:
        levels: ρ, (n,), falling.
        states: x/α at the levels, (n, batch, d).
        answers: x̂₀ at all levels but the last, (n − 1, batch, d).
        metric: "dev", "l1" or "l2".
    """
    n = len(levels)
    costs = torch.full((n, n), float("inf"), dtype=torch.float64)
    own = deviation(states, states[0], states[-1])
    for i in range(n - 1):
        slope = (states[i] - answers[i]) / levels[i]
        landed = states[i] + (levels[i + 1 :] - levels[i])[:, None, None] * slope
        if metric == "dev":
            costs[i, i + 1 :] = (deviation(landed, states[0], states[-1]) - own[i + 1 :]).mean(1)
        else:
            costs[i, i + 1 :] = (landed - states[i + 1 :]).norm(p=int(metric[1]), dim=-1).mean(1)
    return costs


def cheapest_way(costs: Tensor, steps: int, gamma: float = 1.0) -> list[int]:
    """The nodes of the cheapest way of so many jumps from the first node to the last.

    Args:
        costs: (n, n), c_ij for i < j.
        steps: from 1 to n − 1.
        gamma: how much more each later jump counts.

    Raises:
        ArgumentError: no way has so many jumps.
    """
    n = len(costs)
    if not 1 <= steps < n:
        raise ArgumentError(f"between {n} nodes a way has 1 to {n - 1} jumps, got {steps}")
    best, chosen = costs[:, -1], list[Tensor]()
    for _ in range(steps - 1):
        whole = costs + gamma * best[None, :]
        found = whole.min(1)
        best, chosen = found.values, [found.indices, *chosen]
    way = [0]
    for nexts in chosen:
        way.append(int(nexts[way[-1]]))
    return [*way, n - 1]


@method(
    name="gits",
    papers=["On the Trajectory Regularity of ODE-based Diffusion Sampling"],
    arxiv="2405.11326", family="tuning",
    summary="The grid along which Euler's jumps leave the model's trajectories least, by dynamic programming.",
)  # fmt: skip
@dataclass(frozen=True)
class Gits(Tuner):
    """A solver on the grid that GITS finds.

    Args:
        solver: of the catalogue; the costs are Euler's whatever it is.
        nodes: of the teacher's grid, Karras' with power 7, at least 3.
        gamma: how much more each later jump counts, more than 0; 1.15 as published, 1.1 to 1.2 for text-to-image.
            Unless given, eight from 0.8 to 1.5 are tried, as far as the budget goes, each by a run.
        metric: "dev" (as published), "l1" or "l2".  Unless given, the first and the last are tried.
        teacher: the solver that makes the trajectories, one evaluation a step.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    solver: str = "ipndm"
    nodes: int = 61
    gamma: float | None = None
    metric: str | None = None
    teacher: str = "ipndm"

    def __post_init__(self) -> None:
        if not isinstance(self.nodes, int) or self.nodes < 3:
            raise ArgumentError(f"nodes must be an integer of at least 3, got {self.nodes!r}")
        if self.gamma is not None and not 0 < self.gamma < float("inf"):
            raise ArgumentError(f"gamma must be more than 0, got {self.gamma!r}")
        if self.metric is not None and self.metric not in METRICS:
            raise ArgumentError(f"metric must be one of {METRICS}, got {self.metric!r}")

    def __call__(self, problem: Problem) -> Plan:
        """The plan; a run of the teacher is spent, and one for every grid that is tried."""
        path = problem.denoiser.path
        steps = intervals(path, self.solver, problem.evaluations)
        levels = karras_levels(path, self.nodes)
        problem.tell(f"the teacher's {self.nodes - 1} steps")
        seen = problem.once("teacher", lambda: self._trajectories(problem, levels))
        ways: list[list[int]] = []
        for metric in TRIED if self.metric is None else (self.metric,):
            costs = jump_costs(levels, seen["states"], seen["answers"], metric)
            for gamma in GAMMAS if self.gamma is None else (self.gamma,):
                way = cheapest_way(costs, steps, gamma)
                ways += [way] if way not in ways else []
        plans = [plan_on(path, self.solver, levels[way]) for way in ways]
        ends = seen["states"][-1].unflatten(1, problem.denoiser.shape)
        return plans[nearest(problem, plans, problem.starts(problem.samples, part=1), ends)]

    def _trajectories(self, problem: Problem, levels: Tensor) -> dict[str, Any]:
        """x/α at all levels and x̂₀ at all but the last, flattened."""
        path, n = problem.denoiser.path, problem.samples
        # Where α(1) = 0, x/α is infinite: the trajectories begin at the first level.
        times = times_of(path, levels, end=False)
        times[0] = path.t_of_lam(-torch.tensor(top_level(path), dtype=torch.float64).log())
        start = problem.starts(n, part=1) / path.sigma(1.0) * path.sigma(times[0])
        plan = make_plan(path, self.teacher, times)
        states, answers = [start / path.alpha(times[0])], []
        for event in stream(problem.denoiser, start=start, plan=plan, cond=problem.condition(n), guides=problem.guides):
            answers.append(event.x0.double())
            states.append(event.x / path.alpha(event.t))
            spent = event.evaluations
        problem.spent += spent * n
        return {"states": torch.stack(states).flatten(2), "answers": torch.stack(answers).flatten(2)}

    def least(self, problem: Problem) -> int:
        """The teacher's run."""
        return (self.nodes - 1) * problem.samples * (1 + sum(g.extra() for g in problem.guides))

    def untuned(self, problem: Problem) -> Plan:
        """The same solver on Karras' grid."""
        return make_plan(problem.denoiser.path, self.solver, "karras", evaluations=problem.evaluations)
