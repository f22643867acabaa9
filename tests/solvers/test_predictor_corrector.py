"""UniPC: orders, exactness on polynomials, known equals, diffusers, both ends, places with their own times."""

import math

import pytest
import torch
from diffusers import UniPCMultistepScheduler

from fewstep import VE, VP, Cosine, Flow, Plan, make_plan, sample, wrap
from fewstep.analysis import measured_order, quadrature_errors
from fewstep.errors import ArgumentError
from fewstep.grids import LogSNR
from fewstep.solvers import solver_named
from fewstep.solvers.predictor_corrector import PredictorCorrector, corrected
from fewstep.worlds import Gaussian

PATHS = [VP(), VE(), Flow(), Cosine()]
UNEVEN = torch.tensor([-2.0, -1.3, -0.9, 0.1, 0.8, 1.3, 2.2, 2.9], dtype=torch.float64)
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "trailing"}


def by_kind(path):
    return path.kind


@pytest.mark.parametrize("form", ["data", "noise"])
@pytest.mark.parametrize("variant", ["bh1", "bh2", "vary"])
@pytest.mark.parametrize(("predictor", "corrector"), [(1, 0), (2, 0), (1, 1), (2, 2), (1, 2)])
def test_order(predictor, corrector, variant, form):
    engine = PredictorCorrector(predictor, corrector, variant, form)
    assert measured_order(engine, VP()) == pytest.approx(engine.order, abs=0.2)


