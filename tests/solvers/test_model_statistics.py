"""DPM-Solver-v3: order under any statistics, the forms it holds, exactness on a Gaussian, estimation, files, ends."""

import math

import pytest
import torch

from fewstep import VE, VP, Cosine, Flow, Plan, make_plan, sample, wrap
from fewstep.analysis import exact_flow, measured_order, quadrature_errors
from fewstep.errors import ArgumentError, WeightsError
from fewstep.solvers.empirical_statistics import GaussianStatistics, ModelStatistics, estimate_statistics
from fewstep.solvers.model_statistics import StatisticsMultistep
from fewstep.solvers.predictor_corrector import PredictorCorrector
from fewstep.worlds import Gaussian, GaussianMixture

PATHS = [VP(), VE(), Flow(), Cosine()]
UNEVEN = torch.tensor([-2.0, -1.3, -0.9, 0.1, 0.8, 1.3, 2.2, 2.9], dtype=torch.float64)
GRID = torch.linspace(-6, 6, 481, dtype=torch.float64)


def constant(l, s, b):  # noqa: E741
    return ModelStatistics(GRID, *(torch.full_like(GRID, v) for v in (l, s, b)))


WAVY = ModelStatistics(GRID, 0.5 + 0.4 * torch.sin(GRID), -0.5 + 0.5 * torch.cos(GRID), 0.3 * torch.sin(2 * GRID))


@pytest.mark.parametrize(("predictor", "corrector"), [(1, 0), (2, 0), (1, 2), (2, 3)])
def test_order_under_any_smooth_statistics(predictor, corrector):
    engine = StatisticsMultistep(predictor, corrector, WAVY)
    assert measured_order(engine, VP()) == pytest.approx(engine.order, abs=0.2)


