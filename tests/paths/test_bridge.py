"""Bridges against their papers' formulas, written anew, and against Bayes' rule."""

import math

import numpy as np
import pytest
import torch

from fewstep.errors import ArgumentError
from fewstep.paths import RDDM, VE, VP, BridgePath, MeanReverting, ResShift, VEBridge, VPBridge, from_json

NAMED = [RDDM(), RDDM(visits=5), ResShift(), ResShift(4, 0.2), MeanReverting(), VPBridge(), VEBridge(sigma_max=3.0)]
OWN = BridgePath(lambda t: 1 - t, lambda t: t * t, lambda t: 2 * t)
EVERY = [*NAMED, OWN]


def ids(paths):
    return [f"{p.kind}{i}" for i, p in enumerate(paths)]


def test_residual_diffusion_sums_its_shares():
    path, t = RDDM(variance=0.01), 1000
    alpha, beta2 = np.arange(t, 0, -1.0), np.arange(1.0, t + 1)
    alpha, beta2 = np.cumsum(alpha / alpha.sum()), np.cumsum(0.01 * beta2 / beta2.sum())
    for k in (1, 17, 500, 999, 1000):
        assert float(path.shift(k / t)) == pytest.approx(alpha[k - 1], abs=1e-12)
        assert float(path.alpha(k / t)) == pytest.approx(1 - alpha[k - 1], abs=1e-12)
        assert float(path.sigma(k / t)) == pytest.approx(math.sqrt(beta2[k - 1]), abs=1e-12)
        assert float(path.model_time(k / t)) == pytest.approx(k - 1, abs=1e-9)
    assert float(path.alpha(1.0)) == 0
    assert float(RDDM(residual_power=0, steps=10, visits=10).shift(0.3)) == pytest.approx(0.3)


def test_residual_diffusion_through_the_levels_that_are_visited():
    """−1, 199, 399 … for five steps; 665 and not 666 for the 665.67 of three."""
    few, every = RDDM(visits=5), RDDM()
    index = torch.tensor([-1.0, 199, 399, 599, 799, 999], dtype=torch.float64)
    t = torch.linspace(0, 1, 6, dtype=torch.float64)
    assert few.model_time(t).tolist() == index.tolist()
    thirds = RDDM(visits=3).model_time(torch.arange(4, dtype=torch.float64) / 3)
    assert torch.allclose(thirds, torch.tensor([-1.0, 332, 665, 999], dtype=torch.float64))
    for name in ("alpha", "shift", "sigma"):
        assert torch.allclose(getattr(few, name)(t), getattr(every, name)((index + 1) / 1000), atol=1e-12)
    # Between them it is straight in (ᾱ, β̄).
    assert torch.allclose(few.sigma(t[1:] - 0.1), (few.sigma(t[1:]) + few.sigma(t[:-1])) / 2, atol=1e-12)


@pytest.mark.parametrize(("steps", "floor"), [(15, 0.04), (4, 0.2)])
def test_residual_shifting_grows_exponentially(steps, floor):
    path, first = ResShift(steps, floor), min(floor / 2, floor)
    base = math.exp(math.log(0.99 / first) / (steps - 1))
    for k in range(1, steps + 1):
        root = first * base ** (((k - 1) / (steps - 1)) ** 0.3 * (steps - 1))
        assert float(path.shift(k / steps)) == pytest.approx(root**2, rel=1e-12)
        assert float(path.alpha(k / steps)) == pytest.approx(1 - root**2, rel=1e-12)
        assert float(path.sigma(k / steps)) == pytest.approx(2 * root, rel=1e-12)
    assert ResShift(4, 0.2, kappa=0.5).first == 0.2


def test_mean_reverting_from_its_rates():
    path, t = MeanReverting(), 100
    bar = [math.cos((k / (t + 2) + 0.008) / 1.008 * math.pi / 2) ** 2 for k in range(t + 3)]
    rates = [1 - b / bar[0] for b in bar[1:-1]]
    dt = -math.log(0.005) / sum(rates)
    for k in (0, 1, 50, 100):
        alpha = math.exp(-dt * sum(rates[: k + 1]))
        at = (k + 1) / (t + 1)
        assert float(path.alpha(at)) == pytest.approx(alpha, rel=1e-10)
        assert float(path.shift(at)) == pytest.approx(1 - alpha, rel=1e-10)
        assert float(path.sigma(at)) == pytest.approx(50 / 255 * math.sqrt(1 - alpha**2), rel=1e-9)
        assert float(path.model_time(at)) == pytest.approx(k, abs=1e-9)
    # g² = 2fσ∞²: the noise rate over the drift is the stationary variance.
    ratio = path.diffusion(0.4) ** 2 / (-2 * path.drift(0.4))
    assert float(ratio) == pytest.approx((50 / 255) ** 2, rel=1e-9)