@pytest.mark.parametrize("variant", ["bh1", "vary"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_a_step_gains_an_order_by_the_corrector(order, variant):
    """Beyond the warm-up a step is wrong by h^{p+1} with the predictor alone, by h^{p+2} with the corrector."""

    def errors(n, corrector):
        times = VP().t_of_lam(torch.linspace(-2, 2, n + 1, dtype=torch.float64))
        plan = PredictorCorrector(order, corrector, variant)(VP(), times)
        return quadrature_errors(plan)[n // 4 :].square().mean().sqrt()

    for corrector in (0, order):
        falls = math.log2(errors(20, corrector) / errors(40, corrector))
        assert falls == pytest.approx(order + 1 + bool(corrector), abs=0.3)


@pytest.mark.parametrize("path", PATHS, ids=by_kind)
def test_polynomials_are_integrated_exactly(path):
    """A predicted state on p answers is exact where x̂₀ is of degree p − 1; a corrected one at degree p."""
    times = path.t_of_lam(UNEVEN)
    for p in (1, 2, 3, 4):
        wrong = quadrature_errors(
            PredictorCorrector(p, 0, "vary")(path, times), lambda lam, p=p: (lam - 0.3) ** (p - 1)
        )
        assert wrong[p - 1 :].abs().max() < 1e-9
        assert (
            quadrature_errors(PredictorCorrector(p, 0, "vary")(path, times), lambda lam, p=p: lam**p)[-1].abs() > 1e-4
        )


def test_bh1_and_bh2_differ_only_where_a_moment_is_simplified():
    times = VP().t_of_lam(UNEVEN)
    plans = [PredictorCorrector(3, 3, variant)(VP(), times) for variant in ("bh1", "bh2", "vary")]
    rows = [{i: plan.B.value[plan.B.index[:, 0] == i] for i in range(7)} for plan in plans]
    for other in rows[1:]:
        assert torch.equal(rows[0][4], other[4])
        assert not torch.allclose(rows[0][1], other[1])


@pytest.mark.parametrize("path", PATHS, ids=by_kind)
def test_known_equals(path):
    times = LogSNR()(path, 6, 0.9)

    def same(one, two):
        return all(torch.allclose(getattr(one, k).value, getattr(two, k).value, rtol=1e-9, atol=1e-12) for k in "MB")

    assert same(PredictorCorrector(1, 0)(path, times), make_plan(path, "ddim", times))
    assert same(PredictorCorrector(1, 0, form="noise")(path, times), make_plan(path, "ddim", times))
    assert same(PredictorCorrector(2, 0, "bh2")(path, times), make_plan(path, "dpm-solver++", times))
    assert same(PredictorCorrector(2, 0, "vary")(path, times), solver_named("dpm-solver++", rule="exact")(path, times))


def test_the_corrector_by_hand():
    """UniC-1 in noise form against the formula: x′ = (α′/α)x − σ′(e^h − 1)ε₀ − σ′B(h)·½(ε₁ − ε₀)."""
    path = VP()
    times = path.t_of_lam(UNEVEN[:3])
    alpha, sigma, h = path.alpha(times), path.sigma(times), UNEVEN[1] - UNEVEN[0]
    world = Gaussian(torch.tensor([0.4], dtype=torch.float64), 0.3).denoiser(path)
    x = torch.tensor([[0.7]], dtype=torch.float64)

    def eps(state, i):
        return (state - alpha[i] * world(state, times[i])) / sigma[i]

    first = eps(x, 0)
    base = alpha[1] / alpha[0] * x - sigma[1] * torch.expm1(h) * first
    second = eps(base, 1)
    y = base - sigma[1] * torch.expm1(h) * 0.5 * (second - first)
    want = alpha[2] / alpha[1] * y - sigma[2] * torch.expm1(UNEVEN[2] - UNEVEN[1]) * second
    got = sample(world, start=x, plan=PredictorCorrector(1, 1, "bh2", "noise")(path, times)).x
    assert torch.allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_corrected_unip_is_unipc(order):
    for path in PATHS:
        times = path.t_of_lam(UNEVEN)
        world = Gaussian(torch.tensor([0.4, -0.1], dtype=torch.float64), 0.3).denoiser(path)
        start = torch.tensor([[0.7, -1.0], [0.2, 2.0]], dtype=torch.float64)
        lifted = corrected(PredictorCorrector(order, 0, "bh1")(path, times), order, "bh1")
        whole = PredictorCorrector(order, order, "bh1")(path, times)
        assert lifted.evaluations == whole.evaluations == len(times) - 1
        one, two = (sample(world, start=start, plan=plan).x for plan in (lifted, whole))
        assert torch.allclose(one, two, rtol=1e-10)


def test_corrected_lifts_other_solvers():
    class Lifted:
        def __init__(self, name):
            self.name, self.order, self.stochastic = name, solver_named(name).order + 1, False

        def __call__(self, path, times, source=None):
            plan = corrected(make_plan(path, self.name, times))
            assert plan.order == self.order
            return plan

    for name in ("ddim", "euler", "dpm-solver++"):
        assert measured_order(Lifted(name), Flow()) == pytest.approx(solver_named(name).order + 1, abs=0.2)


def test_corrected_refuses_what_it_cannot_correct():
    with pytest.raises(ArgumentError, match="without noise"):
        corrected(make_plan(VP(), "ddpm", "logsnr", 4))
    with pytest.raises(ArgumentError, match="corrected already"):
        corrected(make_plan(VP(), "unipc", "logsnr", 4))
    with pytest.raises(ArgumentError, match="order must be"):
        corrected(make_plan(VP(), "ddim", "logsnr", 4), order=0)


@pytest.mark.parametrize(
    "wrong", [{"predictor": 5}, {"corrector": -1}, {"variant": "bh3"}, {"form": "eps"}], ids=lambda w: next(iter(w))
)
def test_bad_arguments(wrong):
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        PredictorCorrector(**wrong)


@pytest.mark.parametrize("steps", [5, 10, 20])
@pytest.mark.parametrize(
    ("order", "variant", "end"),
    [(2, "bh2", "zero"), (3, "bh2", "zero"), (2, "bh1", "sigma_min"), (3, "bh1", "sigma_min")],
)
def test_equal_to_diffusers(order, variant, end, steps):
    # With "bh1" and an end at σ = 0 diffusers multiplies ∞ by 0, so that there only the other end can be compared.
    path = VP.from_betas("scaled_linear")
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(2, 2, 3, padding=1).double().requires_grad_(False)

    def net(x, time):
        return torch.tanh(layer(x)) + 0.1 * torch.cos(time.double() / 100).reshape(-1, 1, 1, 1) * x

    peer = UniPCMultistepScheduler(**BETAS, solver_order=order, solver_type=variant, final_sigmas_type=end)
    peer.set_timesteps(steps)
    x = start = torch.randn(3, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for time in peer.timesteps:
        x = peer.step(net(x, time.double().expand(3)), time, x).prev_sample
    last = torch.zeros(1) if end == "zero" else path.t_of_index(torch.zeros(1))
    times = torch.cat([path.t_of_index(peer.timesteps.double()), last.double()])
    plan = PredictorCorrector(order, order, variant, lower_order_final=True)(path, times)
    ours = sample(wrap(net, path, "eps", shape=(2, 8, 8)), start=start, plan=plan).x
    assert float((x - ours).norm() / ours.norm()) < 1e-5


@pytest.mark.parametrize("form", ["data", "noise"])
@pytest.mark.parametrize("path", PATHS, ids=by_kind)
def test_finite_at_both_ends(path, form, tmp_path):
    world = Gaussian(torch.tensor([0.4, -0.1], dtype=torch.float64), 0.3).denoiser(path)
    for steps in (1, 2, 3):
        for plan in (
            make_plan(path, PredictorCorrector(3, 3, "bh1", form), "logsnr", steps),
            corrected(make_plan(path, "dpm-solver++", "logsnr", steps), form=form),
        ):
            assert plan.evaluations == steps
            assert sample(world, 3, plan=plan, seed=0).x.isfinite().all()
            plan.save(str(tmp_path / "plan.json"))
            assert Plan.load(str(tmp_path / "plan.json")) == plan


@pytest.mark.parametrize(
    "make", [PredictorCorrector(3, 3, "bh2"), PredictorCorrector(2, 3, "bh1", "noise")], ids=["data", "noise"]
)
def test_places_with_their_own_times_run_as_if_alone(make):
    """Places that pause, start late or end early: each ends where its own moves alone would have taken it."""
    path = Flow()
    grid = [[1.0, 0.7, 0.5, 0.5, 0.3, 0.1, 0.1, 0.0], [0.9, 0.9, 0.9, 0.6, 0.5, 0.4, 0.2, 0.1], [0.8] * 8]
    times = torch.tensor(grid, dtype=torch.float64).T
    mean = torch.tensor([0.4, -0.1, 0.2], dtype=torch.float64)
    start = torch.tensor([[0.7, -1.0, 2.0]], dtype=torch.float64)
    got = sample(Gaussian(mean, 0.3).denoiser(path), start=start, plan=make(path, times)).x[0]
    for place in range(2):
        alone = times[:, place].unique().flip(0)
        world = Gaussian(mean[place : place + 1], 0.3).denoiser(path)
        want = sample(world, start=start[:, place : place + 1], plan=make(path, alone)).x
        assert float(got[place]) == pytest.approx(float(want), rel=1e-12)
    assert got[2] == start[0, 2]


def test_restart_rows_know_only_what_came_after_the_jump():
    """After a jump the rows are those of a plan that begins there, one answer more a step."""
    times = VP().t_of_lam(UNEVEN)
    whole, fresh = (PredictorCorrector(3, 3)(VP(), t) for t in (times, times[3:]))
    assert len(whole.restarts) == 3

    def row(plan, i):
        return {k: [(kind, s, float(v)) for kind, s, v in entries] for k, entries in list(plan)[i].writes.items()}

    for since, restart in enumerate(whole.restarts):
        for to, entries in row(fresh, since).items():
            assert [e[:2] for e in row(restart, 3 + since)[to]] == [e[:2] for e in entries]
            for got, want in zip(row(restart, 3 + since)[to], entries, strict=True):
                assert got[2] == pytest.approx(want[2], rel=1e-9)
