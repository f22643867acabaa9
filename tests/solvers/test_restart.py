"""Restart and churn: the jump's law, evaluations as in the paper, contraction in closed form, orders, and refusals."""

import math

import pytest
import torch

from fewstep import VE, VP, Cosine, Flow, make_plan, sample
from fewstep.analysis import gaussian_output, measured_order
from fewstep.errors import ArgumentError
from fewstep.plan import Plan
from fewstep.solvers.restart import Churn, Restart, concatenate, jump
from fewstep.worlds import Gaussian

PATHS = [VP(), VE(), Flow(), Cosine()]
C = torch.tensor([0.02, 0.3, 1.7], dtype=torch.float64)
M = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_a_jump_keeps_the_law(path):
    start, end = (torch.tensor(t, dtype=torch.float64) for t in (0.2, 0.6))
    mean, variance = gaussian_output(jump(path, start, end), C, M, exact_start=True)
    assert torch.allclose(mean, path.alpha(end) * M, rtol=1e-12)
    assert torch.allclose(variance, path.alpha(end) ** 2 * C + path.sigma(end) ** 2, rtol=1e-12)


def test_a_jump_on_ve_by_hand():
    plan = jump(VE(), *(torch.tensor(s / 80, dtype=torch.float64) for s in (0.14, 0.3)))
    m, _, n = plan._matrices()
    assert float(m) == 1
    assert float(n) == pytest.approx(math.sqrt(0.3**2 - 0.14**2), rel=1e-12)


@pytest.mark.parametrize(
    ("main", "intervals", "evaluations"),
    [
        (18, ((0.06, 0.30, 2, 2),), 43),
        (18, ((0.06, 0.30, 20, 2),), 115),
        (20, ((0.06, 0.20, 30, 8),), 519),
        (14, ((0.06, 0.30, 1, 2), (19.35, 40.79, 1, 2), (1.09, 1.92, 1, 2)), 39),
    ],
)
def test_the_papers_settings_cost_what_the_paper_says(main, intervals, evaluations):
    assert make_plan(VE(), Restart(intervals), "karras", main).evaluations == evaluations


def test_the_times_of_a_restart():
    """Down to the grid's time nearest to ρ_min, up to ρ_max, down on Karras' spacing, twice; then on."""
    times = torch.tensor([1.0, 0.1, 0.01, 0.0012, 0.0], dtype=torch.float64)  # σ = 80, 8, 0.8, 0.096
    plan = Restart(((0.7, 2.0, 2, 2),), base="ddim")(VE(), times)
    middle = ((2 ** (1 / 7) + 0.8 ** (1 / 7)) / 2) ** 7
    want = [80, 8, 0.8, 2, middle, 0.8, 2, middle, 0.8, 0.096, 0]
    assert (80 * plan.times).tolist() == pytest.approx(want, rel=1e-12, abs=1e-12)
    asked = plan.ask_times * 80
    assert asked.tolist() == pytest.approx([80, 8, 2, middle, 2, middle, 0.8, 0.096], rel=1e-12)


@pytest.mark.parametrize("repeats", [1, 3])
def test_an_error_of_the_mean_is_contracted_by_the_product_of_the_intervals_factors(repeats):
    """From a mean that is wrong, what is left after the restarts is the way down's factor, once a repeat."""
    times = VE().t_of_lam(torch.linspace(-2, 3, 9, dtype=torch.float64))
    plain = make_plan(VE(), "ddim", times)
    plan = Restart(((float(VE().sigma(times[-1])), 2.0, repeats, 40),), base="ddim")(VE(), times)
    down = make_plan(VE(), "ddim", plan.times[9:50])

    def wrong(plan):
        return gaussian_output(plan, C, M)[0] - gaussian_output(plan, C, M, exact_start=True)[0]

    factor = (gaussian_output(down, C, 0 * M)[1] / VE().sigma(down.times[0]) ** 2).sqrt()
    assert torch.allclose(wrong(plan), wrong(plain) * factor**repeats, rtol=1e-9)
    assert bool((factor < 0.75).all())


@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
@pytest.mark.parametrize(
    "solver",
    [
        Restart(),
        Restart(((0.14, 0.3, 10, 0), (0.5, 2.0, 2, 0))),
        Restart(base="dpm-solver++"),
        Restart(base="ddim"),
        Churn(),
        Churn(base="ddim"),
        Churn(base="dpm-solver++"),
    ],
    ids=str,
)
def test_orders_in_law(path, solver):
    assert measured_order(solver, path) == pytest.approx(solver.order, abs=0.2)