@pytest.mark.parametrize(
    ("path", "base"), [(VPBridge(), VP(0.1, 2.1)), (VEBridge(3.0), VE(3.0))], ids=["vp-bridge", "ve-bridge"]
)
def test_diffusion_bridge_is_bayes_rule(path, base):
    """x_t given x₀ and x_1 = y, from x_1 given x_t: precisions add."""
    for t in (0.01, 0.3, 0.7, 0.999):
        a, s, a1, s1 = (float(v) for v in (base.alpha(t), base.sigma(t), base.alpha(1.0), base.sigma(1.0)))
        ratio = a1 / a
        transition = s1**2 - ratio**2 * s**2
        precision = 1 / s**2 + ratio**2 / transition
        assert float(path.sigma(t)) ** 2 == pytest.approx(1 / precision, rel=1e-9)
        assert float(path.alpha(t)) == pytest.approx(a / s**2 / precision, rel=1e-9)
        assert float(path.shift(t)) == pytest.approx(ratio / transition / precision, rel=1e-9)
    assert [float(f(1.0)) for f in (path.alpha, path.shift, path.sigma)] == [0, 1, 0]
    assert float(path.d_sigma(1.0)) == -math.inf


@pytest.mark.parametrize("path", EVERY, ids=ids(EVERY))
def test_ends_and_half_log_snr(path):
    assert [float(f(0.0)) for f in (path.alpha, path.shift, path.sigma)] == [1, 0, 0]
    assert float(path.lam(0.0)) == math.inf
    t = torch.linspace(0.003, 0.997, 333, dtype=torch.float64)
    assert torch.allclose(path.lam(t), (path.alpha(t) / path.sigma(t)).log(), atol=1e-9)
    assert (path.lam(t).diff() < 0).all()
    assert torch.allclose(path.t_of_lam(path.lam(t)), t, atol=1e-9)
    assert float(path.t_of_lam(path.lam(1.0))) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("path", EVERY, ids=ids(EVERY))
@pytest.mark.parametrize("pair", [("alpha", "d_alpha"), ("shift", "d_shift"), ("sigma", "d_sigma")], ids=lambda p: p[0])
def test_slopes(path, pair):
    value, slope = (getattr(path, name) for name in pair)
    # Away from every node of 1000, 101, 15, 5 and 4 intervals.
    t = torch.tensor([0.1034567, 0.4434567, 0.7734567], dtype=torch.float64)
    rise = (value(t + 1e-7) - value(t - 1e-7)) / 2e-7
    assert torch.allclose(slope(t), rise, rtol=1e-5, atol=1e-7)


def test_a_slope_at_a_node_is_that_of_the_step_below_it():
    """Also for a time that was told in single precision."""
    for path, n in ((RDDM(visits=7), 7), (ResShift(), 15)):
        t = torch.arange(1, n + 1, dtype=torch.float64) / n
        for value, slope in ((path.alpha, path.d_alpha), (path.shift, path.d_shift), (path.sigma, path.d_sigma)):
            rise = (value(t) - value(t - 1 / n)) * n
            assert torch.allclose(slope(t), rise, rtol=1e-9, atol=1e-12)
            assert torch.allclose(slope(t.float()), rise, rtol=1e-9, atol=1e-12)


def test_a_converted_schedule_of_ddim_with_nothing_degraded_is_the_path_itself():
    """ᾱ = 1 − √ᾱ_DDIM and β̄ = √(1 − ᾱ_DDIM): without y the state is DDIM's."""
    vp = VP()
    path = BridgePath(vp.alpha, lambda t: 1 - vp.alpha(t), vp.sigma)
    t = torch.tensor([0.2, 0.9], dtype=torch.float64)
    assert torch.allclose(path.alpha(t), vp.alpha(t))
    assert torch.allclose(path.lam(t), vp.lam(t))
    assert torch.allclose(path.d_shift(t), -vp.d_alpha(t))


@pytest.mark.parametrize("path", NAMED, ids=ids(NAMED))
def test_json(path):
    assert from_json(path.to_json()) == path


@pytest.mark.parametrize(
    ("cls", "parameters"),
    [
        (RDDM, {"visits": 0}),
        (RDDM, {"steps": 10, "visits": 11}),
        (RDDM, {"variance": 0.0}),
        (ResShift, {"steps": 1}),
        (ResShift, {"kappa": -1.0}),
        (ResShift, {"end": 1.0}),
        (ResShift, {"end": 0.01}),
        (MeanReverting, {"steps": 0}),
        (MeanReverting, {"noise": 0.0}),
        (MeanReverting, {"rest": 1.0}),
        (VPBridge, {"beta_min": 0.0}),
        (VEBridge, {"sigma_max": 0.0}),
    ],
)
def test_bad_arguments(cls, parameters):
    with pytest.raises(ArgumentError):
        cls(**parameters)
