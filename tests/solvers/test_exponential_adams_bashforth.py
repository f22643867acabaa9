"""DEIS and iPNDM: coefficients against independent quadrature, peers, history, ends and places."""

import numpy as np
import pytest
import torch
from diffusers import DEISMultistepScheduler
from scipy.integrate import quad

from fewstep import VE, VP, Cosine, Flow, make_plan, sample, wrap
from fewstep.analysis import measured_order
from fewstep.errors import ArgumentError
from fewstep.guidance import Guide
from fewstep.solvers.exponential_adams_bashforth import ExponentialAdamsBashforth

PATHS = [VP(), VE(), Flow(), Cosine()]
LAM = [-2.0, -1.3, -0.9, 0.1, 0.8]


def grid(path, lam=LAM):
    return path.t_of_lam(torch.tensor(lam, dtype=torch.float64))


def belief(x, t):
    return torch.tanh(x) * (1 + 0.3 * t.double().cos().reshape(-1, 1))


def told_noise(path, x, t):
    at = path.model_time(t).expand(len(x))
    return (x - path.alpha(t) * belief(x, at)) / path.sigma(t)


def lagrange_integral(path, basis, times, i, nodes, j):
    """α′∫ ℓ_j dρ by scipy, in ρ."""

    def q(rho):
        if basis == "t":
            return float(path.t_of_lam(-np.log(rho)))
        return rho if basis == "rho" else np.log(rho)

    rho = torch.exp(-path.lam(times)).tolist()
    at = [q(rho[k]) for k in nodes]

    def value(r):
        return np.prod([(q(r) - a) / (at[j] - a) for k, a in enumerate(at) if k != j])

    return float(path.alpha(times[i + 1])) * quad(value, rho[i], rho[i + 1], epsabs=1e-13, epsrel=1e-12)[0]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("basis", ["t", "rho", "logrho"])
@pytest.mark.parametrize("amend", [True, False])
def test_a_run_is_the_published_recursion_with_integrals_by_scipy(path, basis, amend):
    times, x = grid(path), torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(3, 2)
    ours = sample(
        wrap(belief, path, "x0", shape=(2,)), start=x,
        plan=ExponentialAdamsBashforth(4, basis, amend=amend)(path, times),
    ).x  # fmt: skip
    answers = []
    for i in range(len(LAM) - 1):
        answers.append(told_noise(path, x, times[i]))
        nodes = list(range(i, max(-1, i - 4), -1))
        if i == 1 and amend:
            # Held, the first step gave e₀ the whole integral; the line through both shares it.
            x = x + lagrange_integral(path, basis, times, 0, [1, 0], 0) * (answers[1] - answers[0])
        x = path.alpha(times[i + 1]) / path.alpha(times[i]) * x
        for j, node in enumerate(nodes):
            x = x + lagrange_integral(path, basis, times, i, nodes, j) * answers[node]
    assert torch.allclose(ours, x, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_fixed_weights_are_those_of_even_nodes(path):
    """iPNDM written out: y′ = y + Δρ·(a combination of the last noises)."""
    weights = [[1.0], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]
    times, x = grid(path, [*LAM, 1.5]), torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(3, 2)
    ours = sample(wrap(belief, path, "x0", shape=(2,)), start=x, plan=make_plan(path, "ipndm", times)).x
    y, rho, answers = x / path.alpha(times[0]), torch.exp(-path.lam(times)), []
    for i in range(len(times) - 1):
        answers.insert(0, told_noise(path, y * path.alpha(times[i]), times[i]))
        y = y + (rho[i + 1] - rho[i]) * sum(w * e for w, e in zip(weights[min(i, 3)], answers, strict=False))
    assert torch.allclose(ours, y * path.alpha(times[-1]), rtol=1e-11)


@pytest.mark.parametrize("basis", ["t", "rho", "logrho", "even"])
def test_one_answer_is_ddim(basis):
    for path in PATHS:
        one, two = (make_plan(path, s, "uniform", 5) for s in (ExponentialAdamsBashforth(1, basis), "ddim"))
        assert torch.allclose(one.M.value, two.M.value, rtol=1e-12)
        assert torch.allclose(one.B.value, two.B.value, rtol=1e-12)


@pytest.mark.parametrize(("answers", "basis"), [(2, "t"), (4, "t"), (2, "rho"), (4, "rho"), (3, "logrho")])
def test_orders(answers, basis):
    solver = ExponentialAdamsBashforth(answers, basis)
    assert solver.order == answers
    assert measured_order(solver, VP()) == pytest.approx(answers, abs=0.3)


def test_fixed_weights_are_of_order_two_and_of_their_own_where_rho_falls_evenly():
    fixed = ExponentialAdamsBashforth(4, "even")
    assert fixed.order == 2
    rho = torch.linspace(3.0, 0.2, 12, dtype=torch.float64)
    even = fixed(VE(), VE().t_of_lam(-rho.log()))
    fitted = ExponentialAdamsBashforth(4, "rho", amend=False)(VE(), even.times)
    assert torch.allclose(even.B.value, fitted.B.value, rtol=1e-10)
    assert torch.allclose(even.M.value, fitted.M.value, rtol=1e-10)


def network():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(2, 2, 3, padding=1).double().requires_grad_(False)
    return lambda x, time: torch.tanh(layer(x)) + 0.1 * torch.cos(time.double() / 100).reshape(-1, 1, 1, 1) * x


@pytest.mark.parametrize("answers", [2, 3])
@pytest.mark.parametrize("steps", [5, 10])
def test_equal_to_diffusers(answers, steps):
    """Theirs fits in log ρ, starts as published, and ends at the noise of the last trained index, not at none."""
    path, net = VP.from_betas("scaled_linear"), network()
    peer = DEISMultistepScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, timestep_spacing="trailing",
        solver_order=answers, lower_order_final=False,
    )  # fmt: skip
    peer.set_timesteps(steps)
    times = path.t_of_index(torch.tensor([*map(float, peer.timesteps), 0.0], dtype=torch.float64))
    start = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    solver = ExponentialAdamsBashforth(answers, "logrho", amend=False)
    ours = sample(wrap(net, path, "eps", shape=(2, 8, 8)), start=start, plan=make_plan(path, solver, times)).x
    x = start
    for time in peer.timesteps:
        x = peer.step(net(x, time.double().expand(3)), time, x).prev_sample
    assert float((x - ours).norm() / ours.norm()) < 1e-5


