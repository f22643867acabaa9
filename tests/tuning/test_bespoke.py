"""Bespoke solvers: the base method at the start, its order in any smooth scale and time, and a loss that is a bound."""

from dataclasses import replace

import pytest
import torch

from fewstep import VP, Flow, make_plan, sample, wrap
from fewstep.analysis import exact_flow
from fewstep.errors import ArgumentError
from fewstep.tuning.bespoke import Bespoke, Flowlines, ScaleTime
from fewstep.tuning.problem import Problem
from fewstep.tuning.random_mixtures import mixtures
from fewstep.worlds import Gaussian, GaussianMixture


def small_world(path):
    means = torch.tensor([[-1.0, 0.5], [0.8, -0.3], [0.2, 1.0]], dtype=torch.float64)
    return GaussianMixture(torch.tensor([0.5, 0.3, 0.2]), means, torch.full((3, 1), 0.05)).denoiser(path)


def noises(n, *shape, seed=0):
    return torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
def test_it_begins_with_the_midpoint_rule_on_the_paths_own_flow(path):
    denoiser, x = small_world(path), noises(5, 2)
    plan = ScaleTime.identity(path, 2, 4).plan()
    assert plan.evaluations == 8
    assert plan.steps == 8
    out = sample(denoiser, start=x, plan=plan).x

    def velocity(x, t):
        x0 = denoiser(x, t)
        eps = (x - path.alpha(t) * x0) / path.sigma(t)
        return -(path.d_alpha(t) * x0 + path.d_sigma(t) * eps)

    for i in range(4):
        t = 1 - i / 4
        x = x + velocity(x + velocity(x, t) / 8, t - 1 / 8) / 4
    assert torch.allclose(out, x, rtol=1e-10, atol=1e-10)


def test_the_scale_and_time_of_the_straight_path_make_euler_ddim():
    path = VP()
    top = float(path.sigma(1.0) / (path.alpha(1.0) + path.sigma(1.0)))

    def time(r):
        s = top * (1 - 0.999 * r)
        return path.t_of_lam(torch.log1p(-s) - s.log())

    numbers = ScaleTime.of(path, 1, 6, time, lambda r: 1 / (path.alpha(time(r)) + path.sigma(time(r))))
    plan, ddim = numbers.plan(), make_plan(path, "ddim", numbers.times)
    for table in "MB":
        assert torch.allclose(getattr(plan, table).value, getattr(ddim, table).value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("stages", "order"), [(1, 1), (2, 2)])
def test_any_smooth_scale_and_time_keeps_the_order_of_the_base(stages, order):
    path = Flow()
    denoiser, x = small_world(path), noises(8, 2)
    exact = exact_flow(denoiser, x, 0.9, 0.1)
    errors = []
    for steps in (20, 40):
        numbers = ScaleTime.of(
            path, stages, steps, lambda r: 0.9 - 0.8 * (0.6 * r + 0.4 * r**2), lambda r: 1 + 0.7 * torch.sin(2 * r)
        )
        errors.append(float((sample(denoiser, start=x, plan=numbers.plan()).x - exact).square().mean().sqrt()))
    slope = torch.tensor(errors[0] / errors[1]).log2()
    assert abs(float(slope) - order) < 0.2


def test_flow_lines_are_the_flow_and_their_slope_its_velocity():
    path = Flow()
    denoiser = small_world(path)
    problem = Problem(denoiser, 4)
    x = noises(3, 2)
    lines = Flowlines(problem, x)
    assert problem.spent == 128 * 3
    times = torch.tensor([1.0, 0.83, 0.4, 0.111, 0.0], dtype=torch.float64, requires_grad=True)
    states = lines.at(times, torch.arange(3))
    for t, state in zip(times[1:-1].tolist(), states[1:-1], strict=True):
        assert torch.allclose(state, exact_flow(denoiser, x, 1.0, t), atol=1e-3)
    assert torch.equal(states[0], x)
    assert torch.equal(states[-1], lines.states[-1])
    (slope,) = torch.autograd.grad(states[2, 1, 0], times)
    here = states[2].detach()
    velocity = (here - denoiser(here, 0.4)) / 0.4
    assert slope[2] == pytest.approx(float(velocity[1, 0]), rel=1e-2)
    assert not slope[[0, 1, 3, 4]].any()


