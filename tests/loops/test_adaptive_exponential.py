"""DPM-Solver-12 and -23: the orders of the pair, control against a plain reference, rows, replay and counts."""

import math

import pytest
import torch

from fewstep import CFG, VE, VP, Cosine, Flow, Plan, sample, wrap
from fewstep.analysis import exact_flow, measured_order
from fewstep.errors import ArgumentError, NumericalError
from fewstep.guidance import Guide
from fewstep.loops import loop_named
from fewstep.loops.adaptive_exponential import AdaptiveExponential
from fewstep.loops.exponential_pair import REGISTERS, exponential_pair
from fewstep.session import prepare
from fewstep.worlds import GaussianMixture

PATHS = [VP(), VE(), Flow(), Cosine()]
MEANS = torch.tensor([[-0.6, 0.5], [0.8, -0.1]], dtype=torch.float64)


def mixture():
    return GaussianMixture([0.3, 0.7], MEANS, torch.tensor([[0.0625, 0.1], [0.16, 0.05]]))


class Pair:
    stochastic = False

    def __init__(self, order):
        self.order = order

    def __call__(self, path, times, source=None):
        return exponential_pair(path, times, self.order, source or {})


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("path", [VP(), Flow()], ids=str)
def test_the_higher_answer_has_its_order(path, order):
    assert measured_order(Pair(order), path) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("order", [2, 3])
def test_the_lower_answer_has_one_order_less(order):
    """Its error over one step falls like h^p, not like h^{p+1}."""
    path, den, errors = VP(), mixture().denoiser(VP()), []
    x = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for h in (0.1, 0.05):
        plan = exponential_pair(path, path.t_of_lam(torch.tensor([-0.2, h - 0.2], dtype=torch.float64)), order, {})
        program = prepare(den, None, start=x, plan=plan)
        run = program.program.start(x, {}, program.noise)
        for i in range(plan.steps):
            program.program.step(run, i)
        low = run.registers[plan.registers.index("low")]
        errors.append((low - exact_flow(den, x, *plan.times[[0, -1]].tolist(), tolerance=1e-12)).norm())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


def reference(world, path, x, order, atol, rtol):
    """Lu et al.'s control for one sample, in noise form and plain numbers; (x, tries, rejected)."""

    def eps(x, lam):
        t = path.t_of_lam(lam)
        return (x - path.alpha(t) * world.denoise(x[None], path, t)[0]) / path.sigma(t)

    def level(lam):
        t = path.t_of_lam(lam)
        return float(path.alpha(t)), float(path.sigma(t))

    def first(x, e, lam, h):
        (a, _), (b, s) = level(lam), level(lam + h)
        return b / a * x - s * math.expm1(h) * e

    lam, end, h, before, tries, rejected = float(path.lam(1.0)), math.log(100), 0.05, x, 0, 0
    while lam < end:
        h = min(h, end - lam)
        e0, s = eps(x, lam), level(lam + h)[1]
        if order == 2:
            low = first(x, e0, lam, h)
            e1 = eps(first(x, e0, lam, h / 2), lam + h / 2)
            high = low - s * math.expm1(h) * (e1 - e0)
        else:
            e1 = eps(first(x, e0, lam, h / 3), lam + h / 3)
            low = first(x, e0, lam, h) - 1.5 * s * math.expm1(h) * (e1 - e0)
            r, s2 = 2 * h / 3, level(lam + 2 * h / 3)[1]
            u2 = first(x, e0, lam, r) - 2 * s2 * (math.expm1(r) / r - 1) * (e1 - e0)
            high = first(x, e0, lam, h) - 1.5 * s * (math.expm1(h) / h - 1) * (eps(u2, lam + r) - e0)
        delta = torch.maximum(low.abs(), before.abs()).mul(rtol).clamp_min(atol)
        error = float(((high - low) / delta).square().mean().sqrt())
        tries += 1
        if error <= 1:
            lam, x, before = lam + h if lam + h < end else end, high, low
        else:
            rejected += 1
        h = min(0.9 * h * error ** (-1 / order), 4.0)
    t = path.t_of_lam(end)
    return world.denoise(x[None], path, t)[0], tries, rejected


