"""Beta Sampling: any solver on the quantiles of a Beta distribution; two numbers chosen by hand, nothing searched.

The reason for them is in `spectral_change`; the grid is `fewstep.grids.Beta`.
"""

from dataclasses import dataclass

from fewstep.catalog import method
from fewstep.grids import Beta
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.tuning.problem import Problem, Tuner


@method(
    name="beta",
    papers=[
        "Beta Sampling is All You Need: Efficient Image Generation Strategy for Diffusion Models using Stepwise "
        "Spectral Analysis"
    ],
    arxiv="2407.12173", family="tuning",
    summary="Times at the quantiles of a Beta distribution, dense at both ends; no network is evaluated.",
)  # fmt: skip
@dataclass(frozen=True)
class BetaSampling(Tuner):
    """A solver on the Beta grid.

    Args:
        solver: of the catalogue.
        a, b: of the distribution, more than 0.
    """

    solver: str = "ddim"
    a: float = 0.6
    b: float = 0.6

    def __call__(self, problem: Problem) -> Plan:
        """The plan; no network is evaluated."""
        grid = Beta(self.a, self.b)
        return make_plan(problem.denoiser.path, self.solver, grid, evaluations=problem.evaluations)

    def untuned(self, problem: Problem) -> Plan:
        """The same solver on the uniform grid."""
        return make_plan(problem.denoiser.path, self.solver, "uniform", evaluations=problem.evaluations)
