"""D-ODE solvers: one number a row, fitted in closed form, that pushes a solver along the change of its answers.

The row that asks answer number i and writes a state writes further (Kim et al. 2024)

    + λ_i·(d_i − d_{i−1}),      d = ε̂ or x̂₀,      λ_i = ⟨q, r⟩/⟨q, q⟩,

where q = d_i − d_{i−1} and r is what the row misses of the teacher's state there, over all numbers of one batch.  The
rows are fitted one after another, each from where the fitted ones lead; the first has no answer before it.  λ = 0 is
the solver itself.  The teacher runs on a grid that holds all of the student's times.  In the paper all samples count
alike; here those that went astray count less (`robust_fit`), without which the median sample often loses.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.plan import Builder, Plan
from fewstep.planning import make_plan
from fewstep.tuning.problem import Problem, Tuner
from fewstep.tuning.rewriting import one_answer_a_row, rewrite
from fewstep.tuning.robust_fit import fitted
from fewstep.tuning.teacher import Prefix, rows_lead, taught


def pushed(plan: Plan, pushes: Tensor, reads: str = "noise") -> Plan:
    """A plan with λ_i·(d_i − d_{i−1}) in every row; differentiable in λ.

    Args:
        plan: without noise, one answer a row.
        pushes: λ, float64 (rows,); the first is not looked at.
        reads: what d is: "noise" or "data".
    """
    names, targets = (*plan.registers, "d"), rows_lead(plan)[2]
    builder = Builder(plan.times, names)
    one = torch.ones_like(plan.ask_times)
    rewrite(builder, plan, plan.ask_times, (0 * one, one))
    for i, step in enumerate(plan):
        steps, push = range(i, i + 1), pushes[i : i + 1]
        kept = [(source, factor.reshape(1)) for source, factor in _reads(plan, i, reads)]
        if i:
            target = names[targets[i]]
            if targets[i] not in step.writes:
                builder.add(target, target, 1.0, steps)
            for source, factor in kept:
                builder.add(target, source, push * factor, steps)
            builder.add(target, "d", -push, steps)
        for source, factor in kept:
            builder.add("d", source, factor, steps)
    about = {**plan.source, "pushes": pushes.detach().tolist(), "reads": reads}
    return Plan.build(plan.path, builder, order=1, source=about, deviates=plan.deviates)


def _reads(plan: Plan, row: int, reads: str) -> list[tuple[str | int, Tensor]]:
    """d of a row: the factors of what was asked and of the answer."""
    t = plan.ask_times[row]
    alpha, sigma = plan.path.alpha(t), plan.path.sigma(t)
    if reads == "data":
        return [(0, torch.ones_like(t))]
    return [(plan.registers[int(plan.asks[row, 1])], 1 / sigma), (0, -alpha / sigma)]


@method(
    name="d-ode", papers=["Distilling ODE Solvers of Diffusion Models into Smaller Steps"], arxiv="2309.16421",
    family="tuning", summary="Fit one number a row, in closed form, to a teacher of ten times as many steps: D-DDIM.",
)  # fmt: skip
@dataclass(frozen=True)
class DistilledSolver(Tuner):
    """A D-ODE solver (Kim et al. 2024).

    Args:
        base: the name of the student's solver, which draws no noise.
        reads: what its answers are read as: "noise", or "data" as for a network that predicts x̂₀.
        teacher: the name of the teacher's solver; the paper takes "ddim", and for a multistep base that base.
        pieces: how many steps the teacher takes for one of the student's rows.
        grid: the nodes.
        reweighted: rounds in which samples that went astray come to count less; 0 as published.

    Raises:
        ArgumentError: `reads` is neither, or fewer rounds than 0.
    """

    base: str = "ddim"
    reads: str = "noise"
    teacher: str = "ddim"
    pieces: int = 10
    grid: str = "logsnr"
    reweighted: int = 5

    def __post_init__(self) -> None:
        if self.reads not in ("noise", "data"):
            raise ArgumentError(f"reads must be 'noise' or 'data', got {self.reads!r}")
        if not isinstance(self.reweighted, int) or self.reweighted < 0:
            raise ArgumentError(f"reweighted must be an integer of at least 0, got {self.reweighted!r}")

    def least(self, problem: Problem) -> int:
        """The teacher's run and the student's, once for all noises."""
        return problem.run_cost((self.pieces + 1) * problem.evaluations, problem.samples)

    def untuned(self, problem: Problem) -> Plan:
        """The student's solver itself."""
        return make_plan(problem.denoiser.path, self.base, self.grid, evaluations=problem.evaluations)

    def __call__(self, problem: Problem) -> Plan:
        """The tuned plan."""
        return self.fit(problem, self.untuned(problem))

    def fit(self, problem: Problem, plan: Plan) -> Plan:
        """A plan with its pushes fitted on the problem's noises."""
        one_answer_a_row(plan, "d-ode")
        start = problem.starts(problem.samples, part=1)
        times, places, registers = rows_lead(plan)
        states = taught(problem, self.teacher, times, start, self.pieces)
        pushes, prefix = torch.zeros(plan.steps, dtype=torch.float64), Prefix(problem, start)
        for i in range(plan.steps):
            # Live pushes, so that d is not left out as unread while they are 0.
            run, answer = prefix.go(pushed(plan, pushes.clone().requires_grad_(), self.reads), i + 1)
            if i:
                seen = {0: answer, plan.registers[int(plan.asks[i, 1])]: prefix.asked(run)}
                new = sum(factor * seen[source] for source, factor in _reads(plan, i, self.reads))
                q = new - prefix.register(len(plan.registers))
                to = registers[i]
                state = run.registers[to]
                assert state is not None
                missing = states[places[i]] - state
                vector, wanted = (each.double().flatten(1) for each in (q, missing))
                pushes[i] = fitted(vector[..., None], wanted, self.reweighted, ridge=0.0)[0]
                run.registers[to] = state + pushes[i].to(state) * q
            prefix.keep(run, i + 1)
        return pushed(plan, pushes, self.reads)
