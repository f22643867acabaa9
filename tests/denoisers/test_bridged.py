"""Restoration networks as denoisers: what they predict, the degraded picture, and where a run begins."""

from itertools import pairwise

import pytest
import torch

from fewstep import CFG, make_plan, sample
from fewstep.denoisers.bridged import precondition, wrap_bridge
from fewstep.errors import ArgumentError
from fewstep.noise import KeyedNoise
from fewstep.paths import RDDM, VP, BridgePath, MeanReverting, ResShift, VEBridge, VPBridge
from fewstep.worlds import Gaussian

PATHS = [RDDM(visits=9), ResShift(), MeanReverting(), VPBridge(), VEBridge(3.0)]
GENERATOR = torch.Generator().manual_seed(0)
X0, Y, EPS = torch.randn(3, 4, 2, 3, dtype=torch.float64, generator=GENERATOR)
T = torch.tensor([0.02, 0.3, 0.6, 0.95], dtype=torch.float64).reshape(4, 1, 1)


def exact(path, answer):
    """A network that knows x₀ and ε, in the words of the papers."""

    def net(x, time, y):
        t = time.double().reshape(-1, 1, 1)
        a, s = path.alpha(t), (1 - path.alpha(t) ** 2).sqrt()
        assert torch.allclose(x, a * X0 + path.shift(t) * y + path.sigma(t) * EPS)
        return {
            "x0": X0,
            "residual": y - X0,
            "eps": EPS,
            "score": -EPS / path.sigma(t),
            "flow": path.d_alpha(t) * X0 + path.d_shift(t) * y + path.d_sigma(t) * EPS,
            "velocity": a * path.sigma(t) / s * EPS - s * (X0 - y),
        }[answer]

    return net


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("answer", ["x0", "residual", "eps", "score", "flow", "velocity"])
def test_every_prediction_tells_the_data(path, answer):
    if answer == "velocity" and path.kind == "vp-bridge":
        pytest.skip("a + b is not 1")
    z = path.alpha(T) * X0 + path.sigma(T) * EPS
    den = wrap_bridge(exact(path, answer), path, answer, shape=(2, 3), time="t")
    assert torch.allclose(den(z, T, y=Y), X0, atol=1e-9)


def test_velocity_is_the_derivative_by_the_angle():
    """With a = cos θ and c = σ∞ sin θ, dx/dθ is the flow divided by θ′."""
    path = MeanReverting()
    t = torch.tensor([0.3], dtype=torch.float64)
    angle = -path.d_alpha(t) / (1 - path.alpha(t) ** 2).sqrt()
    flow = path.d_alpha(t) * 0.7 + path.d_shift(t) * 0.2 - path.d_sigma(t) * 1.1
    sine = (1 - path.alpha(t) ** 2).sqrt()
    velocity = -path.alpha(t) * path.sigma(t) / sine * 1.1 - sine * (0.7 - 0.2)
    assert float(flow / angle) == pytest.approx(float(velocity), rel=1e-9)


def linear(path, answer):
    """The exact network for x₀ ~ N(½y, 0.3): a different world for every y."""

    def net(x, time, y):
        t = time.double().reshape(-1, 1, 1)
        a, b, c = path.alpha(t), path.shift(t), path.sigma(t)
        off = x - b * y - a * y / 2
        x0 = y / 2 + a * 0.3 / (a**2 * 0.3 + c**2) * off
        return {"x0": x0, "residual": y - x0, "eps": (x - a * x0 - b * y) / c}[answer]

    return net


@pytest.mark.parametrize("path", [ResShift(), MeanReverting()], ids=lambda p: p.kind)
@pytest.mark.parametrize("steps", [2, 5])
def test_the_same_samples_whatever_is_predicted(path, steps):
    runs = []
    for answer in ("x0", "residual", "eps"):
        den = wrap_bridge(linear(path, answer), path, answer, shape=(2, 3), time="t")
        plan = make_plan(path, "dpm-solver++", "uniform", steps)
        runs.append(sample(den, start=den.start(Y, seed=3), plan=plan, cond={"y": Y}).x)
    assert torch.allclose(runs[0], runs[1], atol=1e-9)
    assert torch.allclose(runs[0], runs[2], atol=1e-9)


