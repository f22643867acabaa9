"""FK steering against the exact tilt: right with all rules, biased where printed rules are, plain where it must be."""

import importlib.util
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from fewstep import CFG, VP, make_plan, sample
from fewstep.errors import ArgumentError, NumericalError
from fewstep.guidance.higs import HiGS
from fewstep.search import CollapseWarning, Reward, Rollouts, TiltedMixture
from fewstep.search.feynman_kac import FKSteering
from fewstep.search.particles import widened
from fewstep.search.rewards import Scorer
from fewstep.search.values import Looking
from fewstep.session import prepare
from fewstep.worlds import GaussianMixture

_spec = importlib.util.spec_from_file_location("bench", Path(__file__).with_name("bench.py"))
bench = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bench)


def steer(n=1, plan=None, **parameters):
    return sample(
        bench.DENOISER, n, search=FKSteering(bench.first, **parameters), plan=plan or bench.plan(), dtype=torch.float64
    )


def test_the_bench_is_what_its_formulas_say():
    x = bench.TILT.target.sample(200000, seed=1)
    assert bench.moments(x) == pytest.approx(bench.EXACT, abs=0.015)
    x, t = torch.tensor([[0.4], [-2.0]], dtype=torch.float64), 0.08
    draws = bench.WORLD.posterior(torch.ones(1, 1), x[0], 0.8).sample(400000, seed=2)
    assert float(bench.value(x, t)[0]) == pytest.approx(math.log(float(draws.exp().mean())), abs=0.01)
    assert float(bench.value(x, 1e-9)[1]) == pytest.approx(-2.0, abs=1e-6)


@pytest.mark.parametrize(
    ("value", "rule"), [("mean", "multinomial"), ("mean", "residual"), (bench.value, "systematic")]
)
def test_difference_samples_the_tilt(value, rule):
    out = steer(particles=12000, value=value, resample=rule)
    assert bench.moments(out.particles, out.weights.shares) == pytest.approx(bench.EXACT, abs=0.07)
    assert float(out.weights.evidence) == pytest.approx(bench.TILT.evidence, abs=0.04)
    assert out.stats.evaluations == 12000 * 201
    assert out.stats.rewards == 12000 * (10 if value == "mean" else 1)


@pytest.mark.parametrize(
    ("k", "runs", "law", "best", "drawn_best"),
    [(4, 1200, (0.846, 1.17, 1.26), 1.30, 1.32), (16, 400, (0.914, 1.39, 0.81), 2.01, 1.98)],
)
def test_few_particles_tilt_too_little_and_gain_nothing_over_the_best_of_n(k, runs, law, best, drawn_best):
    """The references are k particles of ten multinomial weighings by x̂₀, and the best of as many plain samples."""
    out = steer(runs, particles=k, resample="multinomial")
    assert bench.moments(out.x) == pytest.approx(law, abs=0.17)
    assert bench.moments(out.x)[0] == pytest.approx(law[0], abs=0.045)
    assert float(out.scores.max(1).values.mean()) == pytest.approx(best, abs=0.13)
    plain = steer(runs, particles=k, strength=0.0, weighings=1, plan=bench.plan(100), pick="best")
    assert float(plain.rewards.mean()) == pytest.approx(drawn_best, abs=0.1)


def test_the_exact_drift_samples_the_tilt_and_shares_of_it_are_what_few_candidates_of_svdd_give():
    """z moves by D·∇V beside the ancestral step, D = σ̄_t² − σ̄_s²; this grid costs .03 of the mean.

    Shares 1 − 1/M of the drift are those of M = 2, 5 and 20 candidates; a share of 0 is the sampler alone.
    """
    shares = torch.tensor([0.0, 0.5, 0.8, 0.95, 1.0], dtype=torch.float64).repeat_interleave(5000)[:, None]
    noise = torch.Generator().manual_seed(0)
    z = 10 * torch.randn(shares.shape, generator=noise, dtype=torch.float64)
    for t, s in pairwise(bench.levels().clamp_max(1.0)):
        kept = (s / t) ** 2
        asked = z.requires_grad_()
        slope = torch.autograd.grad(bench.value(asked, t).sum(), asked)[0]
        z, x0 = z.detach(), bench.WORLD.denoise(z.detach(), bench.PATH, t)
        fresh = torch.randn(z.shape, generator=noise, dtype=torch.float64)
        z = x0 + kept * (z - x0) + 100 * (t**2 - s**2) * shares * slope + 10 * s * (1 - kept).sqrt() * fresh
    none, *some, whole = (bench.moments(part) for part in z.reshape(5, -1, 1))
    assert none == pytest.approx(bench.UNSTEERED, abs=0.1)
    assert [law[0] for law in some] == pytest.approx([0.707, 0.850, 0.903], abs=0.02)
    assert whole == pytest.approx(bench.EXACT, abs=0.09)
    assert whole == pytest.approx((0.916, 1.397, 0.787), abs=0.13)


