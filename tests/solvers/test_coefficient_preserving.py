"""CPS: the path's coefficients are kept, what variance is lost in closed form, and its ends."""

import math

import pytest
import torch

from fewstep import VE, VP, Cosine, Flow, make_plan
from fewstep.analysis import gaussian_output, measured_order
from fewstep.errors import ArgumentError
from fewstep.plan import Plan
from fewstep.solvers.coefficient_preserving import CoefficientPreserving

PATHS = [VP(), VE(), Flow(), Cosine()]
C = torch.tensor([0.02, 0.3, 1.7], dtype=torch.float64)


def test_a_step_on_the_flow_path_by_hand():
    """x′ = (1 − t′)x̂₀ + t′·cos θ·ε̂ + t′·sin θ·ξ with θ = 0.7·π/2, from 0.8 to 0.5."""
    plan = make_plan(Flow(), "cps", [0.8, 0.5])
    m, b, n = (float(v) for v in plan._matrices())
    cos, sin = math.cos(0.35 * math.pi), math.sin(0.35 * math.pi)
    assert m == pytest.approx(0.5 * cos / 0.8, rel=1e-12)
    assert b == pytest.approx(0.5 - 0.2 * 0.5 * cos / 0.8, rel=1e-12)
    assert n == pytest.approx(0.5 * sin, rel=1e-12)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_the_law_of_one_step_in_closed_form(path, eta):
    """On Gaussian data x′ has the factor α′g + σ′cos θ(1 − αg)/σ of x, and the noise σ′sin θ."""
    times = torch.tensor([0.9, 0.6], dtype=torch.float64)
    plan = make_plan(path, CoefficientPreserving(eta), times)
    (a, b), (s, r) = path.alpha(times), path.sigma(times)
    total = a**2 * C + s**2
    g = a * C / total
    factor = b * g + r * math.cos(eta * math.pi / 2) * (1 - a * g) / s
    want = factor**2 * total + (r * math.sin(eta * math.pi / 2)) ** 2
    assert torch.allclose(gaussian_output(plan, C, exact_start=True)[1], want, rtol=1e-12)


@pytest.mark.parametrize("eta", [0.3, 0.7, 1.0])
def test_the_variance_that_a_step_without_length_takes(eta):
    """(1 − cos θ)²·α²·Var(x₀ | x), so the sampler is not consistent: more steps lose more."""
    path, t = Flow(), 0.4
    plan = make_plan(path, CoefficientPreserving(eta), [t, t - 1e-9])
    a, s = path.alpha(t), path.sigma(t)
    total = a**2 * C + s**2
    lost = (1 - math.cos(eta * math.pi / 2)) ** 2 * a**2 * C * s**2 / total
    assert torch.allclose(total - gaussian_output(plan, C, exact_start=True)[1], lost, atol=1e-8)


def test_final_variance_against_ddim_with_noise():
    """N(0, 0.3) data, η = 0.7, uniform steps: it loses variance for ever, ddim with η does not."""

    def wrong(solver, steps):
        return float(gaussian_output(make_plan(Flow(), solver, "uniform", steps), torch.tensor([0.3]))[1]) - 0.3

    cps = [wrong("cps", n) for n in (10, 50, 1000)]
    assert cps == pytest.approx([-0.134, -0.097, -0.084], abs=0.002)
    from fewstep.solvers import solver_named

    ddim = [wrong(solver_named("ddim", eta=0.7), n) for n in (10, 50, 1000)]
    assert ddim == pytest.approx([-0.092, -0.024, -0.001], abs=0.002)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_without_noise_it_is_ddim(path):
    plan, ddim = make_plan(path, CoefficientPreserving(0.0), "uniform", 4), make_plan(path, "ddim", "uniform", 4)
    for mine, other in zip(plan._matrices(), ddim._matrices(), strict=True):
        assert torch.allclose(mine, other, rtol=1e-12, atol=1e-14)
    assert (plan.order, plan.stochastic) == (1, False)
    assert measured_order(CoefficientPreserving(0.0), path) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_finite_at_both_ends_and_saved_bit_for_bit(path, steps, tmp_path):
    plan = make_plan(path, CoefficientPreserving(1.0), "uniform", steps)
    assert [(kind, float(value)) for kind, _, value in list(plan)[-1].writes[0]] == [("B", 1.0)]
    plan.save(str(tmp_path / "plan.json"))
    assert Plan.load(str(tmp_path / "plan.json")) == plan


def test_a_place_that_stands_still_is_unchanged():
    times = torch.tensor([[0.9, 0.9], [0.5, 0.9], [0.5, 0.2]], dtype=torch.float64)[..., None]
    m, b, n = make_plan(VP(), "cps", times)._matrices()
    for i, place in ((0, 1), (1, 0)):
        assert (float(m[i, place]), float(b[i, place]), float(n[i, place])) == (1.0, 0.0, 0.0)
    alone = make_plan(VP(), "cps", times[1:, 1])._matrices()[0]
    assert float(m[1, 1]) == pytest.approx(float(alone[0]), rel=1e-14)


def test_a_bad_eta_is_refused():
    with pytest.raises(ArgumentError, match="eta must lie in"):
        CoefficientPreserving(1.2)