@pytest.mark.parametrize("path", PATHS[:3], ids=lambda p: p.kind)
def test_a_row_is_a_row(path):
    den = wrap_bridge(linear(path, "x0"), path, shape=(2, 3), time="t")
    plan = make_plan(path, "dpm-solver++", "uniform", 4)
    whole = sample(den, start=den.start(Y, seed=5), plan=plan, cond={"y": Y}).x
    alone = sample(den, start=den.start(Y[2:3], seed=5, first=2), plan=plan, cond={"y": Y[2:3]}).x
    assert torch.allclose(whole[2:3], alone, atol=1e-12)


def test_a_run_begins_at_the_degraded_picture_with_noise():
    """x_T = y + c·ε in the state with y in it, and y itself where the bridge is pinned."""
    path = ResShift()
    den = wrap_bridge(linear(path, "x0"), path, shape=(2, 3))
    noise = KeyedNoise(7, range(4), (2, 3), torch.float64, "cpu").start()
    assert torch.allclose(den.start(Y, seed=7) + 0.99**2 * Y, Y + 2 * 0.99 * noise)
    pinned = wrap_bridge(linear(VPBridge(), "x0"), VPBridge(), shape=(2, 3))
    assert not pinned.start(Y).any()
    assert den.start(Y.float()).dtype == torch.float32


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_independent_residual_and_noise_make_the_papers_step(steps):
    """x′ = x − (ᾱ − ᾱ′)·R̂ − (β̄ − β̄′)·ε̂ with two networks that know nothing of each other; x̂₀ at the end."""
    path, t = RDDM(visits=steps), 1000

    def residual(x, time, y):
        return torch.tanh(x + 0.3 * y) + 0.001 * time.reshape(-1, 1, 1)

    def noise(x, time, y):
        return torch.sin(2 * x - y)

    den = wrap_bridge((residual, noise), path, "residual+eps", shape=(2, 3))
    start = den.start(Y, seed=1)
    ours = sample(den, start=start, plan=make_plan(path, "ddim", "uniform", steps), cond={"y": Y}).x
    k = torch.arange(1, t + 1, dtype=torch.float64)
    bar = torch.cumsum(2 * k.flip(0) / (t * (t + 1)), 0)
    root = torch.cumsum(0.02 * k / (t * (t + 1)), 0).sqrt()
    times = torch.linspace(-1, t - 1, steps + 1).int().flip(0).tolist()
    x = start + Y
    for i, j in pairwise(times):
        time = torch.full((4,), float(i), dtype=torch.float64)
        r, e = residual(x, time, Y), noise(x, time, Y)
        left = (bar[j], root[j]) if j >= 0 else (0.0, 0.0)
        x = x - (bar[i] - left[0]) * r - (root[i] - left[1]) * e
    assert torch.allclose(ours, x, atol=1e-10)


