"""SA-Solver: weak order, known equals, exact integrals, an exact Gaussian law, diffusers' scheduler, both ends."""

import math

import pytest
import torch
from diffusers import SASolverScheduler

from fewstep import VE, VP, Cosine, Flow, Plan, make_plan, sample, wrap
from fewstep.analysis import gaussian_output, measured_order, quadrature_errors
from fewstep.errors import ArgumentError
from fewstep.noise import KeyedNoise
from fewstep.program import Program
from fewstep.solvers import solver_named
from fewstep.solvers.predictor_corrector import PredictorCorrector
from fewstep.solvers.stochastic_adams import StochasticAdams
from fewstep.worlds import Gaussian

PATHS = [VP(), VE(), Flow(), Cosine()]
UNEVEN = torch.tensor([-2.0, -1.3, -0.9, 0.1, 0.8, 1.3, 2.2, 2.9], dtype=torch.float64)
ALWAYS = (-20.0, 20.0)


def same(one, two, rtol=1e-8):
    return all(torch.allclose(getattr(one, k).value, getattr(two, k).value, rtol=rtol, atol=1e-12) for k in "MBN")


@pytest.mark.parametrize(
    ("predictor", "corrector", "few_steps"), [(1, 0, False), (2, 0, False), (1, 2, True), (2, 2, True), (3, 4, False)]
)
def test_weak_order(predictor, corrector, few_steps):
    engine = StochasticAdams(predictor, corrector, few_steps=few_steps)
    law = 2 if corrector else engine.order
    assert measured_order(engine, VP()) == pytest.approx(law, abs=0.2)


def test_without_noise_it_is_unipc():
    for path in PATHS:
        times = path.t_of_lam(UNEVEN)
        for p in (1, 2, 3):
            ours = StochasticAdams(p, p + 1, tau=0.0)
            assert ours.order == PredictorCorrector(p, p, "vary").order
            assert not ours.stochastic
            assert same(ours(path, times), PredictorCorrector(p, p, "vary")(path, times))
            few = StochasticAdams(p, p + 1, tau=0.0, few_steps=True)
            assert same(few(path, times), PredictorCorrector(p, p, "bh1")(path, times))
        two = StochasticAdams(2, 0, tau=0.0)(path, times)
        assert same(two, solver_named("dpm-solver++", rule="exact")(path, times))


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_one_node_is_ddim_with_a_share_of_noise(path):
    """Per step τ² = −log(1 − η²(1 − e^{−2h}))/(2h); τ = 1 is η = 1, ancestral sampling."""
    h = 0.7
    times = path.t_of_lam(torch.arange(-2, 3, h, dtype=torch.float64))
    for eta in (0.3, 0.8):
        tau = math.sqrt(-math.log(1 - eta**2 * -math.expm1(-2 * h)) / (2 * h))
        ours = StochasticAdams(1, 0, tau, ALWAYS)(path, times)
        assert same(ours, solver_named("ddim", eta=eta)(path, times))
    assert same(StochasticAdams(1, 0, 1.0, ALWAYS)(path, times), make_plan(path, "ddpm", times))


@pytest.mark.parametrize("tau", [0.5, 1.0])
@pytest.mark.parametrize("predictor", [1, 2, 3, 4])
def test_polynomials_are_integrated_exactly(predictor, tau):
    times = VP().t_of_lam(UNEVEN)
    plan = StochasticAdams(predictor, 0, tau, ALWAYS)(VP(), times)
    wrong = quadrature_errors(plan, lambda lam: (lam - 0.3) ** (predictor - 1), tau)
    assert wrong[predictor - 1 :].abs().max() < 1e-10
    assert quadrature_errors(plan, lambda lam: lam**predictor, tau)[-1].abs() > 1e-4


def test_noise_only_within_the_window():
    plan = StochasticAdams(2, 2, 1.0, (-1.0, 1.0))(VP(), VP().t_of_lam(UNEVEN))
    assert sorted({int(i) for i in plan.N.index[:, 0]}) == [2, 3, 4]


def test_the_law_on_a_gaussian_by_hand():
    """Two steps of P1C2, τ = 0.8, of one Gaussian: mean and variance from the formulas, with one ξ in both answers."""
    path, tau, m, v = VP(), 0.8, 0.4, 0.3
    lam = [-1.0, -0.2, 0.7]
    t = path.t_of_lam(torch.tensor(lam, dtype=torch.float64))
    a, s = path.alpha(t).tolist(), path.sigma(t).tolist()
    c, h, k = 1 + tau**2, lam[1] - lam[0], lam[2] - lam[1]
    gain = [a[i] * v / (a[i] ** 2 * v + s[i] ** 2) for i in range(2)]
    # A state is (factor of x₀'s start, factor of ξ₀, factor of ξ₁, constant).
    start, xi0, xi1 = (torch.eye(4, dtype=torch.float64)[i] for i in range(3))
    one = torch.eye(4, dtype=torch.float64)[3]

    def answer(x, i):
        return gain[i] * x + (1 - a[i] * gain[i]) * m * one

    def base(x, i, width):
        decay = math.exp(-(tau**2) * width) * s[i + 1] / s[i]
        noise = s[i + 1] * math.sqrt(-math.expm1(-2 * tau**2 * width))
        return decay * x + noise * (xi0, xi1)[i]

    m0 = answer(start, 0)
    x1 = base(start, 0, h) + a[1] * -math.expm1(-c * h) * m0
    m1 = answer(x1, 1)
    line = a[1] * (c * h + math.expm1(-c * h)) / (c * h)
    y1 = base(start, 0, h) + a[1] * -math.expm1(-c * h) * m0 + line * (m1 - m0)
    x2 = base(y1, 1, k) + a[2] * -math.expm1(-c * k) * m1
    want_mean = x2[0] * a[0] * m + x2[3]
    want = x2[0] ** 2 * (a[0] ** 2 * v + s[0] ** 2) + x2[1] ** 2 + x2[2] ** 2
    plan = StochasticAdams(1, 2, tau, ALWAYS)(path, t)
    mean, variance = gaussian_output(
        plan, torch.tensor([v], dtype=torch.float64), torch.tensor([m], dtype=torch.float64), exact_start=True
    )
    assert float(mean) == pytest.approx(float(want_mean), rel=1e-9)
    assert float(variance) == pytest.approx(float(want), rel=1e-9)


