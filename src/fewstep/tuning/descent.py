"""Descent on all that a multistep plan has to choose: the three methods of ours.

A plan with free nodes λ_i, weights on earlier answers and scales of states (`free_multistep`) is differentiable from
end to end, so its error can be descended: on Gaussian data in closed form (*spectral*: no network, no sampling), on
random mixtures whose flow is exact (*worlds*: no network), or on the model's own trajectories (*trajectory*: through
the network).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from fewstep.analysis.gaussian import gaussian_w2
from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.solvers.free_multistep import Table, free_multistep, stretch_of, table_of
from fewstep.solvers.tuned import near_tables
from fewstep.tuning.pairs import off
from fewstep.tuning.problem import Problem, Tuner
from fewstep.tuning.quasi_newton import minimise
from fewstep.tuning.random_mixtures import fine_mixtures, mixtures

DEPTH = 4
# The noisiest λ that a descent begins to tell the network, where the path begins at −∞.
LEAST = -6.0
# How far within the path it begins: at its very end there is no slope.
INSIDE = 0.05
# How far the size of states may be from the noise's for the network to be told their λ.
SIZES = 0.15
# Evaluations from which on the states of tables for any model land on the path.
LANDING = 6
# Where a second descent begins to tell: far from the first, as in between there is a hill.
LATER = -2.5


class Parameters:
    """What a free multistep plan has to choose, as free numbers.

    Args:
        path: where the plan runs.
        nodes: λ between the ends, rising, (steps − 1,); λ₁ and the logarithms of the gaps after it are what is free.
        weights: (steps, depth − 1).
        scales: (steps − 1, 2), see `free_multistep`; None where every state lands on the path.
        told: the λ that the network is told first, less than λ₁; only with scales, and only where states of that λ
            have nearly the size of the noise, as they have not deep within a variance-exploding path.
    """

    def __init__(
        self, path: Path, nodes: Tensor, weights: Tensor, scales: Tensor | None = None, told: float | None = None
    ) -> None:
        self.path = path
        self.gaps = torch.cat([nodes[:1], nodes.diff().log()]).clone().requires_grad_()
        self.weights = weights.clone().requires_grad_()
        self.scales = None if scales is None else scales.clone().requires_grad_()
        # How far the first told λ lies below λ₁, as its logarithm.
        told = max(float(path.lam(1.0)), LEAST) + INSIDE if told is None else told
        self.below = torch.tensor([math.log(max(float(nodes[0]) - told, 1e-3))], dtype=torch.float64).requires_grad_()
        self.tells = scales is not None and abs(stretch_of(path, told) - 1) < SIZES

    @staticmethod
    def like_two_m(path: Path, steps: int, depth: int = DEPTH) -> "Parameters":
        """Those of DPM-Solver++(2M) on the logsnr grid."""
        lam = path.lam(make_plan(path, "ddim", "logsnr", steps).times)
        weights = torch.zeros(steps, depth - 1, dtype=torch.float64)
        h = lam.diff()
        ratio = -h[1:] / (2 * h[:-1])
        usable = ratio.isfinite() & (h[:-1].isfinite())
        weights[1:, 0] = torch.where(usable, ratio, 0.0)
        return Parameters(path, lam[1:-1], weights)

    @staticmethod
    def of(table: Table, path: Path) -> "Parameters":
        """Those of a table that was tuned before."""
        nodes, weights = (torch.tensor(values, dtype=torch.float64) for values in (table.nodes, table.weights))
        scales = torch.tensor(table.scales, dtype=torch.float64) if table.scales else None
        return Parameters(path, nodes, weights, scales, table.told)

    def freed(self) -> "Parameters":
        """The same plan, with all answers in reach of every step and states that may leave the path."""
        steps = len(self.weights)
        weights = torch.zeros(steps, steps - 1, dtype=torch.float64)
        weights[:, : self.weights.shape[1]] = self.weights.detach()[:, : steps - 1]
        scales = torch.ones(steps - 1, 2, dtype=torch.float64) if self.scales is None else self.scales.detach()
        told = None if self.scales is None else float(self.told.detach())
        return Parameters(self.path, self.nodes.detach(), weights, scales, told)

    def hearing(self, told: float) -> "Parameters":
        """The same plan, but for the λ that the network is told first."""
        return Parameters(self.path, self.nodes.detach(), self.weights.detach(), self.scales, told)

    @property
    def free(self) -> list[Tensor]:
        """The free numbers."""
        scales = [] if self.scales is None else [self.scales]
        return [self.gaps, self.weights, *scales, *([self.below] if self.tells else [])]

    @property
    def told(self) -> Tensor:
        """The λ that the network is told first, (1,)."""
        return self.gaps[:1] - self.below.exp()

    @property
    def nodes(self) -> Tensor:
        """λ between the ends."""
        return torch.cat([self.gaps[:1], self.gaps[1:].exp()]).cumsum(0)

    def plan(self) -> Plan:
        """The plan; with gradients where they are on."""
        one = torch.ones(1, dtype=torch.float64)
        times = torch.cat([one, self.path.t_of_lam(self.nodes), 0 * one])
        told = self.path.t_of_lam(self.told).clamp(max=1.0) if self.tells else None
        return free_multistep(self.path, times, self.weights, scales=self.scales, told=told)

    def found(self) -> Plan:
        """The plan as it stands, without gradients."""
        with torch.no_grad():
            return self.plan()

    def descend(self, loss: Callable[[Plan], Tensor], rounds: int, **options: Any) -> list[float]:
        """Quasi-Newton on the logarithm of a loss of the plan; options are those of `minimise`."""
        return minimise(self.free, lambda: loss(self.plan()), rounds, **options)


@method(name="spectral", papers=[], family="tuning", summary="Descend the exact W2 error on Gaussian data.")
@dataclass(frozen=True)
class Spectral(Tuner):
    """Nodes and weights that minimise the exact W2 error on Gaussian data with the data's spectrum.

    Data that are not Gaussian are served worse by more freedom: with the last four answers in reach, and not two, the
    error on random mixtures is up to five times as large, that on Gaussian data less.

    Args:
        rounds: steps of the optimiser.
        depth: how many of the last answers a step weighs, at least 2.

    Raises:
        ArgumentError: depth is less than 2.
    """

    rounds: int = 120
    depth: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.depth, int) or self.depth < 2:
            raise ArgumentError(f"depth must be an integer of at least 2, got {self.depth!r}")

    def __call__(self, problem: Problem) -> Plan:
        """The tuned plan; no network is evaluated."""
        spectrum = problem.spectrum()
        parameters = Parameters.like_two_m(problem.denoiser.path, problem.evaluations, self.depth)
        parameters.descend(lambda plan: gaussian_w2(plan, spectrum), self.rounds, problem=problem)
        return parameters.found()


@method(name="worlds", papers=[], family="tuning", summary="Descend the error on random mixtures whose flow is exact.")
@dataclass(frozen=True)
class Worlds(Tuner):
    """Nodes, weights and scales that minimise the error to the exact flow of random mixtures.

    From `LANDING` evaluations on states land on the path: leaving it is still better on mixtures there, but as a rule
    makes the error of trained networks 1.3 to 1.8 times as large, which are shown states that they do not know.

    Args:
        rounds: steps of the optimiser; where states may leave the path, they land in the first quarter of them.
        samples: noises a mixture.
        begin: a table to begin with; DPM-Solver++(2M) unless given.
    """

    rounds: int = 160
    samples: int = 64
    begin: Table | None = None

    def __call__(self, problem: Problem) -> Plan:
        """The tuned plan; no network is evaluated."""
        path, steps = problem.denoiser.path, problem.evaluations
        # Mixtures for judging have even seeds.
        seed = 2 * problem.seed + 1
        sets = mixtures(path, seed, self.samples)
        sets += fine_mixtures(path, seed, self.samples) if steps >= LANDING else []
        parts = [Problem(denoiser, steps) for denoiser, _, _ in sets]

        def loss(plan: Plan) -> Tensor:
            errors = [off(part.run(plan, x, grad=True), ends) for part, (_, x, ends) in zip(parts, sets, strict=True)]
            return torch.stack(errors).log().mean().exp()

        parameters = Parameters.like_two_m(path, steps) if self.begin is None else Parameters.of(self.begin, path)
        if steps >= LANDING:
            parameters.descend(loss, self.rounds, problem=problem)
            return parameters.found()
        if self.begin is None:
            parameters.descend(loss, self.rounds // 4, problem=problem, name="landing")
        parameters = parameters.freed()
        parameters.descend(loss, self.rounds - self.rounds // 4, problem=problem)
        return parameters.found()


@method(name="trajectory", papers=[], family="tuning", summary="Descend the error along the model's own trajectories.")
@dataclass(frozen=True)
class Trajectory(Tuner):
    """Nodes, weights and scales that minimise the error to the ends of the model's own flow, through the network.

    Args:
        rounds: steps of the optimiser, unless the budget ends before.
    """

    rounds: int = 40

    def least(self, problem: Problem) -> int:
        """The flow's ends, a run of a start, and one round."""
        return problem.pairs_cost(problem.samples) + problem.run_cost(2 * problem.evaluations, problem.samples)

    def __call__(self, problem: Problem) -> Plan:
        """The tuned plan.

        It begins with the best of DPM-Solver++(2M), the shipped tables of as many steps and, with data, what `Spectral`
        finds; a part of the rounds goes to each of two levels that the network is told first, the rest to the better.
        """
        start, ends = problem.pairs(problem.samples, part=1)
        run = problem.run_cost(problem.evaluations, len(start))

        def loss(plan: Plan) -> Tensor:
            return off(problem.run(plan, start, grad="checkpoint"), ends)

        def first() -> list[float]:
            found: list[float] = []
            for one in self._starts(problem):
                if not found or problem.left(2 * run):
                    with torch.no_grad():
                        found.append(float(off(problem.run(one.found(), start), ends)))
            return found

        errors = problem.once("starts", first)
        best = self._starts(problem)[errors.index(min(errors))].freed()
        later = best.hearing(LATER)
        begun = [best, *([later] if later.tells and float(best.told.detach()) < LATER - 1 else [])]
        share = self.rounds // (4 if len(begun) > 1 else 1)

        def descended(one: Parameters, rounds: int, name: str) -> float:
            if name not in problem.state and name != "way 0" and not problem.left(run):
                return math.inf
            return min(one.descend(loss, rounds, problem=problem, name=name, more=lambda: problem.left(run)))

        found = [descended(one, share, f"way {i}") for i, one in enumerate(begun)]
        best = begun[found.index(min(found))]
        if len(begun) > 1:
            descended(best, self.rounds - 2 * share, "the better way")
        return best.found()

    @staticmethod
    def _starts(problem: Problem) -> list[Parameters]:
        path, steps = problem.denoiser.path, problem.evaluations
        tables = [t for t in near_tables(path) if len(t.weights) == steps]
        if problem.data is not None:
            part = replace(problem, state={}, history=[], checkpoint=None)
            nodes, weights = problem.once(
                "spectral", lambda: attrgetter("nodes", "weights")(table_of(Spectral()(part)))
            )
            tables.append(Table(float(path.lam(1.0)), nodes, weights, about={}))
        return [Parameters.like_two_m(path, steps), *(Parameters.of(t, path) for t in tables)]
