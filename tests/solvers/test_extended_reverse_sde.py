"""ER-SDE: the exact step by quadrature for every noise function, orders, its relatives, and its ends."""

import math

import pytest
import torch
from scipy.integrate import quad

from fewstep import VE, VP, Cosine, Flow, make_plan
from fewstep.analysis import gaussian_output, measured_order, quadrature_errors
from fewstep.analysis.quadrature import table_states
from fewstep.errors import ArgumentError
from fewstep.plan import Plan
from fewstep.solvers import solver_named
from fewstep.solvers.extended_reverse_sde import NOISES, ExtendedReverseSDE

PATHS = [VP(), VE(), Flow(), Cosine()]
PHI = {
    "ode": lambda r: r,
    "sde": lambda r: r**2,
    "sde1": lambda r: r * (math.exp(-1 / r) + 10),
    "sde2": lambda r: r**1.5,
    "sde3": lambda r: r**2.5,
    "sde4": lambda r: r**0.9 * math.log10(1 + 100 * r**1.5),
    "sde5": lambda r: r * (math.exp(r**0.3) + 10),
}
LAMS = torch.tensor([-2.0, -1.3, -0.9, 0.1, 0.8, 2.2], dtype=torch.float64)


@pytest.mark.parametrize("noise", list(NOISES))
def test_the_mean_integrates_quadratics_in_rho_exactly_and_the_variance_is_the_processes(noise):
    """x′/α′ = φ(ρ′)·(x/(α·φ(ρ)) + ∫ f(u) φ′(u)/φ(u)² du) when the answer is f(ρ): every weight of three answers."""
    path, phi = VP(), PHI[noise]

    def f(rho):
        return 0.7 - 0.4 * rho + 0.09 * rho**2

    plan = ExtendedReverseSDE(3, noise)(path, path.t_of_lam(LAMS))
    rho = torch.exp(-path.lam(plan.times)).tolist()
    alpha = path.alpha(plan.times).tolist()
    states = table_states(plan, [f(r) for r in rho[:-1]], start=0.3)
    for i in range(2, plan.steps):
        end = rho[i + 1]

        def kernel(u, end=end):
            slope = (phi(u * (1 + 1e-5)) - phi(u * (1 - 1e-5))) / (2e-5 * u)
            return f(u) * phi(end) * slope / phi(u) ** 2

        q = phi(end) / phi(rho[i])
        want = alpha[i + 1] * (q * states[i] / alpha[i] + quad(kernel, end, rho[i], epsabs=1e-13)[0])
        assert states[i + 1] == pytest.approx(want, abs=1e-8)
    drawn = {int(k[0]): float(v) for k, v in zip(plan.N.index, plan.N.value, strict=True)}
    for i in range(plan.steps):
        variance = rho[i + 1] ** 2 - (rho[i] * phi(rho[i + 1]) / phi(rho[i])) ** 2
        assert drawn.get(i, 0.0) ** 2 == pytest.approx(alpha[i + 1] ** 2 * variance, abs=1e-12)


@pytest.mark.parametrize("path", [VE(), Flow()], ids=lambda p: p.kind)
@pytest.mark.parametrize(
    ("answers", "noise", "rule"),
    [
        (1, "ode", "interpolation"),
        (2, "ode", "interpolation"),
        (3, "ode", "interpolation"),
        (3, "ode", "printed"),
        (1, "sde5", "interpolation"),
        (2, "sde5", "interpolation"),
        (3, "sde5", "printed"),
        (1, "sde", "interpolation"),
        (2, "sde", "interpolation"),
    ],
)
def test_orders(path, answers, noise, rule):
    solver = ExtendedReverseSDE(answers, noise, rule)
    assert measured_order(solver, path) == pytest.approx(solver.order, abs=0.2)


def test_three_answers_with_noise_are_of_order_two_with_a_smaller_error():
    c = torch.tensor([0.05, 0.3, 1.5], dtype=torch.float64)
    times = VP().t_of_lam(torch.linspace(-2, 2.5, 41, dtype=torch.float64))
    want = VP().alpha(times[-1]) ** 2 * c + VP().sigma(times[-1]) ** 2

    def error(answers, rule="interpolation"):
        plan = ExtendedReverseSDE(answers, "sde5", rule)(VP(), times)
        return float((gaussian_output(plan, c, exact_start=True)[1] - want).norm())

    assert error(3) < 0.5 * error(2)
    assert error(3) < error(3, "printed") < error(2)
    assert measured_order(ExtendedReverseSDE(3, "sde5"), VP(), (160, 320)) == pytest.approx(2, abs=0.25)