@pytest.mark.parametrize("order", [2, 3])
def test_equals_a_plain_reference(order):
    world, path = mixture(), VP()
    out = AdaptiveExponential(order, atol=1e-3, rtol=0.01)(world.denoiser(path), 3, dtype=torch.float64)
    start = prepare(world.denoiser(path), 3, steps=1, dtype=torch.float64).start
    for i in range(3):
        x, tries, rejected = reference(world, path, start[i], order, 1e-3, 0.01)
        assert torch.allclose(out.x[i], x, rtol=1e-9, atol=1e-9)
        assert (out.stats.each[i], out.stats.rejected[i]) == (order * tries + 1, rejected)
        assert rejected > 0
    assert out.stats.evaluations == max(out.stats.each)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_error_follows_the_tolerance(path):
    den, errors = mixture().denoiser(path), []
    x = float(path.sigma(1.0)) * torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    exact = exact_flow(den, x)
    for tolerance in (3e-2, 3e-3, 3e-4):
        out = AdaptiveExponential(3, atol=tolerance, rtol=0.0, ratio_min=1e-4)(den, start=x)
        errors.append(float((out.x - exact).square().mean().sqrt()))
        assert errors[-1] < 5 * tolerance
    assert errors[2] < errors[1] / 3 < errors[0] / 9


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_a_row_alone_and_the_plan_that_ran_make_the_same_sample(path, tmp_path):
    den = mixture().denoiser(path)
    out = loop_named("dpm-solver-adaptive")(den, 6, dtype=torch.float64, seed=2)
    alone = loop_named("dpm-solver-adaptive")(den, 1, dtype=torch.float64, seed=2, first=4)
    assert torch.allclose(out.x[4:5], alone.x, rtol=1e-12, atol=1e-12)
    assert alone.stats.evaluations == alone.stats.each[0] == out.stats.each[4]
    assert len(set(out.stats.each)) > 1
    start = prepare(den, 6, dtype=torch.float64, seed=2, steps=1).start
    assert torch.allclose(sample(den, start=start, plan=out.plan).x, out.x, rtol=1e-9, atol=1e-9)
    out.plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == out.plan
    assert REGISTERS[1] in out.plan.registers
    assert float(out.plan.times[0].min()) == 1.0
    assert not out.plan.times[-1].any()


def test_evaluations_are_the_networks_own_count_with_guidance():
    rows = []

    def net(x, t, label):
        rows.append(len(x))
        return torch.tanh(x) * (label.to(x.dtype)[:, None] + 1) / 4

    den = wrap(net, VP(), "x0", shape=(2,), null={"label": 3})
    out = AdaptiveExponential(2)(den, 4, cond={"label": [0, 1, 2, 0]}, guides=[CFG(2.0)])
    assert sum(rows) == 4 * out.stats.evaluations
    plain = AdaptiveExponential(2)(den, 4, cond={"label": [0, 1, 2, 0]})
    same = AdaptiveExponential(2)(den, 4, cond={"label": [0, 1, 2, 0]}, guides=[CFG(1.0)])
    assert torch.equal(plain.x, same.x)
    assert not torch.allclose(plain.x, out.x, atol=1e-3)


class Shift(Guide):
    level = "state"


def test_bad_arguments_and_answers():
    den = mixture().denoiser(VP())
    for bad in (
        {"order": 1},
        {"atol": 0.0},
        {"rtol": -1.0},
        {"first_step": 0.0},
        {"safety": 1.5},
        {"ratio_min": 200.0},
    ):
        with pytest.raises(ArgumentError):
            AdaptiveExponential(**bad)
    with pytest.raises(ArgumentError, match="move the state"):
        AdaptiveExponential()(den, guides=[Shift()])
    with pytest.raises(ArgumentError, match="denoiser"):
        AdaptiveExponential()(None)
    with pytest.raises(ArgumentError, match="loop"):
        loop_named("dpm-solver-adaptiv")
    with pytest.raises(ArgumentError, match="tolerance"):
        loop_named("dpm-solver-adaptive", tolerance=1.0)
    with pytest.raises(NumericalError, match="not finite"):
        AdaptiveExponential()(wrap(lambda x, t: x * torch.nan, VP(), "x0", shape=(2,)))
    with pytest.raises(NumericalError, match="tolerance"):
        AdaptiveExponential(atol=1e-11, rtol=0.0)(den, 1)
