"""DC-Solver: UniPC whose newest answer is moved to where it fits the corrected state, by a ratio for each step.

After UniPC corrects a state its answer m_i still belongs to the state before.  From the third step on, m_i is replaced
by the parabola in t through the last three kept answers (Zhao et al. 2024),

    m_i ← Σ_j ℓ_j(t̂)·m_{i−j},  j = 0, 1, 2,      t̂ = ρ_i·t_i + (1 − ρ_i)·t_{i−1},

and the replaced one is what the step predicts with, what is kept, and what the next corrector takes for the old answer.
ρ = 1 is UniPC.  The ratios are searched one after another so that the state after the predictor and the next corrector
is the teacher's: the geometric mean over noises of the RMSE is least, and not the paper's mean square, which a single
one of ten noises decides when it goes astray.  Ratios for other numbers of evaluations and scales of guidance follow
from known ones by regression,

    ρ(step; n, w) = Σ_{a≤3, b≤2, c≤2} γ_abc·(step/n)^a·(w/12)^b·(n/50)^c.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.solvers.exponential_adams import Adams
from fewstep.solvers.multistep_rows import Past, Rows
from fewstep.solvers.predictor_corrector import PredictorCorrector
from fewstep.tuning.adam import descend
from fewstep.tuning.pairs import off
from fewstep.tuning.problem import Problem, Tuner
from fewstep.tuning.teacher import Prefix, taught

# The first row that has three kept answers.
BEGIN = 2


def _stored(times: Tensor, ratios: Tensor) -> Tensor:
    """The weights of the last three answers in the one that is kept, (3, steps)."""
    a, b, c = times[2:-1], times[1:-2], times[:-3]
    at = ratios[BEGIN:] * a + (1 - ratios[BEGIN:]) * b
    lines = torch.stack([
        (at - b) * (at - c) / ((a - b) * (a - c)), (at - a) * (at - c) / ((b - a) * (b - c)),
        (at - a) * (at - b) / ((c - a) * (c - b)),
    ])  # fmt: skip
    plain = torch.zeros(3, min(BEGIN, len(ratios)), dtype=torch.float64)
    plain[0] = 1.0
    return torch.cat([plain, lines], 1)


def compensated(path: Path, times: Tensor, ratios: Tensor, base: PredictorCorrector, until: int | None = None) -> Plan:
    """UniPC with compensation; differentiable in the ratios.

    Args:
        path: any.
        times: float64 (steps + 1,), falling.
        ratios: ρ, float64 (steps,); the first two are not looked at.
        base: the predictor and its corrector, in data form.
        until: a row that only corrects the state, and ends the plan; the whole plan unless given.
    """
    adams = Adams(
        base.predictor, base.corrector + 1 if base.corrector else 0, base.variant, base.form, base.lower_order_final
    )
    past = Past.of(times, max(adams.depth, 2))
    rows = adams.rows(path, times, past, torch.zeros_like(times[1:]))
    missing = max(0, 3 - len(rows.predict))
    predict = torch.cat([rows.predict, torch.zeros(missing, len(ratios), dtype=torch.float64)])
    rows = replace(rows, predict=predict, stored=_stored(times, ratios))
    if until is not None:
        rows, past, times = (
            _cut(rows, until),
            Past(past.moves[: until + 1], past.rows[:, : until + 1]),
            times[: until + 1],
        )
        times = torch.cat([times, times[-1:]])
    still = bool((ratios == 1).all()) and not ratios.requires_grad
    return Plan.build(
        path, rows.builder(times, past, False), order=base.order if still else 1,
        source={"solver": "dc-solver", "ratios": ratios.detach().tolist()},
    )  # fmt: skip


def _cut(rows: Rows, until: int) -> Rows:
    """The rows up to one that corrects the state and does not move it."""
    last = torch.arange(until + 1) == until

    def cut(values: Tensor, end: float | None = None) -> Tensor:
        values = values[..., : until + 1]
        return values if end is None else torch.where(last, end, values)

    assert rows.stored is not None
    return Rows(
        cut(rows.on_x), cut(rows.on_answer), cut(rows.keep, 1.0), cut(rows.held, 0.0), cut(rows.drawn),
        cut(rows.predict, 0.0), cut(rows.correct), cut(rows.corrects), stored=cut(rows.stored),
    )  # fmt: skip


@dataclass(frozen=True)
class Cascade:
    """Ratios for any number of evaluations and scale of guidance, regressed on those that were searched.

    Args:
        factors: γ, float64 (4, 3, 3).
    """

    factors: Tensor

    @staticmethod
    def fit(found: Mapping[tuple[int, float], Sequence[float]]) -> "Cascade":
        """The least squares fit, of least norm where the ratios do not tell all factors.

        Args:
            found: for each (evaluations, scale) the ratios of all steps.

        Raises:
            ArgumentError: nothing to fit.
        """
        rows, values = [], []
        for (evaluations, scale), ratios in found.items():
            rows += [_terms(i + 1, evaluations, scale) for i in range(BEGIN, len(ratios))]
            values += [float(ratio) - 1 for ratio in ratios[BEGIN:]]
        if not values:
            raise ArgumentError(f"found must hold ratios of more than {BEGIN} steps, got {dict(found)}")
        solved = torch.linalg.lstsq(
            torch.stack(rows), torch.tensor(values, dtype=torch.float64)[:, None], driver="gelsd"
        ).solution
        factors = solved.reshape(4, 3, 3)
        factors[0, 0, 0] += 1
        return Cascade(factors)

    def ratios(self, evaluations: int, scale: float) -> Tensor:
        """ρ of every step, float64 (evaluations,)."""
        steps = [float(_terms(i + 1, evaluations, scale) @ self.factors.flatten()) for i in range(BEGIN, evaluations)]
        return torch.tensor(([1.0] * BEGIN + steps)[:evaluations], dtype=torch.float64)


def _terms(step: int, evaluations: int, scale: float) -> Tensor:
    powers = [
        torch.tensor(value, dtype=torch.float64) ** torch.arange(count)
        for value, count in ((step / evaluations, 4), (scale / 12, 3), (evaluations / 50, 3))
    ]
    return torch.einsum("a,b,c->abc", *powers).flatten()


@method(
    name="dc-solver",
    papers=["DC-Solver: Improving Predictor-Corrector Diffusion Sampler via Dynamic Compensation"],
    arxiv="2409.03755", family="tuning",
    summary="Search for each step of UniPC the ratio that moves its newest answer to the corrected state.",
)  # fmt: skip
@dataclass(frozen=True)
class DynamicCompensation(Tuner):
    """DC-Solver (Zhao et al. 2024).

    Args:
        predictor, corrector, variant: of UniPC; corrector 0 for none.
        grid: the nodes.
        noises: how many noises are looked at.
        fine: steps of the teacher, DDIM.
        rounds: of the search of one ratio, unless the budget ends before.
        rate: its learning rate.
    """

    predictor: int = 2
    corrector: int = 2
    variant: str = "bh2"
    grid: str = "uniform"
    noises: int = 10
    fine: int = 200
    rounds: int = 40
    rate: float = 0.1

    @property
    def base(self) -> PredictorCorrector:
        """UniPC."""
        return PredictorCorrector(self.predictor, self.corrector, self.variant, lower_order_final=True)

    def least(self, problem: Problem) -> int:
        """The teacher's run."""
        return problem.run_cost(self.fine, self.noises)

    def untuned(self, problem: Problem) -> Plan:
        """UniPC itself."""
        return make_plan(problem.denoiser.path, self.base, self.grid, problem.evaluations)

    def __call__(self, problem: Problem) -> Plan:
        """The tuned plan."""
        times = self.untuned(problem).times
        return compensated(problem.denoiser.path, times, self.search(problem), self.base)

    def search(self, problem: Problem) -> Tensor:
        """The ratios of all steps, float64 (evaluations,)."""
        path, times = problem.denoiser.path, self.untuned(problem).times
        steps = len(times) - 1
        start = problem.starts(self.noises, part=1)
        pieces = max(1, round(self.fine / steps))
        target = problem.once("the teacher's states", lambda: taught(problem, "ddim", times, start, pieces))
        ratios, prefix = torch.ones(steps, dtype=torch.float64), Prefix(problem, start)
        for i in range(BEGIN, steps):
            # The way to the row, and a round.
            if f"ratio {i}" not in problem.state and not problem.left(problem.run_cost(4, self.noises)):
                break
            ratio = torch.ones((), dtype=torch.float64, requires_grad=True)

            def loss(i: int = i, ratio: Tensor = ratio) -> Tensor:
                tried = torch.cat([ratios[:i], ratio[None], ratios[i + 1 :]])
                last = i + 1 == steps
                plan = compensated(path, times, tried, self.base, None if last else i + 1)
                run, _ = prefix.go(plan, i + 1 if last else i + 2, grad=True)
                return off(prefix.state(run), target[i + 1])

            # Live ratios, so that no register which a candidate reads is left out as unread.
            prefix.move(compensated(path, times, ratios.clone().requires_grad_(), self.base), i)
            each, name = problem.run_cost(2, self.noises), f"ratio {i}"
            rounds = problem.affordable(name, self.rounds, each, ways=steps - i)
            more = partial(problem.left, each)
            descend([ratio], loss, rounds, self.rate, problem=problem, name=name, more=more)
            ratios[i] = ratio.detach()
        return ratios
