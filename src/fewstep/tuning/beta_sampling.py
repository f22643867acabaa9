"""Beta Sampling: any solver on the quantiles of a Beta distribution, two numbers for all nodes.

The paper chooses them by hand, both alike, and less than 1, which is dense at both ends; where most of the error comes
from the middle, more than 1 is better.  Unless they are given, some that are alike are tried on noises, and from the
best of those each by itself, up and down by smaller and smaller factors.  The reason for them is in `spectral_change`;
the grid is `fewstep.grids.Beta`.
"""

import math
from dataclasses import dataclass

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.grids import Beta
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.tuning.pairs import off
from fewstep.tuning.problem import Problem, Tuner

# What is tried for both, the one in use first; then the largest and the least change of the logarithm of one.
SHAPES = (0.6, 0.45, 0.8, 1.25, 1.6, 2.2)
LARGEST, LEAST = 0.3, 0.05


@method(
    name="beta",
    papers=[
        "Beta Sampling is All You Need: Efficient Image Generation Strategy for Diffusion Models using Stepwise "
        "Spectral Analysis"
    ],
    arxiv="2407.12173", family="tuning",
    summary="Times at the quantiles of a Beta distribution, dense at both ends or in the middle.",
)  # fmt: skip
@dataclass(frozen=True)
class BetaSampling(Tuner):
    """A solver on the Beta grid.

    Args:
        solver: of the catalogue.
        a, b: of the distribution, more than 0; 0.6 in use.  Unless both are given they are searched, as far as the
            budget goes, by a run each; else no network is evaluated.

    Raises:
        ArgumentError: one of them alone, or not more than 0.
    """

    solver: str = "ddim"
    a: float | None = None
    b: float | None = None

    def __post_init__(self) -> None:
        if (self.a is None) != (self.b is None):
            raise ArgumentError(f"give both a and b or neither, got a={self.a!r} and b={self.b!r}")
        if self.a is not None and self.b is not None:
            Beta(self.a, self.b)

    def __call__(self, problem: Problem) -> Plan:
        """The plan."""
        if self.a is not None and self.b is not None:
            return self._plan(problem, self.a, self.b)
        return self._plan(problem, *self._searched(problem))

    def _searched(self, problem: Problem) -> tuple[float, float]:
        """The a and b whose plan leads nearest to the flow's ends, of those that were tried."""
        start, ends = problem.pairs(problem.samples, part=1)
        tried: dict[tuple[float, float], float] = {(a, b): value for a, b, value in problem.state.get("tried", [])}

        def error(shape: tuple[float, float]) -> float:
            if shape in tried:
                return tried[shape]
            if not problem.left(problem.run_cost(problem.evaluations, len(start))):
                return math.inf
            tried[shape] = float(off(problem.run(self._plan(problem, *shape), start), ends))
            problem.record(min(tried.values()))
            problem.keep(tried=[[*one, value] for one, value in tried.items()])
            return tried[shape]

        best, change = min(((shape, shape) for shape in SHAPES), key=error), LARGEST
        while change >= LEAST:
            a, b = best
            around = [near for f in (math.exp(change), math.exp(-change)) for near in ((a * f, b), (a, b * f))]
            ahead = min(around, key=error)
            if error(ahead) < error(best):
                best = ahead
            else:
                change /= 2
        return best

    def _plan(self, problem: Problem, a: float, b: float) -> Plan:
        return make_plan(problem.denoiser.path, self.solver, Beta(a, b), evaluations=problem.evaluations)

    def least(self, problem: Problem) -> int:
        """The flow's ends, where shapes are tried."""
        return problem.pairs_cost(problem.samples) if self.a is None else 0

    def untuned(self, problem: Problem) -> Plan:
        """The same solver on the uniform grid."""
        return make_plan(problem.denoiser.path, self.solver, "uniform", evaluations=problem.evaluations)