@pytest.mark.parametrize("stages", [1, 2])
def test_the_loss_bounds_the_error_at_the_end(stages):
    path, variances = Flow(), torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    world = Gaussian(torch.zeros(3, dtype=torch.float64), variances)
    t = torch.linspace(0, 1, 400, dtype=torch.float64)[:, None]
    # The flow's velocity on this world is linear, with these factors.
    slopes = (t - (1 - t) * variances) / ((1 - t) ** 2 * variances + t**2)
    problem = Problem(world.denoiser(path), 6)
    lines, rows = Flowlines(problem, problem.starts(8, 1)), torch.arange(8)
    numbers = ScaleTime.of(path, stages, 3, lambda r: (1 - r) * (1 + 0.2 * r), lambda r: 1 + 0.3 * r)
    bound = Bespoke(stages, lipschitz=float(slopes.abs().max())).bound(problem, numbers, lines, rows)
    ends = lines.at(torch.zeros(1, dtype=torch.float64), rows)[0]
    error = (problem.run(numbers.plan(), problem.starts(8, 1)) - ends).square().mean(1).sqrt().mean()
    assert float(error) < float(bound) < 40 * float(error)


@pytest.mark.parametrize("stages", [1, 2])
def test_the_amplification_is_exact_where_the_flow_grows_evenly(stages):
    grows = wrap(lambda x, t: x * (1 + 0.7 * t[:, None]), Flow(), "x0", shape=(1,), time="t")
    numbers = ScaleTime.of(Flow(), stages, 4, lambda r: (1 - r) * (1 + 0.2 * r), lambda r: (0.4 * r).exp())
    one, k = torch.ones(1, 1, dtype=torch.float64), stages
    for i in range(3):
        here = {name: getattr(numbers, name)[k * (i + 1) :] for name in ("times", "scales", "paces", "growths")}
        rest = replace(numbers, **here)
        end = sample(grows, start=one, plan=rest.plan()).x
        assert float(end) == pytest.approx(float(numbers.amplification(0.7)[i]))
    assert numbers.amplification(0.7)[3] == 1


def test_the_steps_beside_each_other_are_the_steps():
    problem = Problem(small_world(Flow()), 6)
    numbers = ScaleTime.of(Flow(), 2, 3, lambda r: 1 - r**1.5, lambda r: 1 + r)
    lines, rows = Flowlines(problem, problem.starts(2, 1)), torch.arange(2)
    nodes, wide = lines.at(numbers.times[::2], rows), numbers.apart(2, 1)
    x = problem.run(wide.plan(), nodes[:-1].flatten(0, 1)).reshape(3, 2, 2)
    for i in range(3):
        here = slice(2 * i, 2 * i + 2)
        values = (numbers.paces[here], numbers.growths[here])
        one = ScaleTime(Flow(), 2, 1 / 3, numbers.times[2 * i : 2 * i + 3], numbers.scales[2 * i : 2 * i + 3], *values)
        assert torch.allclose(problem.run(one.plan(), nodes[i]), x[i], rtol=1e-12)


@pytest.mark.parametrize("stages", [1, 2])
def test_it_gains_on_noises_that_it_never_saw(stages):
    problem = Problem(mixtures(Flow(), 8, 2)[1][0], 6, samples=16)
    tuner = Bespoke(stages, rounds=60, rate=0.02)
    plan, before = tuner(problem), tuner.untuned(problem)
    assert plan.evaluations == before.evaluations == 6
    assert problem.spent == 128 * 16 + 60 * 16 * 6
    start, ends = problem.pairs(32, part=0)
    assert problem.error(plan, start, ends) < problem.error(before, start, ends) / 2


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="stages must be 1 or 2, got 3"):
        Bespoke(3)
    with pytest.raises(ArgumentError, match="learns must be"):
        Bespoke(learns="all")
    with pytest.raises(ArgumentError, match="samples must be at least 16"):
        Bespoke()(Problem(small_world(Flow()), 4, samples=4))
