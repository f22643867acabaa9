"""DualFast: the rule by hand, its weights' sum, the two-step method that it may become, orders, and its ends."""

import pytest
import torch

from fewstep import VE, VP, Cosine, Flow, make_plan
from fewstep.analysis import measured_order
from fewstep.analysis.quadrature import table_states
from fewstep.errors import ArgumentError
from fewstep.plan import Plan
from fewstep.solvers import solver_named
from fewstep.solvers.dual_speed import DualSpeed

PATHS = [VP(), VE(), Flow(), Cosine()]
LAMS = torch.tensor([-2.0, -1.3, -0.9, 0.1, 0.8], dtype=torch.float64)
ANSWERS = [0.3, -0.8, 0.5, 1.1]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("anchor", ["first", "previous"])
def test_on_ddim_it_is_the_rule_of_the_paper(path, anchor):
    """x′ = (α′/α)x + α′(ρ′ − ρ)[(1 + c)ε̂ − c·ε_τ], c growing evenly from 0."""
    plan = DualSpeed("ddim", 0.6, anchor)(path, path.t_of_lam(LAMS))
    alpha, sigma = path.alpha(plan.times).tolist(), path.sigma(plan.times).tolist()
    rho = [s / a for a, s in zip(alpha, sigma, strict=True)]
    x, noises, states = 1.3, [], [1.3]
    for i, answer in enumerate(ANSWERS):
        noises.append((x - alpha[i] * answer) / sigma[i])
        c, kept = 0.6 * i / 3, noises[0 if anchor == "first" else max(i - 1, 0)]
        x = alpha[i + 1] * (x / alpha[i] + (rho[i + 1] - rho[i]) * ((1 + c) * noises[i] - c * kept))
        states.append(x)
    assert table_states(plan, ANSWERS, 1.3) == pytest.approx(states, rel=1e-11)


@pytest.mark.parametrize("base", ["ddim", "dpm-solver++", "heun"])
@pytest.mark.parametrize("anchor", ["first", "previous"])
def test_noise_that_stands_still_is_integrated_as_before(base, anchor):
    """Data at one point: every answer is x₀ and every step lands, for any strength."""
    path = VP()
    plan = DualSpeed(base, 2.0, anchor)(path, path.t_of_lam(LAMS))
    alpha, sigma = path.alpha(plan.times), path.sigma(plan.times)
    want = 0.7 * alpha - 1.2 * sigma
    assert table_states(plan, [0.7] * plan.evaluations, float(want[0])) == pytest.approx(want.tolist(), rel=1e-10)


def test_with_the_right_strength_it_is_the_two_step_method():
    """c = ½(ρ′ − ρ)/(ρ − ρ₁): on ρ falling as 1 : q : q² that is ½·q of the step's own ratio, once."""
    path = VE()
    rho = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)
    plan = DualSpeed("ddim", 0.25)(path, path.t_of_lam(-rho.log()))
    x, answers = [3.0], [0.4, -0.9]
    noise = [(x[0] - answers[0]) / 4]
    x.append(x[0] - 2 * noise[0])
    noise.append((x[1] - answers[1]) / 2)
    # Adams–Bashforth with a last step of 2 and this one of 1: noise₁ + ½(1/2)(noise₁ − noise₀)
    x.append(x[1] - (noise[1] + 0.25 * (noise[1] - noise[0])))
    assert table_states(plan, answers, 3.0) == pytest.approx(x, rel=1e-12)


@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
@pytest.mark.parametrize(
    ("base", "strength", "anchor"),
    [
        ("ddim", 0.3, "previous"),
        ("dpm-solver++", 0.3, "previous"),
        ("dpm-solver++", 0.0, "previous"),
        ("dpm-solver++", 0.3, "first"),
    ],
)
def test_orders(path, base, strength, anchor):
    solver = DualSpeed(base, strength, anchor)
    assert measured_order(solver, path) == pytest.approx(solver.order, abs=0.2)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("base", ["ddim", "dpm-solver++"])
@pytest.mark.parametrize("anchor", ["first", "previous"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_finite_at_both_ends_and_saved_bit_for_bit(path, base, anchor, steps, tmp_path):
    plan = make_plan(path, DualSpeed(base, 0.5, anchor), "uniform", steps)
    last = list(plan)[-1].writes[0]
    assert [kind for kind, _, _ in last][-1] == "B"
    assert float(last[-1][2]) == pytest.approx(1, rel=1e-12)
    plan.save(str(tmp_path / "plan.json"))
    assert Plan.load(str(tmp_path / "plan.json")) == plan
    assert plan.evaluations == steps


@pytest.mark.parametrize("anchor", ["first", "previous"])
def test_a_place_that_stands_still_keeps_state_and_noise(anchor):
    path = VP()
    lams = torch.tensor([[-2.0, -2.0], [-1.3, -1.3], [-0.6, -1.3], [0.5, 0.5]], dtype=torch.float64)
    plan = DualSpeed("ddim", 0.6, anchor)(path, path.t_of_lam(lams)[..., None])
    m, b, _ = plan._matrices()
    assert torch.allclose(m[1, 1, 0], torch.eye(2, dtype=torch.float64))
    assert not b[1, 1].any()
    assert m[2, 1, 0, 0, 1] != 0


def test_after_a_jump_it_begins_anew():
    for base in ("ddim", "dpm-solver++"):
        plan = DualSpeed(base)(VP(), VP().t_of_lam(LAMS))
        at = plan.registers.index("eps")
        assert not plan.restarts[0]._matrices()[0][2, 0, at].any()
        assert plan._matrices()[0][2, 0, at] != 0
        ddim = solver_named("ddim")(VP(), plan.times)
        assert torch.allclose(plan.restarts[0]._matrices()[0][:, 0, 0], ddim._matrices()[0][:, 0, 0])


def test_bad_arguments_are_refused():
    for message, arguments in {
        "strength must": {"strength": -0.1},
        "anchor must be": {"anchor": "last"},
        "draws no noise": {"base": "ddpm"},
    }.items():
        with pytest.raises(ArgumentError, match=message):
            DualSpeed(**arguments)
