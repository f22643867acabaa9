"""DPM-Solver++ multistep: published formulas, peers, polynomials, laws with fresh noise, history and ends."""

import math
from dataclasses import replace

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from fewstep import VE, VP, Cosine, Flow, make_plan, sample, wrap
from fewstep.analysis import gaussian_output, measured_order, quadrature_errors
from fewstep.errors import ArgumentError
from fewstep.grids import LogSNR
from fewstep.guidance import Guide
from fewstep.plan import Plan
from fewstep.plan.files import dumps, loads
from fewstep.plan.table import Table
from fewstep.solvers.exponential_multistep import ExponentialMultistep, held_answer, history_length

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "trailing"}
PATH = VP.from_betas("scaled_linear")
LAM = [-2.0, -1.3, -0.9, 0.1, 0.8, 2.2]
THREE = ExponentialMultistep(3, "exact")


def grid(path, lam=LAM):
    return path.t_of_lam(torch.tensor(lam, dtype=torch.float64))


def without_noise(plan):
    empty = Table(torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, dtype=torch.float64))
    return replace(plan, N=empty, restarts=(), deviates="the noise was taken out")


def network():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(2, 2, 3, padding=1).double().requires_grad_(False)
    return lambda x, time: torch.tanh(layer(x)) + 0.1 * torch.cos(time.double() / 100).reshape(-1, 1, 1, 1) * x