def test_quadrature_tells_the_printed_rule_from_interpolation():
    """On λ ∈ [−2, 2] a step of the corrected rule errs like h⁴, of the printed one like h³."""

    def order(rule):
        errors = []
        for n in (80, 160):
            times = VP().t_of_lam(torch.linspace(-2, 2, n + 1, dtype=torch.float64))
            plan = ExtendedReverseSDE(3, "ode", rule)(VP(), times)
            errors.append(quadrature_errors(plan)[n // 4 :].abs().max())
        return math.log2(errors[0] / errors[1]) - 1

    assert order("interpolation") == pytest.approx(3, abs=0.2)
    assert order("printed") == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize(("noise", "peer"), [("ode", "ddim"), ("sde", "ddpm")])
def test_one_answer_is_ddim_or_ancestral_sampling(path, noise, peer):
    one = ExtendedReverseSDE(1, noise)
    for grid in ("logsnr", "uniform"):
        plan, other = make_plan(path, one, grid, 5), make_plan(path, peer, grid, 5)
        for a, b in zip(plan._matrices(), other._matrices(), strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def test_ve_and_vp_are_one_in_the_ratio_of_noise_to_signal():
    """On grids of equal ρ the tables agree in units of x/α."""
    vp, ve = VP(), VE(sigma_max=10.0)
    one, two = (ExtendedReverseSDE(3)(path, path.t_of_lam(LAMS)) for path in (vp, ve))
    alpha = vp.alpha(one.times)
    (m, b, n), (m_ve, b_ve, n_ve) = one._matrices(), two._matrices()
    assert torch.allclose(m[:, 0, 0] * alpha[:-1] / alpha[1:], m_ve[:, 0, 0], rtol=1e-12)
    for mine, other in ((m[:, 0, 1:], m_ve[:, 0, 1:]), (b[:, 0], b_ve[:, 0]), (n[:, 0], n_ve[:, 0])):
        assert torch.allclose(mine / alpha[1:, None], other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("noise", list(NOISES))
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_finite_at_both_ends_and_saved_bit_for_bit(path, noise, steps, tmp_path):
    plan = make_plan(path, ExtendedReverseSDE(3, noise), "uniform", steps)
    last = list(plan)[-1].writes[0]
    assert [(kind, float(value)) for kind, _, value in last] == [("B", 1.0)]
    plan.save(str(tmp_path / "plan.json"))
    assert Plan.load(str(tmp_path / "plan.json")) == plan
    assert plan.evaluations == steps


def test_places_have_their_own_times_and_stand_still():
    path = VP()
    rows = path.t_of_lam(torch.tensor([[-2.0, -2.0], [-1.3, -2.0], [-0.6, -1.2], [0.5, -0.3], [1.5, -0.3]]).double())
    plan = ExtendedReverseSDE(3)(path, rows[..., None])
    m, b, n = plan._matrices()
    alone = ExtendedReverseSDE(3)(path, rows[:, 0])._matrices()
    for a, c in zip((m, b, n), alone, strict=True):
        assert torch.allclose(a[:, 0, 0], c, rtol=1e-12, atol=1e-14)
    for i in (0, 3):
        assert m[i, 1, 0, 0].tolist() == [1.0, 0.0, 0.0]
        assert not b[i, 1, 0, 0].any()
        assert not n[i, 1, 0, 0].any()
    # The first move after standing still is of order 1, the second looks at two answers.
    assert m[1, 1, 0, 0, 1:].tolist() == [0.0, 0.0]
    assert m[2, 1, 0, 0, 1] != 0
    assert m[2, 1, 0, 0, 2] == 0


def test_after_a_jump_the_history_begins_anew():
    plan = ExtendedReverseSDE(3)(VP(), VP().t_of_lam(LAMS))
    assert [bool(p._matrices()[0][3, 0, 1]) for p in (*plan.restarts, plan)] == [False, True, True]
    assert [bool(p._matrices()[0][3, 0, 2]) for p in (*plan.restarts, plan)] == [False, False, True]


def test_bad_arguments_are_refused():
    for message, arguments in {
        "answers must be 1, 2 or 3": {"answers": 4},
        "unknown noise function": {"noise": "sde9"},
        "rule must be": {"rule": "best"},
    }.items():
        with pytest.raises(ArgumentError, match=message):
            solver_named("er-sde", **arguments)
