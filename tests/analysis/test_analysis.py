"""Exact errors against sampling, quadrature against a formula, the flow against its closed form."""

import math

import pytest
import torch

from fewstep import VE, VP, Cosine, Flow, make_plan, sample
from fewstep.analysis import exact_flow, gaussian_output, gaussian_w2, quadrature_errors
from fewstep.catalog import methods
from fewstep.errors import ArgumentError
from fewstep.plan import Builder, Plan
from fewstep.solvers import solver_named
from fewstep.worlds import Gaussian, GaussianMixture

NAMES = [m.name for m in methods() if m.family == "solvers"]
PATHS = [VP(), VE(), Flow(), Cosine()]
C = torch.tensor([0.02, 0.3, 1.7], dtype=torch.float64)
M = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS[:3], ids=lambda p: p.kind)
@pytest.mark.parametrize("solver", NAMES)
def test_exact_moments_are_those_of_samples(solver, path):
    plan = make_plan(path, solver, "logsnr", 5)
    mean, variance = gaussian_output(plan, C, M)
    n = 8_000
    x = sample(Gaussian(M, C).denoiser(path), n, plan=plan, dtype=torch.float64).x
    assert torch.allclose(x.mean(0), mean, atol=5 * float(variance.max() / n) ** 0.5)
    assert torch.allclose(x.var(0), variance, rtol=5 * (2 / n) ** 0.5)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_w2_of_one_step_by_hand(path):
    """One step of DDIM to the data is x̂₀ = g·x + (1 − α·g)·m at the first time."""
    plan = make_plan(path, "ddim", [0.9, 0.0])
    a, s = path.alpha(0.9), path.sigma(0.9)
    g = a * C / (a**2 * C + s**2)
    want = ((a * g * M).square() + (g * s - C.sqrt()).square()).sum().sqrt()
    assert float(gaussian_w2(plan, C, M)) == pytest.approx(float(want), rel=1e-10)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_w2_goes_to_nothing_with_the_grid_at_the_solvers_order(path):
    times = [path.t_of_lam(torch.linspace(-2, 3, n + 1, dtype=torch.float64)) for n in (100, 200)]
    alpha, sigma = path.alpha(times[0][-1]), path.sigma(times[0][-1])

    def error(grid):
        mean, variance = gaussian_output(make_plan(path, "dpm-solver++", grid), C, M, exact_start=True)
        return ((mean - alpha * M).square() + (variance - alpha**2 * C - sigma**2).square()).sum().sqrt()

    assert math.log2(error(times[0]) / error(times[1])) == pytest.approx(2, abs=0.2)


def test_w2_has_the_gradient_of_its_coefficients():
    path, times = VP(), torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)

    def w2(scale):
        a, s = path.alpha(times), path.sigma(times)
        builder = Builder(times, ("x",))
        builder.ask("x")
        builder.add("x", "x", scale * s[1:] / s[:-1])
        builder.add("x", 0, a[1:] - a[:-1] * s[1:] / s[:-1])
        return gaussian_w2(Plan.build(path, builder, deviates="scaled in a test"), C, M)

    scale = torch.tensor([0.98, 1.03], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(w2, scale)


def test_noise_shared_by_two_registers_is_counted_once():
    """x ← x + z and kept ← z, then x ← x − kept: the noise must cancel."""
    builder = Builder(torch.tensor([0.8, 0.4, 0.0], dtype=torch.float64), ("x", "kept"))
    builder.add("x", "x", 1.0, range(1))
    builder.add("x", "noise", 0.7, range(1))
    builder.add("kept", "noise", 0.7, range(1))
    builder.add("x", "x", 1.0, range(1, 2))
    builder.add("x", "kept", -1.0, range(1, 2))
    plan = Plan.build(Flow(), builder, deviates="a test of noise")
    assert torch.allclose(gaussian_output(plan, C)[1], torch.full((3,), 0.64, dtype=torch.float64))


def test_quadrature_against_an_antiderivative():
    """∫ e^u sin u du = e^u (sin u − cos u)/2: one Euler step errs by exactly what the formula says."""
    plan = make_plan(VP(), "ddim", VP().t_of_lam(torch.tensor([-1.0, 0.5], dtype=torch.float64)))
    sigma, alpha = VP().sigma(plan.times), VP().alpha(plan.times)
    exact = sigma[1] * sum(k * math.exp(u) * (math.sin(u) - math.cos(u)) / 2 for k, u in ((1, 0.5), (-1, -1.0)))
    taken = (alpha[1] - alpha[0] * sigma[1] / sigma[0]) * math.sin(-1.0)
    assert float(quadrature_errors(plan)) == pytest.approx(float(taken - exact), rel=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_the_flow_of_a_gaussian_is_linear(path):
    """The flow maps quantile to quantile: x − α·m is scaled by √(α′²c + σ′²)/√(α²c + σ²)."""
    denoiser, x = Gaussian(M, C).denoiser(path), torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    for start, end in ((1.0, 0.0), (0.8, 0.2), (0.3, 0.0)):
        (a, s), (b, r) = ((path.alpha(t), path.sigma(t)) for t in (start, end))
        want = b * M + (x - a * M) * ((b**2 * C + r**2) / (a**2 * C + s**2)).sqrt()
        assert torch.allclose(exact_flow(denoiser, x, start, end), want, rtol=1e-6, atol=1e-6)


def test_sampling_comes_to_the_exact_flow():
    world = GaussianMixture([0.5, 0.5], torch.tensor([[-1.0, 0.3], [1.0, 0.0]]), torch.full((2, 1), 0.05))
    denoiser = world.denoiser(Flow())
    start = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    exact = exact_flow(denoiser, start)
    many = sample(denoiser, start=start, plan=make_plan(Flow(), "heun", "logsnr", 300)).x
    assert torch.allclose(exact, many, atol=1e-3)


def test_bad_arguments_are_refused():
    plan = make_plan(VP(), "ddim", "logsnr", 3)
    frames = make_plan(VP(), "ddim", torch.tensor([[1.0, 1.0], [0.5, 0.7]], dtype=torch.float64)[..., None])
    for message, call in {
        "variances must be": lambda: gaussian_w2(plan, torch.tensor([-1.0])),
        "means": lambda: gaussian_w2(plan, C, M[:2]),
        "one time for all": lambda: gaussian_w2(frames, C),
        "λ is finite": lambda: quadrature_errors(plan),
        "one time for all, its": lambda: quadrature_errors(frames),
        "times must fall": lambda: exact_flow(Gaussian(M, C).denoiser(VP()), M[None], 0.2, 0.5),
    }.items():
        with pytest.raises(ArgumentError, match=message):
            call()


def test_the_order_that_a_plan_declares_is_its_solvers():
    for name in NAMES:
        assert make_plan(VP(), name, "logsnr", 4).order == solver_named(name).order