@pytest.mark.parametrize("steps", [5, 10, 20])
@pytest.mark.parametrize(
    ("solver", "settings"),
    [
        (ExponentialMultistep(2, "exact"), {"solver_order": 2, "solver_type": "heun"}),
        # Their third order is the printed one; the corrected one has no peer.
        (ExponentialMultistep(3, "printed"), {"solver_order": 3, "solver_type": "heun"}),
        (ExponentialMultistep(2, eta=1.0), {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"}),
        (ExponentialMultistep(2, "exact", 1.0), {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"}),
        # Theirs of order 3 with fresh noise has its last sign turned and converges with order 1.
        (ExponentialMultistep(3, "printed", lower_order_final=True), {"solver_order": 3, "solver_type": "heun"}),
    ],
    ids=["2m-heun", "3m", "2m-sde", "2m-sde-heun", "3m-final"],
)
def test_equal_to_diffusers(solver, settings, steps):
    if solver.lower_order_final and steps >= 15:
        pytest.skip("theirs lowers the order below 15 steps only")
    settings = {"lower_order_final": solver.lower_order_final, **settings}
    peer = DPMSolverMultistepScheduler(**BETAS, **settings)
    net = network()
    start = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    plan = make_plan(PATH, solver, "trailing", steps)
    den = wrap(net, PATH, "eps", shape=(2, 8, 8))
    ours = sample(den, start=start, plan=without_noise(plan) if plan.stochastic else plan).x
    peer.set_timesteps(steps)
    x, silent = start, torch.zeros_like(start)
    for time in peer.timesteps:
        x = peer.step(net(x, time.double().expand(3)), time, x, variance_noise=silent).prev_sample
    assert float((x - ours).norm() / ours.norm()) < 1e-5


def test_the_printed_third_order_is_of_order_two_and_the_corrected_one_of_order_three():
    printed, corrected = ExponentialMultistep(3, "printed"), THREE
    assert (printed.order, corrected.order) == (2, 3)
    assert measured_order(printed, VP()) == pytest.approx(2, abs=0.2)

    def local(solver):
        grids = [torch.linspace(-2, 2, n + 1, dtype=torch.float64).tolist() for n in (80, 160)]
        coarse, fine = (quadrature_errors(solver(VP(), grid(VP(), lam))) for lam in grids)
        return math.log2(coarse[20:].abs().max() / fine[40:].abs().max())

    assert local(printed) == pytest.approx(3, abs=0.1)
    assert local(corrected) == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("path", [VP(), VE(), Flow(), Cosine()], ids=lambda p: p.kind)
def test_three_answers_integrate_parabolas_exactly(path):
    errors = quadrature_errors(THREE(path, grid(path)), lambda lam: 0.7 - 0.3 * lam + 0.2 * lam**2)
    assert errors[2:].abs().max() < 1e-11
    assert errors[:2].abs().min() > 1e-4


def test_fresh_noise_two_answers_integrate_lines_exactly():
    errors = quadrature_errors(ExponentialMultistep(2, "exact", 1.0)(VP(), grid(VP())), lambda u: 0.7 - 0.3 * u, 1.0)
    assert errors[1:].abs().max() < 1e-11
    published = quadrature_errors(ExponentialMultistep(2, eta=1.0)(VP(), grid(VP())), lambda u: 0.7 - 0.3 * u, 1.0)
    assert 1e-4 < published[1:].abs().max() < 0.2


def end_of_a_line(plan, path, lam):
    """Where a table without network ends when x̂₀ = 0.7 − 0.3λ, and where the flow does."""
    from fewstep.analysis.quadrature import table_states

    told = [0.7 - 0.3 * float(v) for v in path.lam(plan.ask_times)]
    # ∫ e^u(0.7 − 0.3u)du = e^u(1 − 0.3u).
    exact = math.exp(lam[-1]) * (1 - 0.3 * lam[-1]) - math.exp(lam[0]) * (1 - 0.3 * lam[0])
    return table_states(plan, told)[-1], float(path.sigma(plan.times[-1])) * exact


@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
def test_the_second_row_sets_the_first_step_right(path):
    for lam in (LAM[:3], LAM):
        got, exact = end_of_a_line(THREE(path, grid(path, lam)), path, lam)
        assert got == pytest.approx(exact, abs=1e-12)
        got, exact = end_of_a_line(ExponentialMultistep(2, "exact")(path, grid(path, lam)), path, lam)
        assert abs(got - exact) > 1e-4


@pytest.mark.parametrize("rule", ["midpoint", "exact"])
def test_the_law_with_fresh_noise_is_that_of_the_published_recursion(rule):
    """SDE-DPM-Solver++(2M) written out on the moments of (x, m₁) for Gaussian data."""
    path, c, m = VP(), 0.3, 0.4
    times = grid(path)
    alpha, sigma = path.alpha(times).tolist(), path.sigma(times).tolist()
    mean = torch.tensor([alpha[0] * m, 0.0], dtype=torch.float64)
    law = torch.diag(torch.tensor([alpha[0] ** 2 * c + sigma[0] ** 2, 0.0], dtype=torch.float64))
    for i in range(len(LAM) - 1):
        h, gain = LAM[i + 1] - LAM[i], alpha[i] * c / (alpha[i] ** 2 * c + sigma[i] ** 2)
        shift = (1 - alpha[i] * gain) * m
        slope = 0.0
        if i:
            half = 0.5 * (1 - math.exp(-2 * h))
            slope = (half if rule == "midpoint" else h - half) / (1 if rule == "midpoint" else h)
            slope *= alpha[i + 1] * h / (LAM[i] - LAM[i - 1])
        told = alpha[i + 1] * (1 - math.exp(-2 * h)) + slope
        step = torch.tensor(
            [[sigma[i + 1] / sigma[i] * math.exp(-h) + told * gain, -slope], [gain, 0.0]], dtype=torch.float64
        )
        mean = step @ mean + torch.tensor([told * shift, shift], dtype=torch.float64)
        law = step @ law @ step.T
        law[0, 0] += sigma[i + 1] ** 2 * (1 - math.exp(-2 * h))
    plan = ExponentialMultistep(2, rule, 1.0)(path, times)
    spread, middle = (torch.tensor([v], dtype=torch.float64) for v in (c, m))
    got = gaussian_output(plan, spread, middle, exact_start=True)
    assert float(got[0]) == pytest.approx(float(mean[0]), rel=1e-9)
    assert float(got[1]) == pytest.approx(float(law[0, 0]), rel=1e-9)


def test_shares_of_fresh_noise_keep_order_two():
    for solver in (ExponentialMultistep(2, eta=0.5), ExponentialMultistep(3, "exact", 1.0)):
        assert solver.order == 2
        assert measured_order(solver, Flow()) == pytest.approx(2, abs=0.2)


class Jump(Guide):
    """Leaves the state alone and says that it jumped, after the third step."""

    level = "state"

    def move(self, ask, x, state):
        return x, state, ask.index == 2


def test_three_answers_begin_anew_after_a_jump():
    den = wrap(lambda x, t, **_: torch.tanh(x) * 0.7, VP(), "x0", shape=(2, 4, 4))
    plan = make_plan(VP(), THREE, "logsnr", 7)
    assert len(plan.restarts) == 2
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    jumped = sample(den, start=x, plan=plan, guides=[Jump()]).x
    times = plan.times.tolist()
    first = sample(den, start=x, plan=make_plan(VP(), THREE, times[:4])).x
    second = sample(den, start=first, plan=make_plan(VP(), THREE, times[3:])).x
    assert torch.allclose(jumped, second, rtol=1e-12)
    assert not torch.allclose(jumped, sample(den, start=x, plan=plan).x, rtol=1e-8)


def test_lower_order_final_takes_back_an_answer_a_step():
    times = grid(VP(), [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0])
    plain, lowered = (ExponentialMultistep(3, "exact", lower_order_final=on)(VP(), times) for on in (False, True))

    def sources(plan):
        return [sorted(s for kind, s, _ in step.writes[0] if kind == "M") for step in plan]

    assert sources(plain) == [[0], [0, 1], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
    assert sources(lowered) == [[0], [0, 1], [0, 1, 2], [0, 1], [0]]


@pytest.mark.parametrize("solver", [THREE, ExponentialMultistep(2, eta=1.0), ExponentialMultistep(3, "printed")])
def test_columns_of_a_placed_plan_are_the_plans_of_their_times(solver, tmp_path):
    columns = [[0.9, 0.5, 0.3, 0.2, 0.0], [1.0, 0.7, 0.6, 0.4, 0.1]]
    both = solver(VP(), torch.tensor(columns, dtype=torch.float64).T)
    for i, column in enumerate(columns):
        alone = solver(VP(), torch.tensor(column, dtype=torch.float64))
        for name in "MBN":
            pair = [getattr(p, name).dense(4, 3, 3) for p in (both, alone)]
            got = pair[0] if pair[0].ndim == 3 else pair[0][:, i]
            # A write that nobody reads is left out where a column is alone, so only x is compared.
            assert torch.allclose(got[:, 0], pair[1][:, 0], rtol=1e-12, atol=1e-15)
    both.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == both


@pytest.mark.parametrize("solver", [THREE, ExponentialMultistep(2, eta=1.0)])
def test_a_place_that_stands_still_is_not_touched_and_begins_anew(solver):
    times = torch.tensor([[0.9, 0.5, 0.0], [0.5, 0.5, 0.0], [0.4, 0.3, 0.0], [0.0, 0.1, 0.0]], dtype=torch.float64)
    plan = solver(VP(), times)
    for step in plan:
        still = step.t == step.t_next
        for kind, source, value in step.writes.get(0, []):
            assert (value[still] == (1.0 if (kind, source) == ("M", 0) else 0.0)).all()
    # The middle place first moves in row 1 and looks back from row 2 on; in row 1 the first place alone does.
    looks = {i: [v for kind, s, v in step.writes[0] if (kind, s) == ("M", 1)] for i, step in enumerate(plan)}
    assert float(looks[1][0][0]) != 0
    assert float(looks[1][0][1]) == 0
    assert float(looks[2][0][1]) != 0
    assert loads(dumps(plan)) == plan


def test_ends_of_every_path():
    for path in (VP(), VE(), Flow(), Cosine()):
        for steps in (1, 2, 3):
            plan = make_plan(path, THREE, LogSNR(), steps)
            assert {k: float(v) for k, _, v in list(plan)[-1].writes[0]} == {"B": 1.0}


def test_shared_parts():
    alpha = torch.tensor([[0.0, 0.6, 0.6], [0.8, 1.0, 0.6]], dtype=torch.float64)
    sigma = torch.tensor([[1.0, 0.8, 0.8], [0.6, 0.0, 0.8]], dtype=torch.float64)
    keep, gain = held_answer(alpha, sigma)
    assert keep.tolist() == pytest.approx([0.6, 0.0, 1.0])
    assert gain.tolist() == pytest.approx([0.8, 1.0, 0.0])
    moves = torch.tensor([True, True, False, True, True, True, True])
    assert history_length(moves, torch.ones_like(moves), 2).tolist() == [0, 1, 0, 0, 1, 2, 2]
    assert history_length(moves, torch.ones_like(moves), 2, True).tolist() == [0, 1, 0, 0, 1, 1, 0]
    finite = torch.tensor([False, *[True] * 6])
    assert history_length(moves, finite, 2).tolist() == [0, 0, 0, 0, 1, 2, 2]


@pytest.mark.parametrize(
    "bad", [{"answers": 0}, {"answers": 4}, {"rule": "heun"}, {"rule": "printed"}, {"eta": -0.1}, {"eta": 1.1}]
)
def test_bad_parameters(bad):
    with pytest.raises(ArgumentError, match=next(iter(bad))):
        ExponentialMultistep(**bad)