def test_a_fixed_number_of_steps_down_does_not_converge():
    solver = Restart(((0.14, 0.3, 2, 2),))
    assert solver.order == 0
    assert measured_order(solver, VP(), (160, 320)) == pytest.approx(0, abs=0.6)


def test_churn_by_hand():
    """Before each step whose σ lies in the range σ̂ = σ(1 + γ), γ = churn/steps; Euler from there."""
    times = torch.tensor([1.0, 0.1, 0.01, 0.0], dtype=torch.float64)
    plan = Churn(0.6, 0.5, 10.0, base="ddim")(VE(), times)
    assert (80 * plan.times).tolist() == pytest.approx([80, 8, 9.6, 0.8, 0.96, 0], rel=1e-12)
    m, _, n = plan._matrices()
    assert float(n[1, 0, 0]) == pytest.approx(math.sqrt(9.6**2 - 8**2), rel=1e-12)
    assert float(m[2, 0, 0]) == pytest.approx(0.8 / 9.6, rel=1e-12)
    capped = Churn(90.0, 0.5, 10.0, base="ddim")(VE(), times)
    assert float(capped.times[2] / capped.times[1]) == pytest.approx(math.sqrt(2), rel=1e-12)
    assert make_plan(VE(), Churn(0.0), "karras", 5) == make_plan(VE(), "heun", "karras", 5)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("solver", [Restart(), Restart(base="dpm-solver++"), Churn()], ids=str)
@pytest.mark.parametrize("steps", [1, 2, 3, 9])
def test_finite_at_both_ends_and_saved_bit_for_bit(path, solver, steps, tmp_path):
    plan = make_plan(path, solver, "logsnr", steps)
    last = list(plan)[-1].writes[0]
    assert [(kind, float(value)) for kind, _, value in last] == [("B", 1.0)]
    plan.save(str(tmp_path / "plan.json"))
    assert Plan.load(str(tmp_path / "plan.json")) == plan


def test_samples_have_the_law_with_either_noise():
    plan = make_plan(VE(), "restart", "logsnr", 8)
    mean, variance = gaussian_output(plan, C, M)
    for noise in ("keyed", "brownian"):
        x = sample(Gaussian(M, C).denoiser(VE()), 1500, plan=plan, dtype=torch.float64, noise=noise).x
        assert torch.allclose(x.mean(0), mean, atol=5 * float(variance.max() / 1500) ** 0.5)
        assert torch.allclose(x.var(0), variance, rtol=5 * (2 / 1500) ** 0.5)


def test_more_noise_than_the_path_has_is_said():
    plan = make_plan(VE(), Restart(noise_scale=1.003), "logsnr", 8)
    assert "1.003 times the noise" in plan.deviates
    exact = make_plan(VE(), Restart(), "logsnr", 8)
    assert torch.allclose(plan.N.value, 1.003 * exact.N.value)


def test_a_whole_of_parts_is_the_whole():
    times = VP().t_of_lam(torch.linspace(-2, 2, 7, dtype=torch.float64))
    parts = [make_plan(VP(), "heun", times[:4]), make_plan(VP(), "heun", times[3:])]
    assert concatenate(parts) == make_plan(VP(), "heun", times)
    multistep = [make_plan(VP(), "dpm-solver++", times[:4]), make_plan(VP(), "dpm-solver++", times[3:])]
    whole = concatenate(multistep)
    assert len(whole.restarts) == 1
    assert not any(bool(p._matrices()[0][3, 0, 1]) for p in (whole, *whole.restarts))


def test_bad_arguments_are_refused():
    two = torch.tensor([[0.9, 0.9], [0.0, 0.1]], dtype=torch.float64)
    for message, call in {
        "an interval is": lambda: Restart(((0.3, 0.14, 2, 2),)),
        "noise_scale must": lambda: Restart(noise_scale=-1.0),
        "unknown solver": lambda: Restart(base="hun"),
        "more noise than the path": lambda: make_plan(VE(), Restart(((0.1, 90.0, 1, 2),)), "karras", 9),
        "one time for all": lambda: make_plan(VE(), Churn(), two),
        "churn must be": lambda: Churn(-1.0),
    }.items():
        with pytest.raises(ArgumentError, match=message):
            call()
