"""GAS: the known solver at zero, its rows by hand, gradients in every number, its adversary, and what it gains."""

import pytest
import torch

from fewstep import VP, Flow, make_plan, sample, wrap
from fewstep.errors import ArgumentError
from fewstep.tuning.adversary import Adversary
from fewstep.tuning.generalised_solver import GeneralisedSolver, generalised
from fewstep.tuning.problem import Problem
from fewstep.tuning.random_mixtures import mixtures

TIMES = torch.tensor([1.0, 0.75, 0.5, 0.3, 0.1, 0.0], dtype=torch.float64)


def tanh(path):
    return wrap(lambda x, t: torch.tanh(2 * x) * (1 - t[:, None]), path, "x0", shape=(3,), time="t")


def noises(n):
    return torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def numbers(*shape, seed):
    return 0.2 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
def test_it_begins_with_the_known_solver(path):
    zero = torch.zeros(5, 5, dtype=torch.float64)
    plans = generalised(path, TIMES, zero[0], zero, zero), make_plan(path, "dpm-solver++3m", TIMES)
    ends = [sample(tanh(path), start=noises(4), plan=plan).x for plan in plans]
    assert torch.allclose(*ends, rtol=1e-12)
    live = generalised(path, TIMES, *(v.clone().requires_grad_() for v in (zero[0], zero, zero)))
    assert torch.allclose(sample(tanh(path), start=noises(4), plan=live).x.detach(), ends[0], rtol=1e-12)


@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
def test_a_step_weighs_all_earlier_states_and_answers(path):
    shifts, states, answers = numbers(5, seed=1), numbers(5, 5, seed=2), numbers(5, 5, seed=3)
    out = sample(tanh(path), start=noises(4), plan=generalised(path, TIMES, shifts, states, answers)).x
    x, past_x, past_m = noises(4), [], []
    for i, step in enumerate(make_plan(path, "dpm-solver++3m", TIMES)):
        t = TIMES[i]
        told = t if path.alpha(t) == 0 else min(t * (1 + shifts[i]), torch.ones_like(t))
        m = tanh(path)(x, told)
        if told != t:
            eps = (x - path.alpha(told) * m) / path.sigma(told)
            m = (x - path.sigma(t) * eps) / path.alpha(t)
        past_x, past_m = [x, *past_x], [m, *past_m]
        theory = {("B", 0): m, ("M", 0): x, **{("M", j): past_m[j] for j in (1, 2) if j <= i}}
        x = sum(value * theory[kind, source] for kind, source, value in step.writes[0])
        for j in range(i + 1):
            size, before = (path.alpha(t) + path.sigma(t) for t in (TIMES[i + 1], TIMES[i - j]))
            x = x + states[i, j] * size / before * past_x[j] + answers[i, j] * past_m[j]
    assert torch.allclose(out, x, rtol=1e-9)


def test_every_number_has_its_gradient():
    path, x = VP(), noises(2)

    def end(inner, shifts, states, answers):
        times = torch.cat([TIMES[:1], inner, TIMES[-1:]])
        return sample(tanh(path), start=x, plan=generalised(path, times, shifts, states, answers), grad=True).x

    given = TIMES[1:3], numbers(3, seed=1) - 0.1, numbers(3, 3, seed=2), numbers(3, 3, seed=3)
    assert torch.autograd.gradcheck(end, tuple(v.clone().requires_grad_() for v in given), atol=1e-5)


def test_it_gains_on_noises_that_it_never_saw():
    problem = Problem(mixtures(VP(), 8, 2)[1][0], 4, samples=16)
    tuner = GeneralisedSolver(rounds=25, rate=0.02, batch=16, adversarial=0.0)
    plan, before = tuner(problem), tuner.untuned(problem)
    assert plan.evaluations == before.evaluations == 4
    assert problem.spent == 25 * 16 * 4
    start, ends = problem.pairs(32, part=0)
    assert problem.error(plan, start, ends) < 0.6 * problem.error(before, start, ends)


@pytest.mark.parametrize("learns", ["times", "coefficients"])
def test_what_is_not_learned_stays(learns):
    problem = Problem(tanh(VP()), 3, samples=8)
    tuner = GeneralisedSolver(learns, rounds=3, batch=8, adversarial=0.0)
    plan, before = tuner(problem), tuner.untuned(problem)
    assert torch.allclose(plan.times, before.times, rtol=1e-12) == (learns == "coefficients")
    assert torch.allclose(plan.ask_times, before.ask_times, rtol=1e-12) == (learns == "coefficients")
    assert ("X1" in [plan.registers[c] for _, to, c in plan.M.index.tolist() if to == 0]) == (learns == "coefficients")


def test_the_second_stage_goes_on_from_the_first():
    problem = Problem(tanh(VP()), 3, samples=16)
    tuner = GeneralisedSolver(rounds=8, batch=8, adversarial=1.0, adversarial_rounds=4)
    plan, again = tuner(problem), tuner(Problem(tanh(VP()), 3, samples=16))
    first = GeneralisedSolver(rounds=8, batch=8, adversarial=0.0)(Problem(tanh(VP()), 3, samples=16))
    assert plan == again
    assert plan != first
    assert torch.allclose(plan.times, first.times, atol=0.01)


def test_the_adversary_tells_apart_and_pushes_together():
    adversary = Adversary((2,), 16, 0.2, 1e-2, seed=0)
    generator = torch.Generator().manual_seed(0)
    fake, real = (torch.randn(64, 2, dtype=torch.float64, generator=generator) + m for m in (-1.0, 1.0))
    losses = [adversary.learn(fake, real) for _ in range(60)]
    assert losses[-1] < 0.7 * losses[0]
    fake.requires_grad_()
    adversary.fools(fake, real).backward()
    # Downhill for the fakes is towards the real ones.
    assert (-fake.grad).mean(0).min() > 0
    before = adversary.net[1].weight.detach().clone()
    assert torch.equal(before, adversary.net[1].weight)
    assert adversary.net[1].weight.requires_grad


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="learns must be"):
        GeneralisedSolver("none")
    with pytest.raises(ArgumentError, match="adversarial must be"):
        GeneralisedSolver(adversarial=-1.0)
    with pytest.raises(ArgumentError, match="samples must be at least 32"):
        GeneralisedSolver()(Problem(tanh(VP()), 3, samples=8))