def test_values_from_means_fall_short_by_half_the_variance_that_is_left():
    """V − κaᵀx̂₀ = ½κ²Var[aᵀx₀ | x_t] on one Gaussian, the same at every x_t; on two modes more where they meet."""
    one = GaussianMixture([1.0], torch.tensor([[0.5]]), torch.tensor([[0.3]]))
    x = torch.tensor([[-2.0], [0.1], [3.0]], dtype=torch.float64)
    for t in (0.02, 0.3):
        left = 0.3 * (10 * t) ** 2 / (0.3 + (10 * t) ** 2)
        exact = TiltedMixture(one, torch.ones(1), 2.0).value(bench.PATH, x, t)
        short = exact - 2.0 * one.denoise(x, bench.PATH, t)[:, 0]
        assert torch.allclose(short, torch.full((3,), 2.0 * left, dtype=torch.float64), rtol=1e-6)
    short = bench.value(x, 0.1) - bench.WORLD.denoise(x, bench.PATH, 0.1)[:, 0]
    assert float(short.min()) > 0
    assert float(short[1]) > 2 * float(short[0])


def test_few_distinct_particles_survive_a_late_weighing():
    """Late weights are nearly equal, and four multinomial draws of four leave 4·(1 − (¾)⁴) = 2.73; the reference: 2.75.

    Systematic draws of nearly equal weights lose none.
    """
    left = {}
    for rule in ("multinomial", "systematic"):
        late = steer(700, particles=4, resample=rule).weights.ancestors[-2]
        left[rule] = sum(len(set(row)) for row in late.tolist()) / 700
    assert left["multinomial"] == pytest.approx(2.75, abs=0.08)
    assert left["systematic"] > 3.9


def test_a_twisted_proposal_keeps_the_law_and_more_effective_particles():
    plain, twisted = (steer(particles=6000, plan=bench.plan(100), below=0.0, twisted=t) for t in (False, True))
    assert bench.moments(twisted.particles, twisted.weights.shares) == pytest.approx(bench.EXACT, abs=0.09)
    assert float(twisted.weights.evidence) == pytest.approx(bench.TILT.evidence, abs=0.05)
    sizes = [float(out.weights.effective[-1]) / 6000 for out in (plain, twisted)]
    assert sizes[0] < 0.5 < 0.62 < sizes[1]
    # Every step asks for the slope's value once, and the end for the reward itself.
    assert twisted.stats.rewards == 6000 * 102
    assert twisted.stats.evaluations == plain.stats.evaluations == 6000 * 101


def test_a_twisted_proposal_may_lean_on_any_plan_and_a_run_is_the_same_alone():
    plan = bench.plan(50, "sde-dpm-solver++")
    out = steer(particles=6000, plan=plan, below=0.5, twisted=True, resample="residual")
    assert bench.moments(out.particles, out.weights.shares)[:2] == pytest.approx(bench.EXACT[:2], abs=0.09)
    search = FKSteering(bench.first, particles=5, weighings=4, twisted=True)
    whole = sample(bench.DENOISER, 3, search=search, plan=bench.plan(12), seed=9)
    alone = sample(bench.DENOISER, 1, search=search, plan=bench.plan(12), seed=9, first=1)
    assert torch.allclose(whole.particles[1:2], alone.particles, atol=1e-5)
    one = FKSteering(lambda x: 0 * x[:, 0], particles=1, twisted=True)
    plain = sample(bench.DENOISER, 3, plan=bench.plan(12), seed=9).x
    assert torch.allclose(sample(bench.DENOISER, 3, search=one, plan=bench.plan(12), seed=9).x, plain, atol=1e-6)


def test_what_a_twisted_proposal_cannot_use_is_refused():
    for reward, plan, says in (
        (lambda x: x[:, 0].detach(), bench.plan(12), "differentiable"),
        (bench.first, bench.plan(12, "ddim"), "plan without noise"),
    ):
        search = FKSteering(reward, particles=2, weighings=1, twisted=True)
        with pytest.raises(ArgumentError, match=says):
            sample(bench.DENOISER, 1, search=search, plan=plan)


def test_the_error_falls_at_the_monte_carlo_rate():
    errors = []
    for k in (8, 32, 128, 512):
        out = steer(60, particles=k, plan=bench.plan(60, "sde-dpm-solver++"), below=0.5)
        means = (out.weights.shares * out.particles[..., 0]).sum(1)
        errors.append(float((means - bench.EXACT[1]).square().mean().sqrt()))
    slope = math.log(errors[-1] / errors[1]) / math.log(512 / 32)
    assert slope == pytest.approx(-0.5, abs=0.12)
    assert errors[0] < 1.2


