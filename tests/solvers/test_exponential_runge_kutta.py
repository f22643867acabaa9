"""DPM-Solver and the single-step DPM-Solver++: published formulas, peers, mixed orders, ends and places."""

import math

import pytest
import torch
from diffusers import DPMSolverSinglestepScheduler

from fewstep import VE, VP, Cosine, Flow, make_plan, sample, wrap
from fewstep.analysis import gaussian_w2, measured_order
from fewstep.errors import ArgumentError
from fewstep.solvers import solver_named
from fewstep.solvers.exponential_runge_kutta import ExponentialRungeKutta

PATHS = [VP(), VE(), Flow(), Cosine()]
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
DISCRETE = VP.from_betas("scaled_linear")


def belief(x, t):
    """A denoiser that is linear neither in x nor in t."""
    return torch.tanh(x) * (1 + 0.3 * torch.as_tensor(t).double().cos().reshape(-1, 1))


def published(path, stages, form, rule, x, times):
    """One step in the papers' letters, each case written out; sign is that of h in the exponentials."""
    (s, t), noise = times.tolist(), form == "noise"
    ls, lt = float(path.lam(s)), float(path.lam(t))
    h = lt - ls

    def told(state, lam):
        at = path.t_of_lam(lam)
        x0 = belief(state, path.model_time(at).expand(len(state)))
        return (state - path.alpha(at) * x0) / path.sigma(at) if noise else x0

    def level(lam):
        at = path.t_of_lam(lam)
        return (path.alpha(at), path.sigma(at)) if noise else (path.sigma(at), path.alpha(at))

    def grown(share):
        return math.expm1(share * h if noise else -share * h)

    def first(share):
        z = share * h if noise else -share * h
        return grown(share) / z - 1

    (k, _), (ke, se) = level(ls), level(lt)
    p0 = told(x, ls)
    r1 = 1 / stages
    k1, s1 = level(ls + r1 * h)
    p1 = told(k1 / k * x - s1 * grown(r1) * p0, ls + r1 * h)
    base = ke / k * x - se * grown(1) * p0
    if stages == 2:
        weight = grown(1) / 2 if rule == "midpoint" else first(1)
        return base - se * weight / r1 * (p1 - p0)
    r2 = 2 / 3
    k2, s2 = level(ls + r2 * h)
    u2 = k2 / k * x - s2 * grown(r2) * p0 - r2 / r1 * s2 * first(r2) * (p1 - p0)
    p2 = told(u2, ls + r2 * h)
    if rule == "midpoint":
        return base - se * first(1) / r2 * (p2 - p0)
    d1, d2 = (p1 - p0) / r1, (p2 - p0) / r2
    z = h if noise else -h
    slope, curve = (r2 * d1 - r1 * d2) / (r2 - r1), 2 * (d2 - d1) / (r2 - r1)
    return base - se * first(1) * slope - se * (first(1) / z - 0.5) * curve


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("rule", ["midpoint", "exact"])
@pytest.mark.parametrize("form", ["noise", "data"])
@pytest.mark.parametrize("stages", [2, 3])
def test_a_step_is_the_published_formula(path, stages, form, rule):
    times = path.t_of_lam(torch.tensor([-1.0, 0.4], dtype=torch.float64))
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(4, 3)
    plan = ExponentialRungeKutta(stages, form, rule)(path, times)
    got = sample(wrap(belief, path, "x0", shape=(3,)), start=x, plan=plan)
    assert got.stats.evaluations == stages
    assert torch.allclose(got.x, published(path, stages, form, rule, x, times), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", ["noise", "data"])
@pytest.mark.parametrize("stages", [2, 3])
def test_the_exact_rule_has_the_same_order(form, stages):
    solver = ExponentialRungeKutta(stages, form, "exact")
    assert measured_order(solver, VP()) == pytest.approx(solver.order, abs=0.1)


def test_the_published_mix_ends_on_a_step_that_leaves_order_two():
    """Both of 40 and 160 intervals leave one over, which is a step of order 1."""
    mixed, lifted = (ExponentialRungeKutta(3, "noise", "exact", groups) for groups in ("last", "first"))
    assert (mixed.order, lifted.order) == (2, 3)
    assert measured_order(mixed, VP(), (40, 160)) == pytest.approx(2, abs=0.15)
    assert measured_order(lifted, VP(), (40, 160)) == pytest.approx(3, abs=0.15)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("groups", ["first", "last"])
@pytest.mark.parametrize("stages", [2, 3])
def test_a_mix_of_n_intervals_costs_n_evaluations(path, groups, stages):
    solver = ExponentialRungeKutta(stages, "noise", "exact", groups)
    for n in range(1, 14):
        assert make_plan(path, solver, "uniform", n).evaluations == n
        assert make_plan(path, solver, "uniform", evaluations=n).evaluations == n


def sizes(n, solver, last=2.0):
    times = VP().t_of_lam(torch.linspace(-2, last, n + 1, dtype=torch.float64))
    if math.isinf(last):
        times = torch.cat([VP().t_of_lam(torch.linspace(-2, 2, n, dtype=torch.float64)), torch.zeros(1)])
    plan = solver(VP(), times)
    found, run = [], 0
    for step in plan:
        run += 1
        if step.t_next < step.t:
            found, run = [*found, run], 0
    return found


@pytest.mark.parametrize(
    ("n", "published", "ours", "to_zero"),
    [
        (1, [1], [1], [1]),
        (2, [2], [2], [1, 1]),
        (3, [2, 1], [3], [2, 1]),
        (4, [3, 1], [2, 2], [3, 1]),
        (5, [3, 2], [2, 3], [2, 2, 1]),
        (6, [3, 2, 1], [3, 3], [2, 3, 1]),
        (7, [3, 3, 1], [2, 2, 3], [3, 3, 1]),
        (9, [3, 3, 2, 1], [3, 3, 3], [2, 3, 3, 1]),
        (10, [3, 3, 3, 1], [2, 2, 3, 3], [3, 3, 3, 1]),
        (11, [3, 3, 3, 2], [2, 3, 3, 3], [2, 2, 3, 3, 1]),
    ],
)
def test_how_intervals_are_grouped(n, published, ours, to_zero):
    assert sizes(n, ExponentialRungeKutta(3, "noise", "exact", "last")) == published
    assert sizes(n, ExponentialRungeKutta(3, "noise", "exact", "first")) == ours
    assert sizes(n, ExponentialRungeKutta(3, "noise", "exact", "first"), math.inf) == to_zero


def network():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(2, 2, 3, padding=1).double().requires_grad_(False)
    return lambda x, time: torch.tanh(layer(x)) + 0.1 * torch.cos(time.double() / 100).reshape(-1, 1, 1, 1) * x


# Theirs takes the state at ⅔ by the midpoint rule, which only "heun" does not.
@pytest.mark.parametrize(
    ("solver", "settings", "steps"),
    [
        (ExponentialRungeKutta(3, "data", "exact", "last"), {"solver_order": 3, "solver_type": "heun"}, 9),
        (ExponentialRungeKutta(3, "data", "exact", "last"), {"solver_order": 3, "solver_type": "heun"}, 10),
        (ExponentialRungeKutta(2, "data", "midpoint", "last"), {"solver_order": 2}, 7),
        (ExponentialRungeKutta(2, "data", "exact", "last"), {"solver_order": 2, "solver_type": "heun"}, 7),
    ],
)
def test_equal_to_diffusers(solver, settings, steps):
    peer = DPMSolverSinglestepScheduler(**BETAS, **settings, lower_order_final=True, final_sigmas_type="zero")
    peer.set_timesteps(steps)
    net = network()
    index = torch.tensor([float(v) for v in peer.timesteps], dtype=torch.float64)
    times = torch.cat([DISCRETE.t_of_index(index), torch.zeros(1, dtype=torch.float64)])
    start = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    den = wrap(net, DISCRETE, "eps", shape=(2, 8, 8))
    ours = sample(den, start=start, plan=make_plan(DISCRETE, solver, times)).x
    x = start
    for time in peer.timesteps:
        x = peer.step(net(x, time.double().expand(3)), time, x).prev_sample
    assert float((x - ours).norm() / ours.norm()) < 1e-5


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_ends_are_finite_and_of_order_one(path):
    for name, cost in (("dpm-solver-3", 3), ("dpm-solver++2s", 2)):
        for steps in (1, 2, 3):
            plan = make_plan(path, name, "uniform", steps)
            infinite = 2 if path.kind in ("flow", "cosine") and steps > 1 else 1
            assert plan.evaluations == infinite + cost * (steps - infinite)
            assert {kind: float(value) for kind, _, value in list(plan)[-1].writes[0]} == {"B": 1.0}


@pytest.mark.parametrize("clock", ["snr", "rho"])
def test_the_law_with_fresh_noise_is_of_order_two(clock):
    variances, means = torch.tensor([0.1, 0.3, 1.0]).double(), torch.tensor([0.5, -0.7, 0.2]).double()
    for eta in (0.5, 1.0):
        solver = solver_named("dpm-solver++2s", eta=eta, clock=clock)
        errors = [
            float(gaussian_w2(make_plan(VP(), solver, "karras", n), variances, means, exact_start=True).max())
            for n in (40, 80)
        ]
        assert solver.order == 2
        assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.25)


