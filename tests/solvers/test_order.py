"""Every solver converges at its declared order to the exact flow, on every path; coefficients against quadrature."""

import math

import pytest
import torch

from fewstep import VE, VP, Cosine, Flow, make_plan
from fewstep.analysis import measured_order, quadrature_errors
from fewstep.catalog import methods
from fewstep.grids import LogSNR
from fewstep.solvers import solver_named

NAMES = [m.name for m in methods() if m.family == "solvers"]


@pytest.mark.parametrize("path", [VP(), VE(), Flow(), Cosine()], ids=lambda p: p.kind)
@pytest.mark.parametrize("solver", NAMES)
def test_order_of_convergence(path, solver):
    assert measured_order(solver, path) == pytest.approx(solver_named(solver).order, abs=0.2)


@pytest.mark.parametrize("solver", [n for n in NAMES if not solver_named(n).stochastic])
def test_every_step_against_quadrature(solver):
    """With x̂₀ = sin λ every step but the first, whose history is short, is wrong by a multiple of h^{order + 1}."""

    def errors(n):
        times = VP().t_of_lam(torch.linspace(-2, 2, n + 1, dtype=torch.float64))
        return quadrature_errors(make_plan(VP(), solver, times))[n // 4 :].abs().max()

    order = math.log2(errors(80) / errors(160)) - 1
    assert order == pytest.approx(solver_named(solver).order, abs=0.2)


@pytest.mark.parametrize("path", [VP(), VE(), Flow(), Cosine()], ids=lambda p: p.kind)
def test_exponential_methods_integrate_polynomials_exactly(path):
    times = path.t_of_lam(torch.tensor([-2.0, -1.3, -0.9, 0.1, 0.8, 2.2], dtype=torch.float64))
    constant = quadrature_errors(make_plan(path, "ddim", times), lambda lam: 0.7)
    assert constant.abs().max() < 1e-11
    line = quadrature_errors(solver_named("dpm-solver++", rule="exact")(path, times), lambda lam: 0.7 - 0.3 * lam)
    assert line[1:].abs().max() < 1e-11
    # The published rule is a midpoint rule, so a line is not integrated exactly, only to h³.
    published = quadrature_errors(make_plan(path, "dpm-solver++", times), lambda lam: 0.7 - 0.3 * lam)
    assert 1e-4 < published[1:].abs().max() < 0.1


def test_ancestral_sampling_has_the_mean_of_the_reverse_equation():
    """DDPM's mean is the exact step of the equation with all its noise (τ = 1) when the answer stands still."""
    times = VP().t_of_lam(torch.tensor([-2.0, -1.0, 0.5, 2.0], dtype=torch.float64))
    assert quadrature_errors(make_plan(VP(), "ddpm", times), lambda lam: 0.7, tau=1.0).abs().max() < 1e-11
    assert quadrature_errors(make_plan(VP(), "ddpm", times), lambda lam: 0.7, tau=0.0).abs().max() > 1e-2


def test_ddim_with_all_its_noise_is_ancestral_sampling():
    for path in (VP(), Flow(), VE()):
        one = solver_named("ddim", eta=1.0)(path, LogSNR()(path, 6, 1.0))
        two = make_plan(path, "ddpm", "logsnr", 6)
        for name in "MBN":
            a, b = getattr(one, name), getattr(two, name)
            keep = [i for i, v in enumerate(a.value) if abs(float(v)) > 1e-12]
            assert torch.allclose(a.value[keep], b.value[: len(keep)], rtol=1e-6, atol=1e-12)


def test_euler_is_ddim():
    for path in (VP(), Flow(), VE(), Cosine()):
        one, two = (make_plan(path, name, "logsnr", 5) for name in ("euler", "ddim"))
        assert torch.allclose(one.M.value, two.M.value, rtol=1e-12)
        assert torch.allclose(one.B.value, two.B.value, rtol=1e-9)