def test_max_and_sum_tend_to_the_tilt_and_their_printed_ends_do_not():
    plan = bench.plan(60)
    for potential in ("max", "sum"):
        exact = steer(particles=12000, plan=plan, potential=potential, weighings=2)
        assert bench.moments(exact.particles, exact.weights.shares) == pytest.approx(bench.EXACT, abs=0.08)
        printed = steer(particles=12000, plan=plan, potential=potential, weighings=6, ending="running")
        assert bench.moments(printed.particles, printed.weights.shares)[1] > bench.EXACT[1] + 0.2


@pytest.mark.filterwarnings("ignore::fewstep.search.CollapseWarning")
@pytest.mark.parametrize(
    ("potential", "value", "mean", "variance"),
    [("max", "mean", 1.60, 0.210), ("sum", "mean", 2.48, 0.035), ("sum", bench.value, 2.42, 0.048)],
)
def test_ten_weighings_by_max_or_sum_are_far_off_at_many_particles(potential, value, mean, variance):
    """The references are those of 100,000 particles, for a mean of 1.438 and a variance of .721."""
    out = steer(4, particles=8000, potential=potential, value=value, resample="multinomial")
    laws = [bench.moments(x, w) for x, w in zip(out.particles, out.weights.shares, strict=True)]
    assert sum(law[1] for law in laws) / 4 == pytest.approx(mean, abs=0.25)
    assert sum(law[2] for law in laws) / 4 == pytest.approx(variance, abs=0.2)
    assert min(law[0] for law in laws) > 0.85


def test_a_linear_gaussian_likelihood_as_reward_gives_the_posterior():
    world = GaussianMixture.full(
        [0.5, 0.5], torch.tensor([[-1.0, 0.5], [1.0, -0.5]]), torch.tensor([[[0.5, 0.2], [0.2, 0.4]]] * 2)
    )
    matrix, y, noise = torch.tensor([[1.0, 0.5]], dtype=torch.float64), torch.tensor([0.7]), 0.5
    reward = lambda x: -0.5 * ((x.double() @ matrix.mT)[:, 0] - 0.7).square() / noise**2  # noqa: E731
    out = sample(
        world.denoiser(VP()), 1, search=FKSteering(reward, particles=8000, below=0.5), solver="sde-dpm-solver++",
        steps=60, dtype=torch.float64,
    )  # fmt: skip
    exact, w, x = world.posterior(matrix, y, noise), out.weights.shares[0][:, None], out.particles[0]
    mean = (w * x).sum(0)
    assert torch.allclose(mean, exact.mean, atol=0.05)
    assert torch.allclose((x - mean).mT @ (w * (x - mean)), exact.covariance, atol=0.05)


def test_nothing_to_steer_by_is_plain_sampling():
    plan = bench.plan(20)
    plain = sample(bench.DENOISER, 3, plan=plan, seed=5).x
    assert torch.equal(
        sample(bench.DENOISER, 3, search=FKSteering(bench.first, particles=1), plan=plan, seed=5).x, plain
    )
    still = FKSteering(lambda x: torch.full((len(x),), 7.0), particles=4)
    unsteered = FKSteering(bench.first, 0.0, particles=4)
    a, b = (sample(bench.DENOISER, 3, search=s, plan=plan, seed=5) for s in (still, unsteered))
    assert torch.equal(a.particles, b.particles)
    assert a.weights.origins.tolist() == [[0, 1, 2, 3]] * 3
    assert torch.stack(a.weights.effective).flatten().tolist() == pytest.approx([4.0] * 30)


def test_one_weighing_at_the_end_is_importance_sampling():
    out = steer(particles=50, plan=bench.plan(20, "ddim"), weighings=1)
    assert torch.allclose(out.weights.shares, out.particles[..., 0].softmax(1))
    with pytest.raises(ArgumentError, match="plan without noise"):
        steer(particles=50, plan=bench.plan(20, "ddim"))


def test_a_run_is_the_same_in_any_batch():
    search = FKSteering(bench.first, particles=5, value=Rollouts(2, 2), weighings=4)
    whole = sample(bench.DENOISER, 4, search=search, plan=bench.plan(12), seed=9)
    alone = sample(bench.DENOISER, 1, search=search, plan=bench.plan(12), seed=9, first=2)
    assert torch.allclose(whole.x[2:3], alone.x, atol=1e-6)
    assert torch.equal(whole.weights.ancestors[1][2:3], alone.weights.ancestors[1])
    assert alone.stats.evaluations == 5 * 13 + 5 * 3 * 2 * 2
    assert alone.stats.rewards == 5 * (3 * 2 + 1)


