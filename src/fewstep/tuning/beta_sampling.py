"""Beta Sampling: any solver on the quantiles of a Beta distribution, two numbers for all nodes.

The paper chooses them by hand, both alike, and less than 1, which is dense at both ends; where most of the error comes
from the middle, more than 1 is better.  Unless they are given, some are tried on noises.  The reason for them is in
`spectral_change`; the grid is `fewstep.grids.Beta`.
"""

from dataclasses import dataclass

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.grids import Beta
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.tuning.pairs import nearest
from fewstep.tuning.problem import Problem, Tuner

# What is tried, the one in use first.
SHAPES = (0.6, 0.45, 0.8, 1.25, 1.6, 2.2)


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
        a, b: of the distribution, more than 0; 0.6 in use.  Unless both are given, a = b of `SHAPES` are tried, as far
            as the budget goes, each by a run; else no network is evaluated.

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
        start, ends = problem.pairs(problem.samples, part=1)
        plans = [self._plan(problem, shape, shape) for shape in SHAPES]
        return plans[nearest(problem, plans, start, ends)]

    def _plan(self, problem: Problem, a: float, b: float) -> Plan:
        return make_plan(problem.denoiser.path, self.solver, Beta(a, b), evaluations=problem.evaluations)

    def least(self, problem: Problem) -> int:
        """The flow's ends, where shapes are tried."""
        return problem.pairs_cost(problem.samples) if self.a is None else 0

    def untuned(self, problem: Problem) -> Plan:
        """The same solver on the uniform grid."""
        return make_plan(problem.denoiser.path, self.solver, "uniform", evaluations=problem.evaluations)
