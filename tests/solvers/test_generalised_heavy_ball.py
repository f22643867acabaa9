"""GHVB: the paper's constants, exactness for polynomials whatever the history, orders, and its ends."""

import math

import pytest
import torch

from fewstep import VE, VP, Cosine, Flow, make_plan
from fewstep.analysis import measured_order, quadrature_errors
from fewstep.analysis.quadrature import table_states
from fewstep.errors import ArgumentError
from fewstep.plan import Plan
from fewstep.solvers.generalised_heavy_ball import GeneralisedHeavyBall, printed_weights

PATHS = [VP(), VE(), Flow(), Cosine()]
ADAMS = {
    2: [3 / 2, -1 / 2],
    3: [23 / 12, -16 / 12, 5 / 12],
    4: [55 / 24, -59 / 24, 37 / 24, -9 / 24],
    5: [1901 / 720, -2774 / 720, 2616 / 720, -1274 / 720, 251 / 720],
}


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_the_papers_constants_solve_their_conditions(k):
    """β = 1 is Adams–Bashforth; for any β, with v the filtered polynomial, Σ c v integrates every power below k."""
    assert printed_weights(k, 1.0).tolist() == pytest.approx(ADAMS[k], rel=1e-12)
    beta, c = 0.6, printed_weights(k, 0.6)
    ages = torch.arange(400, dtype=torch.float64)
    share = beta * (1 - beta) ** ages
    for power in range(k):
        v = torch.stack([(share * (-ages - j) ** power).sum() for j in range(k)])
        assert float(c @ v) == pytest.approx(1 / (power + 1), abs=1e-8)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("damping", [1.0, 0.6])
def test_every_step_is_exact_when_the_noise_is_a_polynomial_in_lambda(k, damping):
    """On an uneven grid, from the k-th step on, with the velocity's whole history."""
    path = VP()
    lam = torch.tensor([-2.0, -1.6, -1.3, -0.9, -0.2, 0.1, 0.8, 1.1, 1.9], dtype=torch.float64)
    plan = GeneralisedHeavyBall(k, damping)(path, path.t_of_lam(lam))
    alpha, sigma = path.alpha(plan.times).tolist(), path.sigma(plan.times).tolist()

    def p(u):
        return sum((0.7 - 0.2 * j) * u**j for j in range(k))

    x, answers = 0.9, []
    nodes = torch.linspace(0, 1, 2001, dtype=torch.float64)
    for i in range(plan.steps):
        answers.append((x - sigma[i] * p(float(lam[i]))) / alpha[i])
        x = table_states(plan, answers + [0.0] * (plan.steps - len(answers)), 0.9)[i + 1]
        before = table_states(plan, answers + [0.0] * (plan.steps - len(answers)), 0.9)[i]
        if i >= k - 1:
            u = lam[i] + nodes * (lam[i + 1] - lam[i])
            integral = float(torch.trapezoid(torch.exp(-u) * torch.as_tensor(p(u)).expand(len(u)), u))
            assert x == pytest.approx(alpha[i + 1] * (before / alpha[i] - integral), abs=1e-6)


