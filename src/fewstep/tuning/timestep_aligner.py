"""Timestep aligner: a solver's coefficients stay, and the network is told another time at every step.

At row i, whose state x stands at t_i, the network is told τ_i = ρ_i·t_i, and its noise there is taken for the noise at
t_i (Xia et al. 2023, TimeTuner in its later version).  Row by row, each from where the aligned ones lead, ρ_i minimises

    ‖ε̂(x_i, t_i) − ε̂(x_{i+1}, t_{i+1})‖²,      x_{i+1} the next state with ε̂(x_i, τ_i),

the first without gradient: the noise at the end of the step should be that at its start.  The last row keeps ρ = 1, and
so does one at α = 0, where noise tells nothing.  The exact flow's own noise does change along a step, so that this is
not the error to the flow: it helps at few steps, where the change is small beside the step's error, and over-corrects
at many.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.plan import Builder, Plan
from fewstep.planning import make_plan
from fewstep.program import Run
from fewstep.tuning.adam import descend
from fewstep.tuning.problem import Problem, Tuner
from fewstep.tuning.rewriting import one_answer_a_row, rewrite, told_noise
from fewstep.tuning.teacher import Prefix

LEAST = 0.01
DEVIATES = "the network is told other times than those of the states that it sees"


def aligned(plan: Plan, ratios: Tensor) -> Plan:
    """A plan whose network is told ρ times the time, at least a hundredth of it and at most 1; differentiable in ρ.

    Args:
        plan: without noise, one answer a row.
        ratios: ρ, float64 (rows,); not looked at where α = 0.
    """
    t = plan.ask_times
    free = plan.path.alpha(t) > 0
    told = torch.where(free, torch.maximum(torch.minimum(ratios * t, torch.ones_like(t)), LEAST * t), t)
    builder = Builder(plan.times, plan.registers)
    rewrite(builder, plan, told, told_noise(plan.path, t, told))
    same = not ratios.requires_grad and bool((told == t).all())
    return Plan.build(
        plan.path, builder, order=plan.order if same else 1, source={**plan.source, "told": told.detach().tolist()},
        deviates=plan.deviates if same else DEVIATES,
    )  # fmt: skip


@method(
    name="timestep-aligner",
    papers=["Towards More Accurate Diffusion Model Acceleration with A Timestep Aligner"], arxiv="2310.09469",
    family="tuning", summary="Learn for each step the time that the network is told: TimeTuner.",
)  # fmt: skip
@dataclass(frozen=True)
class TimestepAligner(Tuner):
    """A timestep aligner (Xia et al. 2023), sequential, from the model's own noises.

    The paper takes 500 rounds at a rate of 0.002, which reach as far.

    Args:
        base: the name of the solver, which draws no noise.
        grid: the nodes.
        rounds: of each step's optimiser, unless the budget ends before.
        rate: its learning rate.
        batch: how many noises are looked at.
    """

    base: str = "ddim"
    grid: str = "uniform"
    rounds: int = 100
    rate: float = 0.01
    batch: int = 16

    def untuned(self, problem: Problem) -> Plan:
        """The solver itself."""
        return make_plan(problem.denoiser.path, self.base, self.grid, evaluations=problem.evaluations)

    def least(self, problem: Problem) -> int:
        """One round of every row."""
        return 4 * problem.evaluations * self.batch

    def __call__(self, problem: Problem) -> Plan:
        """The tuned plan."""
        return self.fit(problem, self.untuned(problem))

    def fit(self, problem: Problem, plan: Plan) -> Plan:
        """A plan whose told times are fitted."""
        one_answer_a_row(plan, "timestep-aligner")
        prefix = Prefix(problem, problem.starts(self.batch, part=1))
        ratios = torch.ones(plan.steps, dtype=torch.float64)
        for i in range(plan.steps - 1):
            if bool(plan.path.alpha(plan.ask_times[i]) == 0):
                continue
            # Live ratios make the same registers as the candidates have.
            prefix.move(aligned(plan, ratios.clone().requires_grad_()), i)
            goal = self._noise(plan, i, *prefix.go(plan, i + 1)).detach()
            ratio = torch.ones((), dtype=torch.float64, requires_grad=True)

            def loss(i: int = i, ratio: Tensor = ratio, goal: Tensor = goal) -> Tensor:
                tried = aligned(plan, torch.cat([ratios[:i], ratio[None], ratios[i + 1 :]]))
                noise = self._noise(plan, i + 1, *prefix.go(tried, i + 2, grad=True))
                return (noise - goal).square().sum(tuple(range(1, noise.ndim))).mean()

            descend([ratio], loss, self.rounds, self.rate, problem=problem, name=f"ratio {i}", more=problem.left)
            ratios[i] = ratio.detach()
        return aligned(plan, ratios)

    @staticmethod
    def _noise(plan: Plan, row: int, run: Run, answer: Tensor) -> Tensor:
        """ε̂ of the last answer, which was that of a row told its own time."""
        t = plan.ask_times[row]
        return (Prefix.asked(run) - float(plan.path.alpha(t)) * answer) / float(plan.path.sigma(t))
