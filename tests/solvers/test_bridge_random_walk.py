"""The random walk's posterior: the printed steps of ResShift and RDDM, its kin, and its law."""

import math

import pytest
import torch

from fewstep import VE, VP, Cosine, Flow, Plan, make_plan, sample
from fewstep.analysis import gaussian_output, measured_order
from fewstep.denoisers import wrap_bridge
from fewstep.errors import ArgumentError
from fewstep.noise import KeyedNoise
from fewstep.paths import RDDM, MeanReverting, ResShift, VPBridge
from fewstep.solvers import solver_named
from fewstep.solvers.bridge_random_walk import RandomWalk

Y = torch.randn(3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
PATHS = [VP(), VE(), Flow(), Cosine(), RDDM(), ResShift(), MeanReverting()]


def net(x, time, y):
    return torch.tanh(0.7 * x + 0.2 * y) + 0.01 * time.reshape(-1, 1, 1)


def noises(seed):
    noise = KeyedNoise(seed, range(3), (2, 4), torch.float64, "cpu")
    return noise.start(), lambda i: noise.step(i, 0.0, 0.0)


@pytest.mark.parametrize(("steps", "floor"), [(15, 0.04), (4, 0.2)])
def test_is_resshifts_sampler(steps, floor):
    """p(x_{k−1} | x_k, x̂₀): mean (η_{k−1}/η_k)·x + (α_k/η_k)·x̂₀, variance κ²(η_{k−1}/η_k)α_k; begun at y + κ√η_T·ε."""
    path = ResShift(steps, floor)
    den = wrap_bridge(net, path, shape=(2, 4))
    plan = make_plan(path, "random-walk", "uniform", steps)
    ours = sample(den, start=den.start(Y, seed=4), plan=plan, cond={"y": Y}, seed=4).x
    share = torch.linspace(0, 1, steps, dtype=torch.float64) ** 0.3
    first = floor / 2
    eta = torch.cat([torch.zeros(1, dtype=torch.float64), (first * (0.99 / first) ** share) ** 2])
    begin, draw = noises(4)
    x = Y + 2 * eta[-1].sqrt() * begin
    for k in range(steps, 0, -1):
        x0 = net(x, torch.full((3,), k - 1.0, dtype=torch.float64), Y)
        mean = eta[k - 1] / eta[k] * x + (eta[k] - eta[k - 1]) / eta[k] * x0
        x = mean + 2 * (eta[k - 1] / eta[k] * (eta[k] - eta[k - 1])).sqrt() * draw(steps - k)
    assert torch.allclose(ours, x, atol=1e-10)
    assert plan.evaluations == steps


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("predicts", ["residual", "eps"])
def test_is_rddms_sampler(eta, predicts):
    """x′ = x − ΔᾱR̂ − (β̄ − √(β̄′² − ω²))ε̂ + ωξ, ω² = η(β̄² − β̄′²)β̄′²/β̄², in the authors' modes with one network."""
    path, steps, n = RDDM(), 5, 1000
    den = wrap_bridge(net, path, predicts, shape=(2, 4))
    visits = torch.tensor([998, 799, 599, 399, 199, -1])  # below the last level, where ε̂ alone tells no data
    times = (visits.double() + 1) / n
    plan = make_plan(path, RandomWalk(eta), times)
    begin, draw = noises(2)
    k = torch.arange(1, n + 1, dtype=torch.float64)
    bar, square = torch.cumsum(2 * k.flip(0) / (n * (n + 1)), 0), torch.cumsum(0.02 * k / (n * (n + 1)), 0)
    x = Y + square[998].sqrt() * begin
    ours = sample(den, start=x - bar[998] * Y, plan=plan, cond={"y": Y}, seed=2).x
    for i in range(steps):
        s, t = int(visits[i]), int(visits[i + 1])
        answer = net(x, torch.full((3,), float(s), dtype=torch.float64), Y)
        if predicts == "residual":
            residual, noise = answer, (x - Y - (bar[s] - 1) * answer) / square[s].sqrt()
        else:
            x0 = (x - bar[s] * Y - square[s].sqrt() * answer) / (1 - bar[s])
            residual, noise = Y - x0, answer
        if t < 0:
            x = x - bar[s] * residual - square[s].sqrt() * noise
            break
        omega = (eta * (square[s] - square[t]) * square[t] / square[s]).sqrt()
        x = x - (bar[s] - bar[t]) * residual - (square[s].sqrt() - (square[t] - omega**2).sqrt()) * noise
        x = x + omega * draw(i)
    assert torch.allclose(ours, x, atol=1e-10)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_without_noise_it_is_ddim(path):
    for grid in ("uniform", "logsnr"):
        one, two = make_plan(path, RandomWalk(0.0), grid, 6), make_plan(path, "ddim", grid, 6)
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(one._matrices(), two._matrices(), strict=True))