@pytest.mark.parametrize(
    ("k", "damping", "rule"),
    [(k, damping, rule) for k in (1, 3, 4) for damping in (1.0, 0.7) for rule in ("exact", "printed")],
)
def test_local_order_against_quadrature(k, damping, rule):
    solver = GeneralisedHeavyBall(k, damping, rule)
    errors = []
    for n in (60, 120):
        times = VP().t_of_lam(torch.linspace(-2, 2, n + 1, dtype=torch.float64))
        errors.append(quadrature_errors(solver(VP(), times))[n // 4 :].abs().max())
    assert math.log2(errors[0] / errors[1]) - 1 == pytest.approx(solver.order, abs=0.3)
    assert solver.order == (k if rule == "exact" else min(k, 2))


@pytest.mark.parametrize("path", [VE(), Flow()], ids=lambda p: p.kind)
@pytest.mark.parametrize(("k", "damping", "order"), [(1, 0.8, 1), (2, 0.8, 2), (2, 0.5, 2), (3, 0.8, 3)])
def test_order_of_convergence(path, k, damping, order):
    """Its first steps, of lower order, are felt in the whole from k = 4 on when sampling begins in the middle."""
    assert measured_order(GeneralisedHeavyBall(k, damping), path) == pytest.approx(order, abs=0.25)


def test_the_printed_constants_are_of_their_order_on_a_grid_uniform_in_the_ratio():
    errors = []
    for n in (80, 160):
        rho = torch.linspace(5, 2, n + 1, dtype=torch.float64)
        plan = GeneralisedHeavyBall(3, 0.8, "printed")(VE(), VE().t_of_lam(-rho.log()))
        errors.append(quadrature_errors(plan)[n // 2 :].abs().max())
    assert math.log2(errors[0] / errors[1]) - 1 == pytest.approx(3, abs=0.25)


def test_the_exact_weights_tend_to_the_papers_on_a_fine_grid_uniform_in_lambda():
    lam = torch.linspace(0, 0.1, 200, dtype=torch.float64)
    solver = GeneralisedHeavyBall(3, 0.5)
    known = torch.ones(199, dtype=torch.bool)
    weights, fresh = solver._weights(lam, known, known, len(lam))
    assert torch.allclose(weights[-1], printed_weights(3, 0.5), atol=3e-3)
    assert not torch.allclose(weights[3], printed_weights(3, 0.5), atol=3e-2)
    assert fresh.nonzero().tolist() == [[0]]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_one_velocity_without_momentum_is_ddim(path):
    plan, ddim = (make_plan(path, s, "uniform", 4) for s in (GeneralisedHeavyBall(1, 1.0), "ddim"))
    answers = [0.3, -0.8, 0.5, 1.1]
    assert table_states(plan, answers, 0.7) == pytest.approx(table_states(ddim, answers, 0.7), rel=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("rule", ["exact", "printed"])
@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_finite_at_both_ends_and_saved_bit_for_bit(path, rule, steps, tmp_path):
    plan = make_plan(path, GeneralisedHeavyBall(4, 0.8, rule), "uniform", steps)
    last = list(plan)[-1].writes[0]
    assert [(kind, float(value)) for kind, _, value in last] == [("B", 1.0)]
    plan.save(str(tmp_path / "plan.json"))
    assert Plan.load(str(tmp_path / "plan.json")) == plan
    assert plan.evaluations == steps


def test_a_place_that_stands_still_keeps_state_and_velocities():
    path = VP()
    lams = torch.tensor([-2.0, -1.3, -1.3, -0.6, 0.5, 1.0], dtype=torch.float64)
    other = torch.tensor([-2.0, -1.5, -1.0, -0.6, 0.5, 1.0], dtype=torch.float64)
    plan = GeneralisedHeavyBall(3, 0.7)(path, path.t_of_lam(torch.stack([other, lams], 1))[..., None])
    m, b, _ = plan._matrices()
    assert torch.equal(m[1, 1, 0], torch.eye(3, dtype=torch.float64))
    assert not b[1, 1].any()
    alone = GeneralisedHeavyBall(3, 0.7)(path, path.t_of_lam(lams[[0, 1, 3, 4, 5]]))
    assert torch.allclose(m[[0, 2, 3, 4], 1, 0, 0], alone._matrices()[0][:, 0], rtol=1e-10)


def test_after_a_jump_the_velocities_begin_anew():
    plan = GeneralisedHeavyBall(3, 0.7)(VP(), VP().t_of_lam(torch.linspace(-2, 1, 8, dtype=torch.float64)))
    read = [[bool(p._matrices()[0][4, 0, j]) for j in (1, 2)] for p in (*plan.restarts, plan)]
    assert read == [[False, False], [True, False], [True, True]]
    assert len(GeneralisedHeavyBall(1, 0.7)(VP(), plan.times).restarts) == 1


def test_bad_arguments_are_refused():
    for message, arguments in {
        "velocities must be 1 to 5": {"velocities": 6},
        "damping must lie": {"damping": 1.1},
        "rule must be": {"rule": "best"},
    }.items():
        with pytest.raises(ArgumentError, match=message):
            GeneralisedHeavyBall(**arguments)
