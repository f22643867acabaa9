"""The log-density that was asked for, noise that keeps it, and the alignment of scores, on exact worlds."""

import math

import pytest
import torch

from fewstep import VP, Flow, make_plan, sample, wrap
from fewstep.errors import ArgumentError
from fewstep.guidance import prior_guidance, score_alignment
from fewstep.guidance.density_control import DensityControl, DensityNoise
from fewstep.worlds import Gaussian, GaussianMixture

PATH, SIZE = VP(), 48


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mixture():
    means = 0.5 * randn(3, SIZE, seed=5)
    return GaussianMixture([0.5, 0.3, 0.2], means, torch.tensor([[0.2], [0.1], [0.4]]))


def ended(guides, solver="dpm-solver++", steps=60, path=PATH, n=6, until=2.0):
    """(log-densities at λ = until, the states there) of a run from λ = −4.5."""
    world = mixture()
    times = path.t_of_lam(torch.linspace(-4.5, until, steps + 1, dtype=torch.float64))
    start = float(path.sigma(times[0])) * randn(n, SIZE, seed=1)
    x = sample(world.denoiser(path), start=start, plan=make_plan(path, solver, times), guides=guides, seed=0).x
    return world.log_density(x, path, times[-1]), x


@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
def test_the_asked_log_density_is_met_to_one_per_cent(path):
    plain, _ = ended([], path=path, until=1.0, steps=40, n=4)
    assert float(plain.std()) > 4
    for target in (-75.0, -60.0):
        got, _ = ended([DensityControl(target, 1.0, 0.4, probes=16)], path=path, until=1.0, steps=40, n=4)
        assert float((got - target).abs().max()) < 0.01 * abs(target)


def test_noise_across_the_score_changes_the_sample_and_keeps_the_log_density():
    target = -65.0
    control = DensityControl(target, 1.0, 0.4, probes=4)
    still, x = ended([control], "ddim", 150, until=1.0)
    moved, other = ended([control, DensityNoise(0.4, (-5, 3), probes=4)], "ddim", 150, until=1.0)
    assert float((other - x).norm(dim=1).mean()) > 0.3 * float(x.norm(dim=1).mean())
    assert float((still - target).abs().max()) < 0.02 * abs(target)
    assert abs(float(moved.mean()) - target) < 0.015 * abs(target)
    early, _ = ended([control, DensityNoise(0.4, (-9, -8))], "ddim", 150, until=1.0)
    assert torch.equal(early, still)


def test_a_step_of_noise_is_across_and_has_its_size():
    """On N(0, c) the step's mean and spread along and across the score are known."""
    c, amount, n = 0.5, 0.3, 4000
    den = Gaussian(torch.zeros(6), c).denoiser(PATH)
    lams = torch.tensor([0.0, 0.1], dtype=torch.float64)
    times = PATH.t_of_lam(lams)
    x = randn(1, 6, seed=3).expand(n, 6).contiguous()
    plan = make_plan(PATH, "ddim", times)
    plain = sample(den, start=x, plan=plan).x[0]
    off = sample(den, start=x, plan=plan, guides=[DensityNoise(amount, (-1, 1), probes=1)], seed=4).x - plain
    unit = x[0] / x[0].norm()
    along, across = off @ unit, off - (off @ unit)[:, None] * unit
    alpha, sigma = float(PATH.alpha(times[0])), float(PATH.sigma(times[0]))
    variance = 2 * amount**2 * 0.1 * sigma**2
    assert float(across.square().sum(1).mean()) == pytest.approx(5 * variance, rel=0.05)
    # log p_t falls by ‖across‖²/(2w) on average, which the step back along x makes good: |x|·δ = ½·5·variance.
    assert torch.allclose(along, along[0].expand(n), atol=1e-9)
    assert float(along[0]) == pytest.approx(-2.5 * variance / float(x[0].norm()), rel=1e-6)
    assert alpha > 0


def test_alignment_on_a_gaussian_is_constant_and_prior_guidance_then_is_monotone():
    variances = torch.tensor([0.1, 0.4, 1.0, 2.0], dtype=torch.float64)
    world = GaussianMixture([1.0], torch.zeros(1, 4), variances[None])
    times = PATH.t_of_lam(torch.linspace(-3, 3, 201, dtype=torch.float64))
    x = randn(5, 4, seed=2)
    inner, cosine = score_alignment(world.denoiser(PATH), x, times)
    width = PATH.alpha(times[0]) ** 2 * variances + PATH.sigma(times[0]) ** 2
    want = (x / width).square().sum(1)
    assert inner.shape == cosine.shape == (201, 5)
    assert torch.allclose(inner[0], want)
    assert torch.allclose(inner[-1], want, rtol=0.05)
    assert torch.allclose(cosine[0], torch.ones(5, dtype=torch.float64))
    at = PATH.alpha(times[-1]) ** 2 * variances + PATH.sigma(times[-1]) ** 2
    w = width.sqrt() * at.sqrt()
    exact = (x.square() / width.square()).sum(1) / ((x / width * (at / width).sqrt()).norm(dim=1) * (x / w).norm(dim=1))
    assert torch.allclose(cosine[-1], exact, rtol=0.02)


def test_alignment_is_what_the_log_density_gains():
    world, h = mixture(), 1e-4
    den = world.denoiser(PATH)
    times = PATH.t_of_lam(torch.linspace(-2, 1, 31, dtype=torch.float64))
    x = randn(4, SIZE, seed=6)
    inner, _ = score_alignment(den, x, times)
    v = world.score(x, PATH, times[0])
    plan = make_plan(PATH, "ddim", times)
    ends = [world.log_density(sample(den, start=x + s * h * v, plan=plan).x, PATH, times[-1]) for s in (1, -1)]
    assert torch.allclose(inner[-1], (ends[0] - ends[1]) / (2 * h), rtol=1e-3, atol=1e-3)
    lengths = [float(world.log_density(
        sample(den, start=prior_guidance(x, q), plan=plan).x, PATH, times[-1]
    ).mean()) for q in (0.01, 0.5, 0.99)]  # fmt: skip
    assert bool((inner > 0).all())
    assert lengths == sorted(lengths, reverse=True)


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="probes"):
        DensityControl(0.0, probes=0)
    with pytest.raises(ArgumentError, match="variance"):
        DensityControl(0.0, variance=0.0)
    with pytest.raises(ArgumentError, match="amount"):
        DensityNoise(-0.1)
    with pytest.raises(ArgumentError, match="window"):
        DensityNoise(0.1, (1, 0))
    den = wrap(lambda x, t: 0.5 * x, PATH, "x0", shape=(2,))
    with pytest.raises(ArgumentError, match="fall"):
        score_alignment(den, torch.zeros(1, 2), torch.tensor([0.5, 0.6]))
    with pytest.raises(ArgumentError, match="more than 0"):
        score_alignment(den, torch.zeros(1, 2), torch.tensor([0.5, 0.0]))
    assert math.isfinite(DensityControl().until)
