"""Conjugate integrators: DDIM at κ = 0, the definition by quadrature at any κ, and what κ gains."""

import math

import pytest
import torch
from scipy.integrate import quad

from fewstep import VE, VP, Cosine, Flow, make_plan, sample
from fewstep.analysis import exact_flow, measured_order
from fewstep.errors import ArgumentError
from fewstep.solvers.conjugate import Conjugate
from fewstep.worlds import GaussianMixture

PATHS = [VP(), VE(), Flow(), Cosine()]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("form", ["data", "noise"])
def test_without_kappa_it_is_ddim(path, form):
    assert make_plan(path, Conjugate(0.0, form), "logsnr", 6) == make_plan(path, "ddim", "logsnr", 6)
    near, ddim = (make_plan(path, s, "logsnr", 6) for s in (Conjugate(1e-9, form), "ddim"))
    for a, b in ((near.M, ddim.M), (near.B, ddim.B)):
        assert torch.equal(a.index, b.index)
        assert torch.allclose(a.value, b.value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("form", ["data", "noise"])
@pytest.mark.parametrize("kappa", [-1.3, 0.8])
def test_a_step_is_eulers_in_conjugate_coordinates(path, form, kappa):
    """Ax ← (1 − κh)Ax + (Φ′ − Φ)m with A and Φ by quadrature of their definitions."""
    t, s = 0.7, 0.25
    plan = Conjugate(kappa, form)(path, torch.tensor([t, s], dtype=torch.float64))
    x, x0 = 0.83, -0.4

    def value(name, at):
        return float(getattr(path, name)(at))

    drop = "sigma" if form == "data" else "alpha"  # the curve along which x falls when the answer is nothing
    other = "alpha" if form == "data" else "sigma"
    rate = quad(lambda u: kappa - value("d_" + drop, u) / value(drop, u), s, t, epsabs=1e-13)[0]
    big = math.exp(rate)  # A/A′

    def phi(u):
        """A(u)/A′ times d(other/drop)/du·drop: dΦ."""
        slope = value("d_" + other, u) / value(drop, u) - value(other, u) * value("d_" + drop, u) / value(drop, u) ** 2
        return math.exp(kappa * (u - s)) * value(drop, s) * slope

    change = -quad(phi, s, t, epsabs=1e-13, epsrel=1e-12)[0]
    answer = x0 if form == "data" else (x - value("alpha", t) * x0) / value("sigma", t)
    want = (1 - kappa * (t - s)) * big * x + change * answer
    got = float(plan.M.value.sum()) * x + float(plan.B.value.sum()) * x0
    assert got == pytest.approx(want, rel=1e-7)


@pytest.mark.parametrize("form", ["data", "noise"])
def test_other_kappas_converge_at_order_one(form):
    for kappa in (-1.0, 1.0):
        assert measured_order(Conjugate(kappa, form), VP(), (80, 160)) == pytest.approx(1, abs=0.2)


def test_the_best_kappa_beats_ddim():
    means = torch.tensor([[-0.6, 0.5], [0.8, -0.1]], dtype=torch.float64)
    path = VP()
    denoiser = GaussianMixture([0.3, 0.7], means, torch.tensor([[0.06, 0.1], [0.16, 0.05]])).denoiser(path)
    begin = float(path.t_of_lam(-2.0))
    x = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = exact_flow(denoiser, x, begin)

    def error(kappa, steps):
        plan = make_plan(path, Conjugate(kappa), "logsnr", steps, start=begin)
        return float((sample(denoiser, start=x, plan=plan).x - exact).square().mean().sqrt())

    for steps in (10, 20):
        assert min(error(k, steps) for k in (-1.5, -0.75, -0.25)) < 0.6 * error(0.0, steps)
        assert error(0.75, steps) > error(0.0, steps)


def test_ends_and_places_that_stand_still():
    """From noise alone and to clean data the noise form holds κ = 0; a place that stands still is not touched."""
    plan = make_plan(Flow(), Conjugate(-0.5), [1.0, 0.5, 0.0])
    ddim = make_plan(Flow(), "ddim", [1.0, 0.5, 0.0])
    assert torch.allclose(plan.M.value[0], ddim.M.value[0])
    assert "x = x̂₀" in str(plan)
    times = torch.tensor([[0.5, 0.4], [0.5, 0.1], [0.0, 0.0]], dtype=torch.float64)
    for form in ("data", "noise"):
        first = next(iter(Conjugate(0.8, form)(VP(), times)))
        assert {(k, s): float(v[0]) for k, s, v in first.writes[0]} == {("M", 0): 1.0, ("B", 0): 0.0}


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="kappa"):
        Conjugate(float("nan"))
    with pytest.raises(ArgumentError, match="form"):
        Conjugate(0.1, "eps")