@pytest.mark.parametrize("pseudo", [False, True])
def test_pseudo_order_is_of_order_two(pseudo):
    def errors(n):
        times = VP().t_of_lam(torch.linspace(-2, 2, n + 1, dtype=torch.float64))
        plan = StatisticsMultistep(3, 0, variance=1.0, pseudo_predictor=pseudo)(VP(), times)
        return quadrature_errors(plan)[n // 4 :].square().mean().sqrt()

    assert math.log2(errors(40) / errors(80)) - 1 == pytest.approx(2 if pseudo else 3, abs=0.3)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_it_holds_the_data_and_the_noise_form(path):
    """l = 1, s = b = 0 is UniPC in data form, l = b = 0, s = −1 in noise form; no moment of either simplified."""
    times = path.t_of_lam(UNEVEN)
    world = Gaussian(torch.tensor([0.4, -0.1], dtype=torch.float64), 0.3).denoiser(path)
    start = torch.tensor([[0.7, -1.0], [0.2, 2.0]], dtype=torch.float64)
    for form, statistics in (("data", constant(1.0, 0.0, 0.0)), ("noise", constant(0.0, -1.0, 0.0))):
        for p in (1, 2, 3):
            for corrector in (0, p + 1):
                ours = StatisticsMultistep(p, corrector, statistics)(path, times)
                want = PredictorCorrector(p, corrector and p, "vary", form)(path, times)
                one, two = (sample(world, start=start, plan=plan).x for plan in (ours, want))
                assert torch.allclose(one, two, rtol=1e-8)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_order_one_is_exact_on_a_gaussian_of_its_statistics(path):
    m, c = torch.tensor([0.4, -0.8], dtype=torch.float64), 0.3
    times = path.t_of_lam(torch.tensor([-2.0, 0.3, 2.5], dtype=torch.float64))
    alpha, sigma = path.alpha(times), path.sigma(times)
    start = torch.tensor([[0.7, -1.0], [0.2, 2.0]], dtype=torch.float64)
    spread = (alpha**2 * c + sigma**2).sqrt()
    want = alpha[-1] * m + (start - alpha[0] * m) * spread[-1] / spread[0]
    for corrector in (0, 2):
        plan = StatisticsMultistep(1, corrector, variance=c)(path, times)
        assert torch.allclose(sample(Gaussian(m, c).denoiser(path), start=start, plan=plan).x, want, rtol=1e-8)
    ddim = sample(Gaussian(m, c).denoiser(path), start=start, plan=make_plan(path, "ddim", times)).x
    assert not torch.allclose(ddim, want, rtol=1e-2)


def test_a_shift_b_is_used():
    """Where f is a function of λ alone, s = 0 and b = df/dλ make order one exact too."""
    m, c, path = 0.6, 0.3, VP()
    linear = 1 / (1 + c * torch.exp(2 * GRID))
    change = -2 * linear * (1 - linear)
    statistics = ModelStatistics(GRID, linear, torch.zeros_like(GRID), -m * change)
    times = path.t_of_lam(torch.tensor([-2.0, -0.5, 1.0, 2.5], dtype=torch.float64))
    world = Gaussian(torch.full((1,), m, dtype=torch.float64), c).denoiser(path)
    start = torch.tensor([[0.7], [-1.2]], dtype=torch.float64)
    want = exact_flow(world, start, float(times[0]), float(times[-1]), tolerance=1e-11)
    for predictor, corrector in ((1, 0), (2, 3)):
        got = sample(world, start=start, plan=StatisticsMultistep(predictor, corrector, statistics)(path, times)).x
        assert torch.allclose(got, want, atol=2e-4)


def test_estimates_on_a_gaussian():
    """l is exact from any sample; f is a function of λ alone there, so that s = 0 and b = df/dλ."""
    m = torch.tensor([0.4, -0.8], dtype=torch.float64)
    c = torch.tensor([0.3, 0.05], dtype=torch.float64)
    world = Gaussian(m, c)
    found = estimate_statistics(world.denoiser(Flow()), world.sample(16), (-3.0, 3.0), 240)
    linear = 1 / (1 + c * torch.exp(2 * found.lam[:, None]))
    assert torch.allclose(found.l, linear, atol=1e-9)
    assert torch.equal(found.s, torch.zeros_like(found.s))
    assert torch.allclose(found.b[1:-1], (2 * m * linear * (1 - linear))[1:-1], atol=1e-3)
    assert torch.allclose(GaussianStatistics(0.3).at(found.lam)[0], linear[:, 0])


@pytest.mark.parametrize("elementwise", [True, False])
def test_estimates_on_a_mixture_fit_the_flow_itself(elementwise):
    """ḟ taken from the exact flow: ḟ − s·f − b has mean 0 and is uncorrelated with f, on the same samples."""
    path = VP()
    means = torch.tensor([[-0.6, 0.5], [0.8, -0.1]], dtype=torch.float64)
    world = GaussianMixture([0.3, 0.7], means, torch.tensor([[0.0625, 0.1], [0.16, 0.05]]))
    data, denoiser = world.sample(64), world.denoiser(path)
    found = estimate_statistics(denoiser, data, (-1.0, 1.0), 81, elementwise=elementwise)
    at, noise = 30, torch.randn(data.shape, dtype=data.dtype, generator=torch.Generator().manual_seed(0))

    def f(x, lam, linear):
        t = path.t_of_lam(lam)
        eps = (x - path.alpha(t) * denoiser(x, t)) / path.sigma(t)
        return (path.sigma(t) * eps - linear * x) / path.alpha(t)

    t, lam = path.t_of_lam(found.lam[at - 1 : at + 2]), found.lam[at - 1 : at + 2]
    middle = path.alpha(t[1]) * data + path.sigma(t[1]) * noise
    later = exact_flow(denoiser, middle, float(t[1]), float(t[2]), tolerance=1e-11)
    change = (f(later, lam[2], found.l[at + 1]) - f(middle, lam[1], found.l[at])) / (lam[2] - lam[1])
    here = f(middle, lam[1], found.l[at])
    rest = change - found.s[at] * here - found.b[at]
    pooled = (0,) if elementwise else (0, 1)
    assert rest.mean(pooled).abs().max() < 0.05 * change.std()
    assert (rest * (here - here.mean(pooled))).mean(pooled).abs().max() < 0.05 * change.std() * here.std()
    assert found.s.abs().max() > 0.1
    assert found.place == ((2,) if elementwise else ())


def test_elementwise_statistics_make_elementwise_coefficients():
    """Each element runs as it would alone with its own statistics, and the network is still told one time."""
    path, told = VP(), []
    m, c = torch.tensor([0.4, -0.8], dtype=torch.float64), torch.tensor([0.3, 0.05], dtype=torch.float64)
    exact = Gaussian(m, c).denoiser(path)

    def net(x, time):
        told.append(tuple(time.shape))
        return exact(x, time[:, None])

    statistics = estimate_statistics(exact, Gaussian(m, c).sample(4), (-3.0, 3.0), 41)
    times, start = path.t_of_lam(UNEVEN), torch.tensor([[0.7, -1.0], [0.2, 2.0]], dtype=torch.float64)
    plan = StatisticsMultistep(2, 3, statistics)(path, times)
    got = sample(wrap(net, path, "x0", shape=(2,)), start=start, plan=plan).x
    assert set(told) == {(2,)}
    for k in range(2):
        single = ModelStatistics(statistics.lam, statistics.l[:, k], statistics.s[:, k], statistics.b[:, k])
        alone = Gaussian(m[k : k + 1], c[k : k + 1]).denoiser(path)
        want = sample(alone, start=start[:, k : k + 1], plan=StatisticsMultistep(2, 3, single)(path, times)).x
        assert torch.allclose(got[:, k : k + 1], want, rtol=1e-10)


def test_files(tmp_path):
    file = str(tmp_path / "statistics.safetensors")
    WAVY.save(file)
    back = ModelStatistics.load(file)
    assert all(torch.equal(getattr(back, k), getattr(WAVY, k)) for k in ("lam", "l", "s", "b"))
    times = VP().t_of_lam(UNEVEN)
    assert StatisticsMultistep(2, 3, file)(VP(), times) == StatisticsMultistep(2, 3, WAVY)(VP(), times)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "statistics.safetensors").read_bytes()[:100])
    for wrong in ("cut.safetensors", "none.safetensors"):
        with pytest.raises(WeightsError, match="statistics"):
            StatisticsMultistep(2, 3, str(tmp_path / wrong))(VP(), times)