def test_preconditioning_has_unit_variance_and_the_best_linear_guess():
    for path in (VPBridge(), VEBridge(2.0)):
        t = torch.tensor([0.02, 0.4, 0.97], dtype=torch.float64)
        a, b, c = path.alpha(t), path.shift(t), path.sigma(t)
        # x = (a b c)·(x₀ y ε) with this covariance.
        joint = torch.tensor([[0.25, 0.12, 0.0], [0.12, 0.36, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
        rows = torch.stack([a, b, c], -1)
        variance, with_data = (rows @ joint * rows).sum(-1), rows @ joint[0]
        seen = []

        def net(x, time, y, seen=seen):
            seen.extend([x, time])
            return torch.ones_like(x)

        x = torch.full((3, 1), 2.0, dtype=torch.float64)
        out = precondition(net, path, 0.5, 0.6, 0.12)(x, t, y=x)
        best, left = with_data / variance, 0.25 - with_data**2 / variance
        assert torch.allclose(out[:, 0], 2 * best + left.sqrt(), rtol=1e-9)
        assert torch.allclose(seen[0][:, 0], 2 / variance.sqrt(), rtol=1e-9)
        assert torch.allclose(seen[1], 250 * path.model_time(t).log(), rtol=1e-9)
        seen.clear()
        precondition(net, path, 0.5, 0.6, 0.12, level=path.lam)(x, t, y=x)
        assert torch.allclose(seen[1], path.lam(t), rtol=1e-9)


def test_along_another_path_the_networks_are_told_its_times():
    """ResShift of 15 and of 4 levels is one family of states: asked by λ, the network of one serves the other."""
    path, four = ResShift(), ResShift(4, 0.2)

    def by_lam(x, lam, y):
        # On x = x₀ + η(y − x₀) + κ√η·ε, λ = log((1 − η)/(κ√η)) tells η; the answer is that for x₀ ~ N(½y, 0.3).
        half = lam.double().exp().reshape(-1, 1, 1)
        root = (1 + half**2).sqrt() - half
        eta = root**2
        off = x - eta * y - (1 - eta) * y / 2
        return y / 2 + (1 - eta) * 0.3 / ((1 - eta) ** 2 * 0.3 + 4 * eta) * off

    den = wrap_bridge(by_lam, path, shape=(2, 3), time="lambda")
    other = den.along(four)
    t = torch.tensor([0.25, 0.5, 0.75, 1.0], dtype=torch.float64).reshape(4, 1, 1)
    z = four.alpha(t) * X0 + four.sigma(t) * EPS
    assert other.path == four
    assert torch.allclose(other(z, t, y=Y), wrap_bridge(linear(four, "x0"), four, shape=(2, 3), time="t")(z, t, y=Y))
    pair = wrap_bridge((lambda x, time, y: x, lambda x, time, y: y), RDDM(visits=2), "residual+eps", shape=(2, 3))
    assert len(pair.along(RDDM(visits=5)).networks) == 2
    for tied in (
        wrap_bridge(by_lam, path, shape=(2, 3), time=lambda t: t),
        wrap_bridge(precondition(by_lam, VPBridge()), VPBridge(), shape=(2, 3), time="t"),
    ):
        with pytest.raises(ArgumentError, match="tied to their path"):
            tied.along(four)


def test_guidance_keeps_the_degraded_picture():
    path = ResShift()

    def net(x, time, y, label):
        return y / 2 + label.reshape(-1, 1, 1)

    den = wrap_bridge(net, path, shape=(2, 3), null={"label": 0})
    cond = {"y": Y, "label": [1, 2, 3, 4]}
    out = sample(den, start=den.start(Y), solver="ddim", grid="uniform", steps=3, cond=cond, guides=[CFG(2.0)])
    labels = torch.tensor([1.0, 2, 3, 4]).double().reshape(-1, 1, 1)
    assert torch.allclose(out.x, Y / 2 + 2 * labels)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda net: wrap_bridge(net, VP(), shape=(2,)), "path must be a bridge"),
        (lambda net: wrap_bridge(net, ResShift(), "noise", shape=(2,)), "unknown prediction"),
        (lambda net: wrap_bridge((net, net), ResShift(), "eps", shape=(2,)), "got 2 for 'eps'"),
        (lambda net: wrap_bridge(net, ResShift(), "residual+eps", shape=(2,)), "takes two networks"),
        (lambda net: wrap_bridge(net, VPBridge(), "velocity", shape=(2,)), "a \\+ b = 1"),
        (lambda net: wrap_bridge(net, ResShift(), shape=(0,)), "shape must be"),
        (lambda net: precondition(net, ResShift(), 0.5, 0.5, 0.3), "covariance"),
        (lambda net: wrap_bridge(net, ResShift(), shape=(2,)).start(torch.ones(1, 3)), "y must be"),
        (lambda net: wrap_bridge(net, ResShift(), shape=(2,))(torch.ones(1, 2), 0.5), "needs cond"),
        (lambda net: wrap_bridge(net, ResShift(), shape=(2,))(torch.ones(1, 2), 0.5, y=torch.ones(1, 3)), "needs cond"),
    ],
)
def test_bad_arguments(call, said):
    with pytest.raises(ArgumentError, match=said):
        call(lambda x, time, y: x)


def test_a_bridge_of_own_curves_serves_too():
    path = BridgePath(lambda t: 1 - t, lambda t: t, lambda t: 0.3 * t)
    den = wrap_bridge(linear(path, "x0"), path, shape=(2, 3))
    plan = make_plan(path, "dpm-solver++", "uniform", 5)
    ours = sample(den, start=den.start(Y), plan=plan, cond={"y": Y}).x
    for i in range(4):  # the state without y is that of an ordinary model of this y's posterior
        world = Gaussian(Y[i] / 2, 0.3).denoiser(path)
        assert torch.allclose(ours[i], sample(world, start=den.start(Y)[i : i + 1], plan=plan).x[0], atol=1e-10)