def test_one_motion_drives_the_state_between_and_the_next():
    """In the equation's own clock what the first noise adds to x is what it added to u, carried on exactly."""
    path, times = VP(), torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)
    lam, sigma = path.lam(times), path.sigma(times)
    h = lam[1:] - lam[:-1]
    between = path.sigma(path.t_of_lam(lam[:-1] + h / 2))
    rows = list(make_plan(path, solver_named("dpm-solver++2s", eta=1.0), times))
    kept = make_plan(path, solver_named("dpm-solver++2s", eta=1.0), times).registers.index("drawn")
    for i in range(2):
        first = {kind: float(v) for kind, _, v in rows[2 * i].writes[1]}["N"]
        terms = {(kind, source): float(v) for kind, source, v in rows[2 * i + 1].writes[0]}
        assert first == pytest.approx(float(between[i] * torch.sqrt(1 - torch.exp(-h[i]))), rel=1e-9)
        carried = first * float(sigma[i + 1] / between[i] * torch.exp(-h[i] / 2))
        assert terms["M", kept] == pytest.approx(carried, rel=1e-9)
        assert terms["N", 0] == pytest.approx(float(sigma[i + 1] * torch.sqrt(1 - torch.exp(-h[i]))), rel=1e-9)


def test_places_with_fresh_noise():
    """A place that ends early ends at the answer, one that stands still keeps its state, and the others their law."""
    columns = [[0.9, 0.5, 0.3, 0.0], [0.7, 0.7, 0.4, 0.1], [0.4, 0.0, 0.0, 0.0]]
    times, linear = torch.tensor(columns, dtype=torch.float64).T[:, None], {"predicts": "x0", "shape": (3,)}
    for clock in ("snr", "rho"):
        solver, start = solver_named("dpm-solver++2s", eta=1.0, clock=clock), torch.full((9, 3), 2.0).double()
        got = sample(wrap(lambda x, t: 0 * x + 0.5, VP(), **linear), start=start, plan=solver(VP(), times)).x
        assert torch.allclose(got[:, [0, 2]], torch.tensor(0.5, dtype=torch.float64))
        want = VP().alpha(torch.tensor(0.1)) * 0.5
        assert abs(float(got[:, 1].mean() - want)) < 5 * float(VP().sigma(torch.tensor(0.1))) / 3
        for step in solver(VP(), times):
            for kind, source, value in step.writes.get(0, []):
                still = (step.t == step.t_next).expand(value.shape)
                assert (value[still] == (1.0 if (kind, source) == ("M", 0) else 0.0)).all()


@pytest.mark.parametrize("bad", [{"form": "noise"}, {"rule": "exact"}, {"stages": 3}, {"groups": "last"}])
def test_fresh_noise_where_it_is_not_written(bad):
    with pytest.raises(ArgumentError, match="goes with stages=2"):
        ExponentialRungeKutta(**{"form": "data", "eta": 0.5, **bad})


@pytest.mark.parametrize(
    "bad",
    [{"stages": 1}, {"stages": 4}, {"form": "v"}, {"rule": "taylor"}, {"groups": "fast"}, {"eta": 2}, {"clock": "t"}],
)
def test_bad_parameters(bad):
    with pytest.raises(ArgumentError, match=next(iter(bad))):
        ExponentialRungeKutta(**bad)
