"""Gradient descent on the nodes and weights of a multistep plan: the three methods of ours.

A plan with free nodes λ_i and free weights on earlier answers (`free_multistep`) is differentiable from end to end, so
its error can be descended: on Gaussian data in closed form (*spectral*: no network, no sampling), on random mixtures
whose flow is exact (*worlds*: no network), or on the model's own trajectories (*trajectory*: through the network).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.analysis.gaussian import gaussian_w2
from fewstep.catalog import method
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.solvers.free_multistep import Table, free_multistep
from fewstep.tuning.adam import descend
from fewstep.tuning.pairs import Pairs
from fewstep.tuning.problem import Problem, Tuner
from fewstep.worlds import GaussianMixture

DEPTH = 4


class Parameters:
    """Nodes and weights as free numbers: λ₁ and the logarithms of the gaps after it, and the weights.

    Args:
        path: where the plan runs.
        nodes: λ between the ends, rising, (steps − 1,).
        weights: (steps, depth − 1).
    """

    def __init__(self, path: Path, nodes: Tensor, weights: Tensor) -> None:
        self.path = path
        self.gaps = torch.cat([nodes[:1], nodes.diff().log()]).clone().requires_grad_()
        self.weights = weights.clone().requires_grad_()

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
        double = torch.float64
        return Parameters(path, torch.tensor(table.nodes, dtype=double), torch.tensor(table.weights, dtype=double))

    @property
    def nodes(self) -> Tensor:
        """λ between the ends."""
        return torch.cat([self.gaps[:1], self.gaps[1:].exp()]).cumsum(0)

    def plan(self) -> Plan:
        """The plan; with gradients where they are on."""
        one = torch.ones(1, dtype=torch.float64)
        times = torch.cat([one, self.path.t_of_lam(self.nodes), 0 * one])
        return free_multistep(self.path, times, self.weights)

    def found(self) -> Plan:
        """The plan as it stands, without gradients."""
        with torch.no_grad():
            return self.plan()

    def descend(
        self,
        loss: Callable[[Plan], Tensor],
        rounds: int,
        rate: float,
        **options: Any,
    ) -> list[float]:
        """Adam on the logarithm of a loss of the plan; options are those of `adam.descend`."""
        return descend([self.gaps, self.weights], lambda: loss(self.plan()), rounds, rate, **options)


@method(name="spectral", papers=[], family="tuning", summary="Descend the exact W2 error on Gaussian data.")
@dataclass(frozen=True)
class Spectral(Tuner):
    """Nodes and weights that minimise the exact W2 error on Gaussian data with the data's spectrum.

    Args:
        rounds: steps of the optimiser.
        rate: its learning rate.
    """

    rounds: int = 400
    rate: float = 0.02

    def __call__(self, problem: Problem) -> Plan:
        """The tuned plan; no network is evaluated."""
        spectrum = problem.spectrum()
        parameters = Parameters.like_two_m(problem.denoiser.path, problem.evaluations)
        parameters.descend(lambda plan: gaussian_w2(plan, spectrum), self.rounds, self.rate, problem=problem)
        return parameters.found()


def mixtures(path: Path, seed: int, samples: int) -> list[tuple[Any, Tensor, Tensor]]:
    """Random mixtures in 64 dimensions: (denoiser, starts, ends) each.

    Three have 20 modes, overlapping to separated; the fourth is like pictures: six modes whose variances fall from 100,
    along the first of 16 directions, to 0.03, since few directions of a picture hold nearly all of its variance.
    """
    from fewstep.analysis.flow import exact_flow

    made = []
    for i, apart in enumerate((0.3, 0.6, 1.0, 0.5)):
        generator = torch.Generator().manual_seed(seed * 1000 + i)

        def normal(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        modes, rank = (6, 16) if i == 3 else (20, 4)
        basis = torch.linalg.qr(normal(modes, 64, rank))[0]
        spread = 0.3 * torch.rand(modes, rank, dtype=torch.float64, generator=generator)
        floor = 0.01
        if i == 3:
            spread, floor = (1 + spread) * torch.logspace(2, -1.3, rank, dtype=torch.float64), 0.03
        weights = torch.rand(modes, dtype=torch.float64, generator=generator) + 0.2
        world = GaussianMixture(weights, apart * normal(modes, 64), torch.full((modes, 1), floor), basis, spread)
        start = normal(samples, 64) * path.sigma(1.0)
        made.append((world.denoiser(path), start, exact_flow(world.denoiser(path), start, tolerance=1e-7)))
    return made


@method(name="worlds", papers=[], family="tuning", summary="Descend the error on random mixtures whose flow is exact.")
@dataclass(frozen=True)
class Worlds(Tuner):
    """Nodes and weights that minimise the error to the exact flow of random mixtures, beginning with the spectral ones.

    Args:
        rounds: steps of the optimiser.
        rate: its learning rate.
        samples: noises a mixture.
    """

    rounds: int = 400
    rate: float = 0.02
    samples: int = 64

    def __call__(self, problem: Problem) -> Plan:
        """The tuned plan; no network is evaluated."""
        path = problem.denoiser.path
        parameters = Parameters.like_two_m(path, problem.evaluations)
        # Mixtures for judging have even seeds.
        sets = mixtures(path, 2 * problem.seed + 1, self.samples)
        parts = [Problem(denoiser, problem.evaluations) for denoiser, _, _ in sets]

        def loss(plan: Plan) -> Tensor:
            errors = [
                (part.run(plan, start, grad=True) - ends).square().mean(1).add(1e-14).sqrt().log().mean()
                for part, (_, start, ends) in zip(parts, sets, strict=True)
            ]
            return torch.stack(errors).mean().exp()

        parameters.descend(loss, self.rounds, self.rate, problem=problem)
        return parameters.found()


@method(name="trajectory", papers=[], family="tuning", summary="Descend the error along the model's own trajectories.")
@dataclass(frozen=True)
class Trajectory(Tuner):
    """Nodes and weights that minimise the error to the ends of the model's own flow, through the network.

    Args:
        rounds: steps of the optimiser, unless the budget ends before.
        rate: its learning rate.
        batch: noises a step.
    """

    rounds: int = 120
    rate: float = 0.01
    batch: int = 16

    def __call__(self, problem: Problem) -> Plan:
        """The tuned plan, refined from the shipped table that is nearest or from DPM-Solver++(2M)."""
        from fewstep.solvers.tuned import nearest_table

        path, pairs = problem.denoiser.path, Pairs(problem, self.batch)
        table = nearest_table(path, problem.evaluations)
        parameters = Parameters.like_two_m(path, problem.evaluations) if table is None else Parameters.of(table, path)
        parameters.descend(pairs.error, self.rounds, self.rate, **pairs.options)
        return parameters.found()
