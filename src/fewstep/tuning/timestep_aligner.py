"""Timestep aligner: a solver's coefficients stay, and the network is told another time at every step.

At row i, whose state x stands at t_i, the network is told τ_i = ρ_i·t_i, and its noise there is taken for the noise at
t_i (Xia et al. 2023, TimeTuner in its later version).  Row by row, each from where the aligned ones lead, ρ_i minimises

    "flow"    the distance of x_{i+1} to where a finer run from the same noise stands then
    "noise"   ‖ε̂(x_i, t_i) − ε̂(x_{i+1}, t_{i+1})‖²,      x_{i+1} the next state with ε̂(x_i, τ_i)

of which the second is published: the noise at the end of the step should be that at its start, which is taken without
gradient, and the last row keeps ρ = 1.  The exact flow's own noise does change along a step, so that this is not the
error to the flow: it helps at few steps, where the change is small beside the step's error, and over-corrects at many.
A row at α = 0, where noise tells nothing, keeps ρ = 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.plan import Builder, Plan
from fewstep.planning import make_plan
from fewstep.program import Run
from fewstep.tuning.adam import descend
from fewstep.tuning.pairs import off
from fewstep.tuning.problem import Problem, Tuner
from fewstep.tuning.rewriting import one_answer_a_row, rewrite, told_noise
from fewstep.tuning.teacher import Prefix, rows_lead, taught

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
        towards: "flow" or, as published, "noise".
        pieces: how many steps of DPM-Solver++(2M) the finer run takes for one row.

    Raises:
        ArgumentError: `towards` is neither.
    """

    base: str = "ddim"
    grid: str = "uniform"
    rounds: int = 100
    rate: float = 0.01
    batch: int = 16
    towards: str = "flow"
    pieces: int = 10

    def __post_init__(self) -> None:
        if self.towards not in ("flow", "noise"):
            raise ArgumentError(f"towards must be 'flow' or 'noise', got {self.towards!r}")

    def untuned(self, problem: Problem) -> Plan:
        """The solver itself."""
        return make_plan(problem.denoiser.path, self.base, self.grid, evaluations=problem.evaluations)

    def least(self, problem: Problem) -> int:
        """The finer run, and one round of every row."""
        fine = self.pieces if self.towards == "flow" else 0
        return problem.run_cost((4 + fine) * problem.evaluations, self.batch)

    def __call__(self, problem: Problem) -> Plan:
        """The tuned plan."""
        return self.fit(problem, self.untuned(problem))

    def fit(self, problem: Problem, plan: Plan) -> Plan:
        """A plan whose told times are fitted."""
        one_answer_a_row(plan, "timestep-aligner")
        prefix = Prefix(problem, problem.starts(self.batch, part=1))
        ratios = torch.ones(plan.steps, dtype=torch.float64)
        miss = self._from_flow(problem, plan, prefix) if self.towards == "flow" else self._from_noise(plan, prefix)
        for i in range(plan.steps if self.towards == "flow" else plan.steps - 1):
            if bool(plan.path.alpha(plan.ask_times[i]) == 0):
                continue
            # The way to the row, what its round compares, and a round.
            if f"ratio {i}" not in problem.state and not problem.left(problem.run_cost(4, self.batch)):
                break
            # Live ratios make the same registers as the candidates have.
            prefix.move(aligned(plan, ratios.clone().requires_grad_()), i)
            ratio, off_by = torch.ones((), dtype=torch.float64, requires_grad=True), miss(i)

            def loss(i: int = i, ratio: Tensor = ratio, off_by: Callable[[Plan], Tensor] = off_by) -> Tensor:
                return off_by(aligned(plan, torch.cat([ratios[:i], ratio[None], ratios[i + 1 :]])))

            each, name = problem.run_cost(2, self.batch), f"ratio {i}"
            rounds = problem.affordable(name, self.rounds, each, ways=plan.steps - i)
            more = partial(problem.left, each)
            descend([ratio], loss, rounds, self.rate, problem=problem, name=name, more=more)
            ratios[i] = ratio.detach()
        return aligned(plan, ratios)

    def _from_flow(self, problem: Problem, plan: Plan, prefix: Prefix) -> Callable[[int], Callable[[Plan], Tensor]]:
        """For every row, how far a plan's next state is from the flow's."""
        times, places, registers = rows_lead(plan)
        states = problem.once("states", lambda: taught(problem, "dpm-solver++", times, prefix.start, self.pieces))

        def miss(row: int) -> Callable[[Plan], Tensor]:
            def distance(tried: Plan) -> Tensor:
                state = prefix.go(tried, row + 1, grad=True)[0].registers[registers[row]]
                assert state is not None
                return off(state, states[places[row]])

            return distance

        return miss

    def _from_noise(self, plan: Plan, prefix: Prefix) -> Callable[[int], Callable[[Plan], Tensor]]:
        """For every row, how far the noise at the end of a plan's step is from that at its start."""

        def miss(row: int) -> Callable[[Plan], Tensor]:
            goal = self._noise(plan, row, *prefix.go(plan, row + 1)).detach()

            def change(tried: Plan) -> Tensor:
                noise = self._noise(plan, row + 1, *prefix.go(tried, row + 2, grad=True))
                return (noise - goal).square().sum(tuple(range(1, noise.ndim))).mean()

            return change

        return miss

    @staticmethod
    def _noise(plan: Plan, row: int, run: Run, answer: Tensor) -> Tensor:
        """ε̂ of the last answer, which was that of a row told its own time."""
        t = plan.ask_times[row]
        return (Prefix.asked(run) - float(plan.path.alpha(t)) * answer) / float(plan.path.sigma(t))
