"""The shape of a run: closed forms on Gaussian data, the identities of the two trajectories, the mean shift."""

import pytest
import torch

from fewstep import VE, VP, Flow, make_plan, sample
from fewstep.analysis import Trajectory, follow, mean_shift
from fewstep.errors import ArgumentError
from fewstep.worlds import Empirical, Gaussian, GaussianMixture

SPECTRUM = torch.tensor([4.0, 1.0, 0.3, 0.05, 0.01], dtype=torch.float64)
WORLD = Gaussian(torch.zeros(5), torch.diag(SPECTRUM))


def start(path, n=3, seed=0):
    x = torch.randn(n, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x * path.sigma(1.0)


@pytest.mark.parametrize("path", [VE(), VP()], ids=lambda p: p.kind)
def test_gaussian_ways_are_the_closed_form(path):
    """z(σ̄) = √((σ̄² + v)/(σ̄₁² + v))·z₁, from which chord and distances follow; every path draws the same curve."""
    plan = make_plan(path, "dpm-solver++3m", "logsnr", 400)
    way = follow(WORLD.denoiser(path), start(path), plan)
    levels = way.levels[:, None]
    exact = ((levels**2 + SPECTRUM) / (levels[0] ** 2 + SPECTRUM)).sqrt()[:, None] * way.z[0]
    assert torch.allclose(way.z, exact, rtol=2e-3, atol=2e-3 * float(SPECTRUM.sqrt().max()))
    want = Trajectory(way.levels, exact, (SPECTRUM / (levels[:-1, None] ** 2 + SPECTRUM)) * exact[:-1])
    for name in ("deviation", "distance", "answers_deviation", "answers_distance"):
        got, closed = getattr(way, name)(), getattr(want, name)()
        assert torch.allclose(got, closed, atol=5e-3 * float(closed.max())), name
    assert bool((way.distance().diff(dim=0) < 0).all())
    assert bool((way.explained(2) > 0.999).all())
    assert bool((way.explained(1) < way.explained(2)).all())


def test_euler_steps_lie_between_state_and_answer_and_the_answers_carry_the_curvature():
    path = VE()
    den = GaussianMixture([1.0, 2.0], torch.tensor([[-1.0] * 5, [0.7] * 5]), torch.full((2, 1), 0.1)).denoiser(path)
    way = follow(den, start(path), make_plan(path, "ddim", "karras", 60))
    ratio = (way.levels[1:] / way.levels[:-1])[:, None, None]
    assert torch.allclose(way.z[1:], ratio * way.z[:-1] + (1 - ratio) * way.r, rtol=1e-9)
    fine = follow(den, start(path), make_plan(path, "dpm-solver++3m", "logsnr", 600))
    # dr/dσ̄ = −σ̄·z″, with z″ by differences of dz/dσ̄ = (z − r)/σ̄.
    slope = (fine.z[:-1] - fine.r) / fine.levels[:-1, None, None]
    second = slope.diff(dim=0) / fine.levels[:-1].diff()[:, None, None]
    middle = (fine.levels[1:-1] > 0.05) & (fine.levels[1:-1] < 5)
    got, want = fine.bend()[middle], second.norm(dim=-1)[middle]
    assert torch.allclose(got, want, rtol=0.05, atol=1e-4)


def test_components_beside_the_chord_are_those_of_the_points():
    way = follow(WORLD.denoiser(VE()), start(VE()), make_plan(VE(), "dpm-solver++3m", "karras", 40))
    size = way.z.shape[2]
    whole = way.projected(size)
    assert torch.allclose(whole.norm(dim=-1).mT, way.deviation(), rtol=1e-6, atol=1e-6 * float(way.deviation().max()))
    spread = (whole - whole.mean(1, keepdim=True)).square().sum(1)
    assert bool((spread.diff(dim=1) <= 1e-9 * spread[:, :1]).all())
    assert torch.allclose(spread[:, :2].sum(1) / spread.sum(1), way.explained(2, off_chord=True), rtol=1e-6)


def test_heun_is_eulers_step_and_a_difference_of_answers():
    """z_s = z_E − ½((s − t)/s)(r(z_E, s) − r(z, t)), with z_E the step of Euler."""
    path, t, s = VE(), 3.0, 1.8
    world = GaussianMixture([1.0, 2.0], torch.tensor([[-1.0] * 5, [0.7] * 5]), torch.full((2, 1), 0.1))
    times = path.t_of_lam(-torch.tensor([t, s], dtype=torch.float64).log())
    z = 3 * start(path) / path.sigma(1.0)
    r = world.denoise(z, path, times[0])
    euler = s / t * z + (1 - s / t) * r
    by_answers = euler - 0.5 * (s - t) / s * (world.denoise(euler, path, times[1]) - r)
    assert torch.allclose(sample(world.denoiser(path), start=z, plan=make_plan(path, "heun", times)).x, by_answers)


def test_a_straight_way_has_no_deviation_and_no_bend():
    den = Gaussian(torch.full((5,), 0.4), 1e-12 * torch.eye(5)).denoiser(VE())
    way = follow(den, start(VE()), make_plan(VE(), "ddim", "karras", 12))
    assert float(way.deviation().max()) < 1e-6
    assert float(way.answers_deviation().max()) < 1e-6
    assert float((1 - way.cosine()).abs().max()) < 1e-9


def test_the_best_answer_to_a_data_set_is_its_mean_shift_and_raises_the_likelihood():
    data = torch.randn(40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    den, path = Empirical(data).denoiser(VE()), VE()
    z = start(path)
    for sigma in (0.2, 1.0, 5.0):
        t = path.t_of_lam(-torch.tensor(sigma, dtype=torch.float64).log())
        shifted = mean_shift(data, z, sigma)
        assert torch.allclose(den(z, t), shifted, rtol=1e-8)

        def log_density(x, sigma=sigma):
            return (-torch.cdist(x, data).square() / (2 * sigma**2)).logsumexp(1)

        rise = log_density(shifted) - log_density(z)
        assert bool((rise >= (z - shifted).square().sum(1) / (2 * sigma**2) - 1e-9).all())
    assert torch.allclose(mean_shift(data, z, 1e4), data.mean(0).expand(3, 5), atol=1e-3)


def test_the_off_chord_part_is_nearly_a_plane_curve_and_the_picture_is_drawn(tmp_path):
    """The references on 512 numbers: two components hold over 99.99 %, beside the chord one 96–98 %, two 99.6 %."""
    den = Gaussian(torch.zeros(512), 100 / torch.arange(1, 513, dtype=torch.float64)).denoiser(VE())
    x = torch.randn(2, 512, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 80
    way = follow(den, x, make_plan(VE(), "dpm-solver++", "karras", 80))
    assert bool((way.explained(2) > 0.9999).all())
    assert bool((way.explained(2, off_chord=True) > 0.996).all())
    assert bool(((way.explained(1, off_chord=True) - 0.965).abs() < 0.02).all())
    way.plot(tmp_path / "way.png")
    assert (tmp_path / "way.png").stat().st_size > 10_000


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="one evaluation a step"):
        follow(WORLD.denoiser(VP()), start(VP()), make_plan(VP(), "heun", "uniform", 4, start=0.9))
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ArgumentError, match="bandwidth"):
            mean_shift(torch.zeros(2, 5), torch.zeros(1, 5), bad)
    with pytest.raises(ArgumentError, match="shape"):
        mean_shift(torch.zeros(2, 4), torch.zeros(1, 5), 1.0)
    way = follow(WORLD.denoiser(Flow()), start(Flow()), make_plan(Flow(), "ddim", "uniform", 4))
    for call in (way.explained, way.projected):
        for bad in (0, 6, 1.5):
            with pytest.raises(ArgumentError, match="components"):
                call(bad)
    assert len(way.z) == 4  # α = 0 at t = 1: no z there