@pytest.mark.parametrize(
    "statistics",
    ["", WAVY, ModelStatistics(GRID, *(v[:, None] * torch.ones(2) for v in (WAVY.l, WAVY.s, WAVY.b)))],
    ids=["gaussian", "wavy", "elementwise"],
)
@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_finite_at_both_ends(path, statistics, tmp_path):
    world = Gaussian(torch.tensor([0.4, -0.1], dtype=torch.float64), 0.3).denoiser(path)
    for steps in (1, 2, 3):
        plan = make_plan(path, StatisticsMultistep(3, 3, statistics), "logsnr", steps)
        assert plan.evaluations == steps
        assert sample(world, 3, plan=plan, seed=0).x.isfinite().all()
        plan.save(str(tmp_path / "plan.json"))
        assert Plan.load(str(tmp_path / "plan.json")) == plan


def test_places_with_their_own_times_run_as_if_alone():
    grid = [[1.0, 0.7, 0.5, 0.5, 0.3, 0.1, 0.1, 0.0], [0.9, 0.9, 0.9, 0.6, 0.5, 0.4, 0.2, 0.1], [0.8] * 8]
    times, path = torch.tensor(grid, dtype=torch.float64).T, Flow()
    mean, engine = torch.tensor([0.4, -0.1, 0.2], dtype=torch.float64), StatisticsMultistep(2, 3, WAVY)
    start = torch.tensor([[0.7, -1.0, 2.0]], dtype=torch.float64)
    got = sample(Gaussian(mean, 0.3).denoiser(path), start=start, plan=engine(path, times)).x[0]
    for place in range(2):
        world = Gaussian(mean[place : place + 1], 0.3).denoiser(path)
        alone = engine(path, times[:, place].unique().flip(0))
        want = sample(world, start=start[:, place : place + 1], plan=alone).x
        assert float(got[place]) == pytest.approx(float(want), rel=1e-10)
    assert got[2] == start[0, 2]


@pytest.mark.parametrize(
    "wrong", [{"predictor": 0}, {"corrector": 1}, {"statistics": 3}, {"variance": 0.0}], ids=lambda w: next(iter(w))
)
def test_bad_arguments(wrong):
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        StatisticsMultistep(**wrong)


def test_bad_statistics():
    with pytest.raises(ArgumentError, match="rise"):
        ModelStatistics(GRID.flip(0), WAVY.l, WAVY.s, WAVY.b)
    with pytest.raises(ArgumentError, match="finite"):
        ModelStatistics(GRID, WAVY.l / 0, WAVY.s, WAVY.b)
    with pytest.raises(ArgumentError, match="points"):
        ModelStatistics(GRID, WAVY.l[1:], WAVY.s, WAVY.b)
    with pytest.raises(ArgumentError, match="data"):
        estimate_statistics(Gaussian(torch.zeros(2), 1.0).denoiser(VP()), torch.zeros(5, 3))
