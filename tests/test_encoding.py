"""Encoding and back, the exact flow upwards, slerp, and DDIM's generalised variance in its own formula."""

import math
from itertools import pairwise

import pytest
import torch

from fewstep import VP, Flow, make_plan, sample
from fewstep.analysis import exact_flow, gaussian_output
from fewstep.encoding import encode, slerp
from fewstep.errors import ArgumentError
from fewstep.plan.files import dumps, loads
from fewstep.solvers import solver_named
from fewstep.worlds import Gaussian, GaussianMixture

WORLD = GaussianMixture(
    [0.3, 0.7],
    torch.tensor([[-0.6, 0.5], [0.8, -0.1]], dtype=torch.float64),
    torch.tensor([[0.0625, 0.1], [0.16, 0.05]]),
)
X = WORLD.sample(64, seed=1)


def round_trip(path, solver, steps):
    denoiser, options = WORLD.denoiser(path), {"solver": solver, "grid": "logsnr", "steps": steps}
    back = sample(denoiser, start=encode(denoiser, X, **options).x, **options).x
    return float((back - X).square().mean().sqrt())


@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
def test_the_round_trip_error_of_ddim_is_of_order_one(path):
    errors = [round_trip(path, "ddim", steps) for steps in (20, 40, 80)]
    assert [math.log2(a / b) for a, b in pairwise(errors)] == pytest.approx([1, 1], abs=0.15)


@pytest.mark.parametrize("solver", ["dpm-solver++", "dpm-solver++3m", "deis", "unipc"])
def test_higher_orders_come_back_sooner(solver):
    assert round_trip(VP(), solver, 40) < 0.1 * round_trip(VP(), "ddim", 40)


@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
def test_the_code_is_where_the_exact_flow_began(path):
    """Noise carried down by the exact flow and then encoded is the noise again."""
    denoiser, low = WORLD.denoiser(path), float(make_plan(path, "ddim", "logsnr", 80).times[-2])
    noise = float(path.sigma(1.0)) * torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    data = exact_flow(denoiser, noise, 1.0, low) / float(path.alpha(low))
    out = encode(denoiser, data, steps=80)
    assert float((out.x - noise).square().mean().sqrt()) < 0.02
    assert out.stats.evaluations == 79
    assert float(out.plan.times[0]) == low
    assert loads(dumps(out.plan)) == out.plan


def test_a_step_upwards_by_hand():
    path, x = VP(), torch.tensor([[0.3, -0.8]], dtype=torch.float64)
    out = encode(WORLD.denoiser(path), x, solver="ddim", grid=[0.6, 0.2, 0.0])
    a, s, b, r = (float(v) for v in (path.alpha(0.2), path.sigma(0.2), path.alpha(0.6), path.sigma(0.6)))
    x0 = WORLD.denoise(a * x, path, 0.2)
    assert torch.allclose(out.x, b * x0 + r * (a * x - a * x0) / s, rtol=1e-10)


def test_slerp():
    a, b = torch.tensor([[3.0, 0.0], [2.0, 0.0]], dtype=torch.float64), torch.tensor([[0.0, 1.0], [2.0, 0.0]]).double()
    half = math.sqrt(0.5)
    want = torch.tensor([[3 * half, half], [2.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(slerp(a, b, 0.5), want)
    assert torch.allclose(slerp(a, b, torch.tensor([0.0, 1.0])), torch.stack([a[0], b[1]]))
    third = slerp(a[:1], b[:1], 1 / 3)
    assert torch.allclose(third, torch.tensor([[3 * math.cos(math.pi / 6), math.sin(math.pi / 6)]]).double())
    sixty = torch.tensor([[0.5, math.sqrt(0.75)]], dtype=torch.float64)
    assert torch.allclose(
        slerp(a[:1] / 3, sixty, 0.25), torch.tensor([[math.cos(math.pi / 12), math.sin(math.pi / 12)]]).double()
    )
    big = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0))
    ends, between = big.norm(dim=1), slerp(big[:1], big[1:], 0.5).norm()
    assert between == pytest.approx(float(ends.mean()), rel=0.02)  # a straight line would be √½ as long
    assert slerp(big[:1], -big[:1] * 2, 0.25).isfinite().all()


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_the_generalised_variance(eta):
    """x′ = √ᾱ′x̂₀ + √(1 − ᾱ′ − s²)ε̂ + sξ with s = η√((1 − ᾱ′)/(1 − ᾱ))√(1 − ᾱ/ᾱ′), as printed."""
    path, times = VP(), torch.tensor([0.8, 0.5, 0.2], dtype=torch.float64)
    plan = solver_named("ddim", eta=eta)(path, times)
    bar = path.alpha(times) ** 2
    s = eta * ((1 - bar[1:]) / (1 - bar[:-1])).sqrt() * (1 - bar[:-1] / bar[1:]).sqrt()
    on_noise = (1 - bar[1:] - s**2).sqrt()
    for i, step in enumerate(plan):
        entries = {kind: float(value) for kind, _, value in step.writes[0]}
        assert entries["M"] == pytest.approx(float(on_noise[i] / (1 - bar[i]).sqrt()), rel=1e-10)
        assert entries["B"] == pytest.approx(float(bar[i + 1].sqrt() - bar[i].sqrt() * entries["M"]), rel=1e-10)
        assert entries.get("N", 0.0) == pytest.approx(float(s[i]), abs=1e-12)
    c = torch.tensor([0.2, 1.0], dtype=torch.float64)
    few, many = (gaussian_output(make_plan(path, solver_named("ddim", eta=eta), "logsnr", n), c)[1] for n in (20, 80))
    assert ((many - c).abs() < 0.4 * (few - c).abs() + 1e-3).all()


def test_bad_arguments_are_refused():
    den = Gaussian(torch.zeros(2, dtype=torch.float64), 1.0).denoiser(VP())
    for message, call in {
        "without noise": lambda: encode(den, X, solver="ddpm"),
        "cannot be walked upwards": lambda: encode(den, X, solver="heun"),
        "at least two times": lambda: encode(den, X, steps=1),
        "floating-point": lambda: encode(den, X.long()),
        "see fewstep.wrap": lambda: encode(torch.tanh, X),
        "one shape": lambda: slerp(X, X[:3], 0.5),
        "weight": lambda: slerp(X, X, torch.zeros(3)),
        "other than 0": lambda: slerp(0 * X, X, 0.5),
    }.items():
        with pytest.raises(ArgumentError, match=message):
            call()
