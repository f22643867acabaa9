"""Picard iteration: tolerance 0 is the plan itself, windows, counts, rows, guides, and how the error follows."""

import math

import pytest
import torch

from fewstep import CFG, VP, Flow, sample, wrap
from fewstep.errors import ArgumentError, NumericalError
from fewstep.guidance import Guide
from fewstep.loops import loop_named
from fewstep.loops.picard import Picard, _posterior_variances
from fewstep.planning import make_plan
from fewstep.worlds import GaussianMixture

PLANS = ["ddpm", "ddim", "dpm-solver++", "heun"]
MEANS = torch.tensor([[-0.6, 0.5], [0.8, -0.1]], dtype=torch.float64)
LABELS = [0, 1, 2, 0]


def mixture(path=None):
    return GaussianMixture([0.3, 0.7], MEANS, torch.tensor([[0.0625, 0.1], [0.16, 0.05]])).denoiser(path or VP())


def labelled(rows=None):
    def net(x, t, label):
        if rows is not None:
            rows.append(len(x))
        return torch.tanh(2 * x) * (label.to(x.dtype)[:, None] + 1) / 4

    return wrap(net, VP(), "x0", shape=(2,), null={"label": 3})


@pytest.mark.parametrize("window", [1, 7, 100])
@pytest.mark.parametrize("solver", PLANS)
@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
def test_tolerance_zero_is_the_plan_itself(path, solver, window):
    den = mixture(path)
    want = sample(den, 3, solver=solver, grid="uniform", steps=24, seed=5, dtype=torch.float64)
    got = Picard(solver, "uniform", 24, 0.0, window)(den, 3, seed=5, dtype=torch.float64)
    assert torch.allclose(got.x, want.x, rtol=1e-10, atol=1e-10)
    assert got.plan == want.plan
    assert got.stats.rounds <= want.plan.steps
    if window == 1:
        assert (got.stats.rounds, got.stats.evaluations) == (want.plan.steps, want.stats.evaluations)


@pytest.mark.parametrize("solver", ["ddpm", "ddim", "dpm-solver++"])
def test_few_rounds_at_a_tolerance_and_an_error_that_follows_it(solver):
    den, errors, rounds = mixture(), [], []
    want = sample(den, 16, solver=solver, grid="uniform", steps=100, dtype=torch.float64).x
    for tolerance in (0.1, 0.01, 0.001):
        out = Picard(solver, "uniform", 100, tolerance)(den, 16, dtype=torch.float64)
        errors.append(float((out.x - want).square().mean().sqrt()))
        rounds.append(out.stats.rounds)
    assert errors[0] < 0.05
    assert errors[2] < errors[1] / 3 < errors[0] / 9
    assert rounds[0] < rounds[1] < rounds[2] < 50


def test_a_wider_window_needs_fewer_rounds_until_it_saturates():
    rounds = [Picard("ddim", "uniform", 60, 0.1, w)(mixture(), 4).stats.rounds for w in (1, 5, 20, 60)]
    assert rounds[0] == 60
    assert rounds[1] < 20
    assert rounds[2] < rounds[1]
    assert rounds[3] <= rounds[2]


def test_a_row_is_a_row_in_samples_and_counts():
    den = mixture()
    whole = loop_named("paradigms", steps=40)(den, 8, seed=1, dtype=torch.float64)
    alone = loop_named("paradigms", steps=40)(den, 1, seed=1, first=3, dtype=torch.float64)
    assert torch.allclose(whole.x[3:4], alone.x, rtol=1e-12, atol=1e-12)
    assert alone.stats.each == (whole.stats.each[3],)
    assert len(set(whole.stats.each)) > 1
    assert whole.stats.evaluations == max(whole.stats.each)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_counts_are_the_networks_own_with_guidance(scale):
    rows = []
    out = Picard("ddpm", steps=30)(labelled(rows), 4, cond={"label": LABELS}, guides=[CFG(scale)])
    assert len(rows) == out.stats.rounds
    assert sum(rows) == sum(out.stats.each)


class Noisy(Guide):
    level = "answer"

    def answer(self, ask, x0, state):
        return x0 + 0.1 * ask.noise(0) * ask.noise(1), state


def test_guides_see_the_draws_of_their_own_step():
    guides, cond = [CFG(2.0), Noisy()], {"label": LABELS}
    want = sample(labelled(), 4, solver="ddpm", grid="uniform", steps=12, guides=guides, cond=cond, dtype=torch.float64)
    got = Picard("ddpm", "uniform", 12, 0.0, 5)(labelled(), 4, guides=guides, cond=cond, dtype=torch.float64)
    assert torch.allclose(got.x, want.x, rtol=1e-10, atol=1e-10)


class Moves(Guide):
    level = "state"


class Remembers(Guide):
    level = "answer"

    def needs_order(self):
        return True

    def init(self, denoiser, batch):
        return 0


class Keeps(Guide):
    level = "answer"
    keeps = "eps"


def test_bad_arguments_guides_and_answers():
    for guide in (Moves(), Remembers(), Keeps()):
        with pytest.raises(ArgumentError, match=type(guide).__name__):
            Picard(steps=4)(mixture(), guides=[guide])
    for name, bad in (("tolerance", -0.1), ("tolerance", math.nan), ("window", 0), ("window", 2.5)):
        with pytest.raises(ArgumentError, match=name):
            Picard(**{name: bad})
    with pytest.raises(ArgumentError, match="steps"):
        Picard(steps=0)(mixture())
    with pytest.raises(NumericalError, match="not finite"):
        Picard(steps=4)(wrap(lambda x, t: x * torch.nan, VP(), "x0", shape=(2,)))


def test_the_yardstick_is_the_chains_posterior_variance():
    """ddpm's own noise coefficients, squared; the last two entries repeat the last positive one."""
    plan = make_plan(VP(), "ddpm", "uniform", 6)
    want = plan.N.value.square()
    assert len(want) == 5
    got = _posterior_variances(plan)
    assert torch.allclose(got, torch.cat([want, want[-1:], want[-1:]]), rtol=1e-12)
