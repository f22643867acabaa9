"""EPD: the midpoint rule at known numbers, the formulas by hand, one batch for the inner points, and what it gains."""

import pytest
import torch

from fewstep import VP, Flow, make_plan, sample, wrap
from fewstep.errors import ArgumentError
from fewstep.tuning.parallel_gradients import ParallelGradients, parallel_plan
from fewstep.tuning.problem import Problem
from fewstep.tuning.random_mixtures import mixtures


def numbers(steps, count, value):
    return torch.full((steps, count), value, dtype=torch.float64)


def test_one_direction_in_the_middle_is_dpm_solver_2():
    path, times = VP(), torch.tensor([1.0, 0.7, 0.4, 0.1], dtype=torch.float64)
    one, x = numbers(3, 1, 1.0), torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    denoiser = wrap(lambda x, t: torch.tanh(2 * x) * (1 - t[:, None]), path, "x0", shape=(3,), time="t")
    plans = parallel_plan(path, times, 0.5 * one, one, one, one), make_plan(path, "dpm-solver-2", times)
    ends = [sample(denoiser, start=x, plan=plan).x for plan in plans]
    assert torch.allclose(*ends, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("path", "history"), [(VP(), 1), (VP(), 4), (Flow(), 3)])
def test_a_step_is_what_the_paper_says(path, history):
    generator = torch.Generator().manual_seed(1)
    r, w, c, o = (0.2 + 0.5 * torch.rand(5, 2, dtype=torch.float64, generator=generator) for _ in range(4))
    times = torch.tensor([1.0, 0.8, 0.65, 0.4, 0.2, 0.0], dtype=torch.float64)
    denoiser = wrap(lambda x, t: torch.tanh(2 * x) * (1 - t[:, None]), path, "x0", shape=(3,), time="t")
    x = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    out = sample(denoiser, start=x, plan=parallel_plan(path, times, r, w, c + 0.5, o + 0.5, history)).x

    def k(t):
        return path.alpha(t) + (path.sigma(t) if path.kind == "flow" else 0)

    def time(s):
        return path.t_of_lam(torch.log1p(-s) - s.log() if path.kind == "flow" else -s.log())

    y, past = x / k(times[0]), []
    ladder = [[1], [1.5, -0.5], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]
    for i in range(5):
        s, s2 = (path.sigma(t) / k(t) for t in times[i : i + 2])
        past = [(y - denoiser(y * k(times[i]), times[i])) / s, *past]
        weights = ladder[min(i, history - 1)]
        step = sum(a * d for a, d in zip(weights, past, strict=False))
        total = 0
        for j in range(2):
            mid = s ** (1 - r[i, j]) * (s2 if i < 4 else s / 10) ** r[i, j]
            there = y + (mid - s) * step
            asked = time(torch.minimum((c[i, j] + 0.5) * mid, 0.999 * path.sigma(times[0]) / k(times[0])))
            # The network is told another time and sees the state as it is.
            answer = denoiser(there * k(time(mid)), asked)
            total = total + w[i, j] * (o[i, j] + 0.5) * (there - answer) / mid
        y = y + (s2 - s) * total
    assert torch.allclose(out, y * k(times[-1]), rtol=1e-9, atol=1e-10)


def test_the_inner_points_are_asked_as_one_batch():
    sizes = []

    def net(x, t):
        sizes.append((len(x), len(set(t.tolist()))))
        return 0.5 * x

    denoiser = wrap(net, VP(), "x0", shape=(2,))
    plan = ParallelGradients(directions=3).untuned(Problem(denoiser, 8))
    out = sample(denoiser, 4, plan=plan)
    assert sizes == [(4, 1), (12, 3)] * 2
    assert out.stats.evaluations == plan.evaluations == 8


def test_it_gains_on_noises_that_it_never_saw():
    problem = Problem(mixtures(VP(), 8, 2)[1][0], 9, samples=16)
    tuner = ParallelGradients(rounds=40, rate=0.1, batch=16)
    plan, before = tuner(problem), tuner.untuned(problem)
    assert plan.evaluations == before.evaluations == 9
    assert problem.spent == 40 * 16 * 9
    start, ends = problem.pairs(32, part=0)
    assert problem.error(plan, start, ends) < problem.error(before, start, ends) / 2


def test_bad_arguments_are_refused():
    problem = Problem(mixtures(VP(), 8, 2)[1][0], 2)
    with pytest.raises(ArgumentError, match="a step costs 3 evaluations, got evaluations=2"):
        ParallelGradients()(problem)
    for name, value in {"directions": 0, "history": 5, "told": 1.0, "scaled": -0.1}.items():
        with pytest.raises(ArgumentError, match=f"{name} must"):
            ParallelGradients(**{name: value})