class Given(KeyedNoise):
    """Noise that was drawn elsewhere."""

    def __init__(self, draws):
        self.draws = draws

    def prepare(self, count):
        pass

    def step(self, index, lam, lam_next):
        return self.draws[index]


@pytest.mark.parametrize("steps", [5, 10])
@pytest.mark.parametrize(("predictor", "corrector"), [(1, 2), (2, 2), (3, 3)])
def test_equal_to_diffusers(predictor, corrector, steps):
    """With diffusers' own draws; it expands e^{(1 + τ²)λ}λᵏ in float32, which costs it digits at many steps."""
    path = VP.from_betas("scaled_linear")
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(2, 2, 3, padding=1).double().requires_grad_(False)

    def net(x, time):
        return torch.tanh(layer(x)) + 0.1 * torch.cos(time.double() / 100).reshape(-1, 1, 1, 1) * x

    peer = SASolverScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, timestep_spacing="trailing",
        predictor_order=predictor, corrector_order=corrector,
    )  # fmt: skip
    peer.set_timesteps(steps)
    x = start = torch.randn(3, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    draws = [torch.randn(x.shape, dtype=torch.float64, generator=generator) for _ in range(steps)]
    generator.manual_seed(2)
    for time in peer.timesteps:
        x = peer.step(net(x, time.double().expand(3)), time, x, generator=generator).prev_sample
    times = path.t_of_index(torch.cat([peer.timesteps.double(), torch.zeros(1, dtype=torch.float64)]))
    window = tuple(path.lam(path.t_of_index(i)).item() for i in (800.5, 199.5))
    plan = StochasticAdams(predictor, corrector, 1.0, window, few_steps=True, lower_order_final=True)(path, times)
    program = Program(plan, wrap(net, path, "eps", shape=(2, 8, 8)), dtype=torch.float64)
    run = program.start(start, {}, Given(draws))
    for index in range(steps):
        program.step(run, index)
    assert float((x - run.registers[0]).norm() / x.norm()) < 1e-5


def test_noise_form_deviates_and_says_so():
    times = VP().t_of_lam(UNEVEN)
    assert "noise form" in StochasticAdams(2, 2, 1.0, ALWAYS, "noise")(VP(), times).deviates
    assert not StochasticAdams(2, 2, 0.0, ALWAYS, "noise")(VP(), times).deviates
    # One step, answers fixed: the variance is σ′²·(1 + (τ² + τ⁴)(e^h − 1)²).
    h, tau = 0.7, 0.8
    path = VP()
    t = path.t_of_lam(torch.tensor([-1.0, -0.3], dtype=torch.float64))
    plan = StochasticAdams(1, 0, tau, ALWAYS, "noise")(path, t)
    (x,), (noise,) = plan.M.value, plan.N.value
    got = (x * path.sigma(t[0])) ** 2 + noise**2
    assert float(got / path.sigma(t[1]) ** 2) == pytest.approx(1 + (tau**2 + tau**4) * math.expm1(h) ** 2, rel=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_finite_at_both_ends(path, tmp_path):
    world = Gaussian(torch.tensor([0.4, -0.1], dtype=torch.float64), 0.3).denoiser(path)
    for form in ("data", "noise"):
        for steps in (1, 2, 3):
            plan = make_plan(path, StochasticAdams(3, 4, 1.0, ALWAYS, form), "logsnr", steps)
            assert plan.evaluations == steps
            assert sample(world, 3, plan=plan, seed=0).x.isfinite().all()
            plan.save(str(tmp_path / "plan.json"))
            assert Plan.load(str(tmp_path / "plan.json")) == plan


def test_places_with_their_own_times_obey_their_own_law():
    grid = [[1.0, 0.7, 0.5, 0.5, 0.3, 0.1, 0.1, 0.0], [0.9, 0.9, 0.9, 0.6, 0.5, 0.4, 0.2, 0.1], [0.8] * 8]
    times = torch.tensor(grid, dtype=torch.float64).T
    world = Gaussian(torch.zeros(3, dtype=torch.float64), 0.3).denoiser(Flow())
    engine = StochasticAdams(2, 2, 1.0)
    start = torch.randn(4000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * times[0]
    got = sample(world, start=start, plan=engine(Flow(), times), seed=1).x
    assert torch.equal(got[:, 2], start[:, 2])
    for place in range(2):
        _, want = gaussian_output(engine(Flow(), times[:, place].unique().flip(0)), torch.tensor([0.3]).double())
        assert float(got[:, place].var()) == pytest.approx(float(want), rel=0.08)


@pytest.mark.parametrize(
    "wrong",
    [{"predictor": 0}, {"corrector": 1}, {"tau": -1.0}, {"window": (1.0, 0.0)}, {"form": "eps"}],
    ids=lambda w: next(iter(w)),
)
def test_bad_arguments(wrong):
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        StochasticAdams(**wrong)
