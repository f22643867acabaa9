"""Timestep aligner: what a told time means, its formula by hand, and where it gains and where it over-corrects."""

import itertools

import pytest
import torch

from fewstep import VP, Flow, make_plan, sample, wrap
from fewstep.errors import ArgumentError
from fewstep.tuning.problem import Problem
from fewstep.tuning.rewriting import told_noise
from fewstep.tuning.timestep_aligner import TimestepAligner, aligned
from fewstep.worlds import Gaussian

PATH = VP()
TIMES = torch.tensor([1.0, 0.7, 0.4, 0.1], dtype=torch.float64)


def tanh(path, predicts="x0"):
    return wrap(lambda x, t: torch.tanh(2 * x) * (1 - t[:, None]), path, predicts, shape=(3,), time="t")


def noises(n, d=3):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
def test_the_noise_that_was_told_is_kept(path):
    x, told = noises(3), torch.tensor(0.55, dtype=torch.float64)
    t = torch.tensor(0.4, dtype=torch.float64)
    on_x, on_answer = told_noise(path, t, told)
    answer = tanh(path)(x, told)
    eps = (x - path.alpha(told) * answer) / path.sigma(told)
    assert torch.allclose(on_x * x + on_answer * answer, (x - path.sigma(t) * eps) / path.alpha(t), rtol=1e-12)
    assert [float(v) for v in told_noise(path, t, t)] == [0, 1]
    start = told_noise(Flow(), torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    assert [float(v) for v in start] == [0, 1]


@pytest.mark.parametrize("predicts", ["x0", "eps", "v"])
def test_ddim_hears_the_noise_of_other_times(predicts):
    ratios, denoiser = torch.tensor([0.9, 1.2, 0.7], dtype=torch.float64), tanh(PATH, predicts)
    x = noises(4)
    out = sample(denoiser, start=x, plan=aligned(make_plan(PATH, "ddim", TIMES), ratios)).x
    for ratio, (s, t) in zip(ratios, itertools.pairwise(TIMES), strict=True):
        answer = denoiser(x, ratio * s)
        eps = (x - PATH.alpha(ratio * s) * answer) / PATH.sigma(ratio * s)
        x = PATH.alpha(t) * (x - PATH.sigma(s) * eps) / PATH.alpha(s) + PATH.sigma(t) * eps
    assert torch.allclose(out, x, rtol=1e-9)


def test_ratios_of_1_are_the_solver_and_times_stay_within_the_path():
    for solver in ("ddim", "dpm-solver++", "dpm-solver-2"):
        plan = make_plan(PATH, solver, TIMES)
        same = aligned(plan, torch.ones(plan.steps, dtype=torch.float64))
        ends = [sample(tanh(PATH), start=noises(4), plan=one).x for one in (plan, same)]
        assert torch.allclose(*ends, rtol=1e-12)
        assert same.order == plan.order
    far = aligned(make_plan(Flow(), "ddim", TIMES), torch.tensor([0.5, 1.2, -1.0], dtype=torch.float64))
    assert far.ask_times.tolist() == pytest.approx([1.0, 0.84, 0.004])
    assert far.deviates


def test_it_makes_the_noise_at_the_end_of_a_step_that_of_its_start():
    variances = torch.tensor([0.3, 0.3], dtype=torch.float64)
    problem = Problem(Gaussian(torch.zeros(2, dtype=torch.float64), variances).denoiser(PATH), 2, samples=8)
    plan = make_plan(PATH, "ddim", torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64))
    tuned = TimestepAligner(rounds=40, rate=0.05, batch=8, towards="noise").fit(problem, plan)
    # Noise is a number times the state here, ε̂ = g(t)·x with g = σ/(α²c + σ²): the told time has the right number.
    s, t = plan.times[:2]

    def g(t):
        return PATH.sigma(t) / (PATH.alpha(t) ** 2 * 0.3 + PATH.sigma(t) ** 2)

    def off(told):
        state = PATH.alpha(t) / PATH.alpha(s) * (1 - PATH.sigma(s) * g(told)) + PATH.sigma(t) * g(told)
        return (g(t) * state - g(s)).square()

    # From ρ = 1 on, downhill; far below is another valley.
    every = off(torch.linspace(0.3, 1, 500, dtype=torch.float64))
    assert off(tuned.ask_times[0]) < every.min() + 1e-4 < off(s) * 0.9
    assert tuned.ask_times[1] == plan.ask_times[1]
    assert problem.spent == 8 * (1 + 2 * 40)


def test_it_gains_at_few_steps_and_over_corrects_one_axis_at_many():
    def errors(variances, steps):
        c = torch.tensor(variances, dtype=torch.float64)
        problem = Problem(Gaussian(torch.zeros(len(c), dtype=torch.float64), c).denoiser(PATH), steps)
        start = problem.starts(512, part=0)
        ends = PATH.alpha(0.001) ** 2 * c + PATH.sigma(0.001) ** 2
        exact = start * (ends / (PATH.alpha(1.0) ** 2 * c + PATH.sigma(1.0) ** 2)).sqrt()
        plan = make_plan(PATH, "ddim", torch.linspace(1, 0.001, steps + 1, dtype=torch.float64))
        tuned = TimestepAligner(rounds=20, rate=0.1, batch=32, towards="noise").fit(problem, plan)
        return [float((problem.run(one, start) - exact).square().sum(1).mean().sqrt()) for one in (plan, tuned)]

    before, after = errors([1.0, 0.1, 0.01], 5)
    assert before == pytest.approx(0.374, rel=0.1)
    assert after < 0.97 * before
    before, after = errors([0.25], 16)
    assert after > 1.2 * before


def test_a_solver_with_noise_is_refused():
    with pytest.raises(ArgumentError, match="asks once a row"):
        TimestepAligner("sde-dpm-solver++")(Problem(tanh(PATH), 3))
