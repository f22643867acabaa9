"""DC-Solver: UniPC at ratio 1, its formulas by hand, its search, and the regression of its ratios."""

import pytest
import torch

from fewstep import CFG, VP, make_plan, sample, wrap
from fewstep.errors import ArgumentError
from fewstep.solvers.predictor_corrector import PredictorCorrector
from fewstep.tuning.dynamic_compensation import Cascade, DynamicCompensation, compensated
from fewstep.tuning.pairs import off
from fewstep.tuning.problem import Problem
from fewstep.tuning.teacher import refined, taught
from fewstep.worlds import GaussianMixture

PATH = VP()
TIMES = torch.tensor([1.0, 0.8, 0.65, 0.4, 0.2, 0.0], dtype=torch.float64)


def tanh():
    return wrap(lambda x, t: torch.tanh(2 * x) * (1 - t[:, None]), PATH, "x0", shape=(3,), time="t")


def noises(n, d=3):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def classes():
    generator = torch.Generator().manual_seed(0)
    means = 0.6 * torch.randn(20, 64, dtype=torch.float64, generator=generator)
    labels = torch.arange(20) % 4
    return GaussianMixture(torch.ones(20), means, torch.full((20, 1), 0.05), component_labels=labels).denoiser(PATH)


@pytest.mark.parametrize("base", [PredictorCorrector(), PredictorCorrector(3, 3, "bh1"), PredictorCorrector(2, 0)])
def test_ratios_of_1_are_unipc(base):
    plans = compensated(PATH, TIMES, torch.ones(5, dtype=torch.float64), base), base(PATH, TIMES)
    ends = [sample(tanh(), start=noises(4), plan=plan).x for plan in plans]
    assert torch.allclose(*ends, rtol=1e-12, atol=1e-13)
    assert plans[0].order == base.order


@pytest.mark.parametrize("corrector", [0, 1])
def test_a_step_is_what_the_paper_says(corrector):
    ratios = torch.tensor([9.0, 9.0, 0.7, 1.3, 1.1], dtype=torch.float64)
    base, x, denoiser = PredictorCorrector(1, corrector), noises(4), tanh()
    end = sample(denoiser, start=x, plan=compensated(PATH, TIMES, ratios, base)).x
    y, past, states = x, [], []
    for i in range(5):
        m = denoiser(x, TIMES[i])
        y = keep * y + gain * (m + past[0][1]) / 2 if i and corrector else x  # noqa: F821
        states.append(y)
        if i >= 2:
            at = ratios[i] * TIMES[i] + (1 - ratios[i]) * TIMES[i - 1]
            points = [(TIMES[i], m), *past[:2]]
            m = sum(
                value * torch.stack([(at - s) / (t - s) for s, _ in points if s != t]).prod() for t, value in points
            )
        past = [(TIMES[i], m), *past]
        keep = PATH.sigma(TIMES[i + 1]) / PATH.sigma(TIMES[i])
        gain = PATH.alpha(TIMES[i + 1]) - PATH.alpha(TIMES[i]) * keep
        x = keep * y + gain * m
    assert torch.allclose(end, x, rtol=1e-10, atol=1e-12)
    for until in (1, 3, 4):
        plan = compensated(PATH, TIMES, ratios, base, until)
        state = sample(denoiser, start=noises(4), plan=plan).x
        assert torch.allclose(state, states[until], rtol=1e-10, atol=1e-12)


def test_the_teacher_stands_at_the_students_times():
    fine = refined(PATH, TIMES, 4)
    assert torch.equal(fine[::4], TIMES)
    assert (fine.diff() < 0).all()
    problem, x = Problem(tanh(), 5), noises(4)
    for solver in ("ddim", "heun"):
        problem.spent = 0
        states = taught(problem, solver, TIMES, x, 4)
        assert problem.spent == 4 * make_plan(PATH, solver, fine).evaluations
        assert torch.equal(states[0], x)
        for i in (1, 3, 5):
            part = make_plan(PATH, solver, fine[: 4 * i + 1])
            # The step to t = 0 is the one that differs, and only the last has it.
            assert torch.allclose(states[i], sample(tanh(), start=x, plan=part).x, rtol=1e-12)


def test_each_ratio_brings_the_corrected_state_to_the_teachers():
    problem, tuner = Problem(tanh(), 5), DynamicCompensation(noises=4, fine=20, rounds=30)
    times, ratios = tuner.untuned(problem).times, tuner.search(problem)
    start = problem.starts(4, part=1)
    states = taught(problem, "ddim", times, start, 4)
    for row in (2, 3, 4):

        def missed(change, row=row):
            other = ratios.clone()
            other[row] += change
            plan = compensated(PATH, times, other, tuner.base, None if row == 4 else row + 1)
            return float(off(problem.run(plan, start), states[row + 1]))

        assert missed(0) <= min(missed(0.05), missed(-0.05))


@pytest.mark.parametrize("corrector", [2, 0])
def test_ten_noises_are_enough_for_others_under_guidance(corrector):
    problem = Problem(classes(), 8, cond={"label": [0, 1, 2, 3]}, guides=[CFG(7.5)])
    start, ends = problem.pairs(24, part=0)
    problem.spent = 0
    tuner = DynamicCompensation(corrector=corrector, rounds=15)
    plan, before = tuner(problem), tuner.untuned(problem)
    assert plan.evaluations == before.evaluations == 8
    # Two answers a round, guidance one more each, and one at the last step; the teacher; the way to each row.
    assert problem.spent == 10 * 2 * (200 + 15 * (5 * 2 + 1) + 7)
    assert problem.error(plan, start, ends) < 0.9 * problem.error(before, start, ends)


def test_the_regression_finds_the_ratios_that_it_can_express():
    factors = torch.randn(4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    known = Cascade(factors)
    found = {(n, w): known.ratios(n, w).tolist() for n in (6, 9, 14) for w in (1.5, 5.0, 9.0)}
    for n, w in ((11, 7.5), (7, 3.0)):
        assert torch.allclose(Cascade.fit(found).ratios(n, w), known.ratios(n, w), rtol=1e-6)
    by_hand = sum(
        float(factors[a, b, c]) * (4 / 7) ** a * (3 / 12) ** b * (7 / 50) ** c
        for a in range(4) for b in range(3) for c in range(3)
    )  # fmt: skip
    assert float(known.ratios(7, 3.0)[3]) == pytest.approx(by_hand)
    assert known.ratios(7, 3.0)[:2].tolist() == [1, 1]
    with pytest.raises(ArgumentError, match="more than 2 steps"):
        Cascade.fit({(2, 1.0): [1.0, 1.0]})