def test_the_best_particle_is_the_best():
    out = steer(6, particles=4, plan=bench.plan(20), pick="best")
    assert torch.equal(out.rewards, out.scores.max(1).values)
    assert torch.equal(out.x[:, 0], out.rewards)


def test_rollouts_estimate_the_soft_value():
    session = widened(prepare(bench.DENOISER, 1, plan=bench.plan(20), dtype=torch.float64), 3, False)
    x, t = torch.tensor([[0.5], [1.0], [2.0]], dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64)
    looking = Looking(Rollouts(4000, 30), 1.0, Scorer(bench.first, {}, 3), session)
    assert torch.allclose(looking(x, t, x, 0), bench.value(x, t), atol=0.08)


def test_any_plan_and_guides_with_memory_may_stand_between_weighings():
    """Two registers with history are resampled together, or the tilt is missed."""
    for solver in ("sde-dpm-solver++", "sa-solver"):
        plan = make_plan(bench.PATH, solver, bench.levels(60).clamp_max(1.0))
        out = steer(particles=6000, plan=plan, below=0.5)
        assert bench.moments(out.particles, out.weights.shares)[:2] == pytest.approx(bench.EXACT[:2], abs=0.08)
    world = GaussianMixture([0.5, 0.5], torch.tensor([[-1.0], [1.0]]), torch.full((2, 1), 0.1), component_labels=[0, 1])
    den, reward = world.denoiser(VP()), Reward(lambda x, label: x[:, 0] * (2.0 * label - 1), ("label",))
    guides = [CFG(1.5), HiGS(0.5)]
    out = sample(
        den, 2, search=FKSteering(reward, particles=6, below=0.5), steps=12, guides=guides, cond={"label": [0, 1]}
    )
    assert out.x[0] < 0 < out.x[1]
    alone = sample(
        den, 1, search=FKSteering(reward, particles=6, below=0.5), steps=12, guides=guides, cond={"label": [1]}, first=1
    )
    assert torch.allclose(out.x[1:], alone.x, atol=1e-6)


def test_evaluations_count_all_particles():
    out = sample(bench.DENOISER, 2, search=FKSteering(bench.first, particles=4, weighings=2), evaluations=41)
    assert out.stats.evaluations == 40


@pytest.mark.parametrize(
    ("reward", "error", "says"),
    [
        (lambda x: torch.full((len(x),), math.nan), NumericalError, "rows .0, 1"),
        (lambda x: x, ArgumentError, "one number a row"),
        (lambda x: "good", ArgumentError, "one number a row"),
        (lambda x: torch.full((len(x),), math.inf), NumericalError, "not finite"),
        (None, ArgumentError, "callable"),
        (Reward(bench.first, ("prompt",)), ArgumentError, "prompt"),
    ],
)
def test_bad_rewards_are_refused(reward, error, says):
    with pytest.raises(error, match=says):
        sample(bench.DENOISER, 1, search=FKSteering(reward), steps=12)


def test_collapse_is_told_with_the_effective_size():
    with pytest.warns(CollapseWarning, match=r"effective sample size of 1\.\d+ of 400"):
        sample(bench.DENOISER, 1, search=FKSteering(bench.first, 60.0, 400, weighings=1), steps=12)


@pytest.mark.parametrize(
    "bad",
    [
        {"particles": 0}, {"strength": -1.0}, {"strength": math.nan}, {"potential": "product"}, {"resample": "none"},
        {"below": 2.0}, {"weighings": 0}, {"weighings": ()}, {"weighings": (99,)}, {"weighings": 99}, {"value": 3},
        {"pick": "worst"}, {"ending": "open"}, {"weighings": 2.5}, {"weighings": (True,)}, {"twisted": 1},
    ],
)  # fmt: skip
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ArgumentError, match=next(iter(bad)).split("_")[0][:6]):
        sample(bench.DENOISER, 1, search=FKSteering(bench.first, **bad), steps=12)


def test_what_a_search_does_not_take_is_refused():
    search = FKSteering(bench.first)
    for bad in (
        {"keep": "trajectory"}, {"grad": True}, {"evaluations": 3}, {"evaluations": "many"}, {"noise": "brownian"},
    ):  # fmt: skip
        with pytest.raises(ArgumentError):
            sample(bench.DENOISER, 1, search=search, **bad)
    with pytest.raises(ArgumentError, match="search"):
        sample(bench.DENOISER, 1, search="fk-steering")