def test_where_the_mean_stands_still_it_is_ancestral_sampling():
    one, two = make_plan(VE(), "random-walk", "karras", 6), make_plan(VE(), "ddpm", "karras", 6)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(one._matrices(), two._matrices(), strict=True))


def test_where_the_mean_falls_it_is_ddim_with_an_eta_of_less_than_one():
    path, times = ResShift(), torch.tensor([0.9, 0.5], dtype=torch.float64)
    (a, a2), (c, c2) = path.alpha(times), path.sigma(times)
    eta = math.sqrt((1 - c2**2 / c**2) / (1 - (a * c2 / (a2 * c)) ** 2))
    assert 0.5 < eta < 0.999
    one, two = make_plan(path, "random-walk", times), make_plan(path, solver_named("ddim", eta=eta), times)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(one._matrices(), two._matrices(), strict=True))


@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("path", PATHS[:4], ids=lambda p: p.kind)
def test_order(path, eta):
    assert measured_order(RandomWalk(eta), path) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(("steps", "std"), [(4, 0.239), (15, 0.405), (50, 0.460)])
def test_law_on_a_gaussian(steps, std):
    """N(1, ¼) by the recursion of its variance, written anew: few steps narrow it, many do not."""
    path = ResShift(steps, 0.2 if steps == 4 else 0.04)
    t = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    a, c = path.alpha(t).tolist(), path.sigma(t).tolist()
    mean, variance = 0.0, c[0] ** 2
    for i in range(steps):
        gain = a[i] * 0.25 / (a[i] ** 2 * 0.25 + c[i] ** 2)
        keep = c[i + 1] ** 2 / c[i] ** 2
        rest = a[i + 1] - a[i] * keep
        mean = keep * mean + rest * (1 + gain * (mean - a[i]))
        variance = (keep + rest * gain) ** 2 * variance + c[i + 1] ** 2 * (1 - keep)
    plan = make_plan(path, "random-walk", "uniform", steps)
    got = gaussian_output(plan, torch.tensor([0.25]), torch.tensor([1.0]))
    assert float(got[0]) == pytest.approx(mean, abs=1e-12)
    assert float(got[1]) == pytest.approx(variance, abs=1e-12)
    assert math.sqrt(variance) == pytest.approx(std, abs=1e-3)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_finite_at_both_ends_and_saved_bit_for_bit(path, steps, tmp_path):
    plan = make_plan(path, "random-walk", "uniform", steps)
    assert [(kind, float(v)) for kind, _, v in list(plan)[-1].writes[0]] == [("B", 1.0)]
    plan.save(str(tmp_path / "plan.json"))
    assert Plan.load(str(tmp_path / "plan.json")) == plan


def test_places_have_their_own_times_and_stand_still():
    rows = torch.tensor([[0.9, 1.0], [0.6, 1.0], [0.3, 0.2], [0.3, 0.0]], dtype=torch.float64)
    m, b, n = RandomWalk()(ResShift(), rows[..., None])._matrices()
    alone = RandomWalk()(ResShift(), rows[:3, 0])._matrices()
    for got, want in zip((m, b, n), alone, strict=True):
        assert torch.allclose(got[:2, 0, 0], want[:2], atol=1e-14)
    assert [m[0, 1, 0].item(), b[0, 1, 0].item(), n[0, 1, 0].item()] == [1, 0, 0]
    assert [m[2, 0, 0].item(), b[2, 0, 0].item(), n[2, 0, 0].item()] == [1, 0, 0]


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="eta must lie"):
        solver_named("random-walk", eta=1.5)
    with pytest.raises(ArgumentError, match="grows on this grid"):
        make_plan(VPBridge(), "random-walk", [0.9, 0.5, 0.1])
