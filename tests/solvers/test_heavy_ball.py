"""Heavy ball on other solvers: the recursion by hand, its order, what it may be put on, and its ends."""

import pytest
import torch

from fewstep import VE, VP, Cosine, Flow, make_plan
from fewstep.analysis import measured_order
from fewstep.analysis.quadrature import table_states
from fewstep.errors import ArgumentError
from fewstep.plan import Plan
from fewstep.solvers import solver_named
from fewstep.solvers.heavy_ball import HeavyBall

PATHS = [VP(), VE(), Flow(), Cosine()]
LAMS = torch.tensor([-2.0, -1.3, -0.9, 0.1, 0.8], dtype=torch.float64)
ANSWERS = [0.3, -0.8, 0.5, 1.1]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("form", ["data", "noise"])
def test_on_ddim_it_is_the_recursion_of_the_paper(path, form):
    """v ← (1 − β)v + βP with P = x̂₀ or ε̂, and x′ = k·x + g·v."""
    plan = HeavyBall("ddim", 0.7, form)(path, path.t_of_lam(LAMS))
    alpha, sigma = path.alpha(plan.times).tolist(), path.sigma(plan.times).tolist()
    x, v, states = 1.3, None, [1.3]
    for i, answer in enumerate(ANSWERS):
        p = answer if form == "data" else (x - alpha[i] * answer) / sigma[i]
        v = p if v is None else 0.3 * v + 0.7 * p
        if form == "data":
            x = sigma[i + 1] / sigma[i] * x + (alpha[i + 1] - alpha[i] * sigma[i + 1] / sigma[i]) * v
        else:
            x = alpha[i + 1] / alpha[i] * x + (sigma[i + 1] - sigma[i] * alpha[i + 1] / alpha[i]) * v
        states.append(x)
    assert table_states(plan, ANSWERS, 1.3) == pytest.approx(states, rel=1e-12)


def test_on_dpm_solver_the_velocity_is_the_mean_of_extrapolated_answers():
    path = VP()
    plan = HeavyBall("dpm-solver++", 0.7)(path, path.t_of_lam(LAMS))
    alpha, sigma, lam = path.alpha(plan.times).tolist(), path.sigma(plan.times).tolist(), LAMS.tolist()
    x, v, states = 1.3, 0.0, [1.3]
    for i, m in enumerate(ANSWERS):
        p = m
        if i:
            p = m + (lam[i + 1] - lam[i]) / (2 * (lam[i] - lam[i - 1])) * (m - ANSWERS[i - 1])
        v = 0.3 * v + 0.7 * p if i else p
        x = sigma[i + 1] / sigma[i] * x + (alpha[i + 1] - alpha[i] * sigma[i + 1] / sigma[i]) * v
        states.append(x)
    assert table_states(plan, ANSWERS, 1.3) == pytest.approx(states, rel=1e-12)


@pytest.mark.parametrize("form", ["data", "noise"])
@pytest.mark.parametrize("solver", ["ddim", "dpm-solver++", "ghvb"])
def test_any_damping_makes_it_of_order_one_and_none_leaves_the_solver(solver, form):
    assert measured_order(HeavyBall(solver, 0.6, form), VP()) == pytest.approx(1, abs=0.2)
    times = VP().t_of_lam(LAMS)
    whole, base = HeavyBall(solver, 1.0, form)(VP(), times), solver_named(solver)(VP(), times)
    assert whole.order == base.order
    assert table_states(whole, ANSWERS, 0.4) == pytest.approx(table_states(base, ANSWERS, 0.4), rel=1e-12)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("form", ["data", "noise"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_finite_at_both_ends_and_saved_bit_for_bit(path, form, steps, tmp_path):
    plan = make_plan(path, HeavyBall("dpm-solver++", 0.8, form), "uniform", steps)
    last = list(plan)[-1].writes[0]
    assert [(kind, float(value)) for kind, _, value in last] == [("B", 1.0)]
    plan.save(str(tmp_path / "plan.json"))
    assert Plan.load(str(tmp_path / "plan.json")) == plan
    assert plan.evaluations == steps


@pytest.mark.parametrize("form", ["data", "noise"])
def test_a_place_that_stands_still_keeps_state_and_velocity(form):
    path = VP()
    lams = torch.tensor([[-2.0, -2.0], [-1.3, -1.3], [-0.6, -1.3], [0.5, -0.6], [1.5, 0.5]], dtype=torch.float64)
    plan = HeavyBall("ddim", 0.7, form)(path, path.t_of_lam(lams)[..., None])
    m, b, _ = plan._matrices()
    assert torch.equal(m[2 - 1, 1, 0], torch.eye(2, dtype=torch.float64))
    assert not b[1, 1].any()
    alone = HeavyBall("ddim", 0.7, form)(path, path.t_of_lam(lams[[0, 1, 3, 4], 1]))
    # The last row's velocity is read by nobody, so that only x is compared.
    assert torch.allclose(m[[0, 2, 3], 1, 0, 0], alone._matrices()[0][:, 0], rtol=1e-12)
    assert torch.allclose(m[[0, 2], 1, 0, 1], alone._matrices()[0][:2, 1], rtol=1e-12)


def test_after_a_jump_the_velocity_begins_anew():
    for solver in ("ddim", "dpm-solver++"):
        plan = HeavyBall(solver, 0.7)(VP(), VP().t_of_lam(LAMS))
        at = plan.registers.index("v")
        assert len(plan.restarts) == 1
        assert not plan.restarts[0]._matrices()[0][2, :, at].any()
        assert plan._matrices()[0][2, 0, at] != 0
        ddim = solver_named("ddim")(VP(), plan.times)
        assert torch.allclose(plan.restarts[0]._matrices()[0][:, 0, 0], ddim._matrices()[0][:, 0, 0], rtol=1e-12)


def test_what_it_cannot_be_put_on_is_refused():
    with pytest.raises(ArgumentError, match="damping must lie"):
        HeavyBall(damping=0.0)
    with pytest.raises(ArgumentError, match="form must be"):
        HeavyBall(form="v")
    with pytest.raises(ArgumentError, match="draws no noise"):
        HeavyBall("ddpm")
    with pytest.raises(ArgumentError, match="asks once a step"):
        make_plan(VP(), HeavyBall("heun"), "logsnr", 4)