class Jump(Guide):
    """Leaves the state alone and says that it jumped, after the third step."""

    level = "state"

    def move(self, ask, x, state):
        return x, state, ask.index == 2


@pytest.mark.parametrize("name", ["deis", "ipndm"])
def test_history_begins_anew_after_a_jump(name):
    den = wrap(lambda x, t, **_: torch.tanh(x) * 0.7, VP(), "x0", shape=(2, 4, 4))
    plan = make_plan(VP(), name, "uniform", 9)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    jumped = sample(den, start=x, plan=plan, guides=[Jump()]).x
    times = plan.times.tolist()
    first = sample(den, start=x, plan=make_plan(VP(), name, times[:4])).x
    second = sample(den, start=first, plan=make_plan(VP(), name, times[3:])).x
    assert torch.allclose(jumped, second, rtol=1e-11)
    assert not torch.allclose(jumped, sample(den, start=x, plan=plan).x, rtol=1e-8)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("name", ["deis", "deis-rho", "ipndm"])
def test_ends_are_finite_and_hold_the_answer(path, name):
    for steps in (1, 2, 3, 6):
        plan = make_plan(path, name, "uniform", steps)
        assert plan.evaluations == steps
        assert {kind: float(value) for kind, _, value in list(plan)[-1].writes[0]} == {"B": 1.0}


def test_lower_order_final_takes_back_an_answer_a_step():
    times = grid(VP(), [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0])
    plan = ExponentialAdamsBashforth(3, lower_order_final=True)(VP(), times)
    reads = [max(s for kind, s, _ in step.writes[0] if kind == "M") for step in plan]
    assert reads == [0, 1, 2, 1, 0]


@pytest.mark.parametrize("bad", [{"answers": 0}, {"answers": 5}, {"basis": "lambda"}])
def test_bad_parameters(bad):
    with pytest.raises(ArgumentError, match=next(iter(bad))):
        ExponentialAdamsBashforth(**bad)
