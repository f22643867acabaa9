"""Guides on Gaussian data, where every answer is a matrix times the state and so every law is known."""

import math
from itertools import pairwise

import pytest
import torch

from fewstep import VP, Flow, make_plan, sample, wrap
from fewstep.guidance import (
    SAG,
    ClassifierGuidance,
    ContrastiveEnergy,
    Factorized,
    FlowChef,
    SelfGuidedMinority,
    Steered,
    UpsampleGuidance,
)
from fewstep.guidance.factorized import frequency_bands
from fewstep.guidance.sag import blurred
from fewstep.worlds import Gaussian, GaussianMixture

PATHS = [VP(), Flow()]


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def times_of(path, low, high, steps):
    return path.t_of_lam(torch.linspace(low, high, steps + 1, dtype=torch.float64))


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_a_classifier_moves_the_mean_of_an_ancestral_step_as_the_published_shift_does(path):
    """By β/√(1 − β)·g with β = 1 − α_t²/α_t′² on VP, that is by Σ·g with Σ = β but for √(1 − β)."""
    den, slope = Gaussian(torch.zeros(4), 0.3).denoiser(path), randn(4)
    t, after = torch.tensor([0.6, 0.45], dtype=torch.float64)
    x, plan = randn(3, 4, seed=1), make_plan(path, "ddpm", torch.stack([t, after]))
    guide = ClassifierGuidance(lambda x, t: x @ slope, 0.7)
    plain, guided = (sample(den, start=x, plan=plan, guides=g, seed=2).x for g in ([], [guide]))
    ratio = path.alpha(t) / path.alpha(after)
    beta = path.sigma(t) ** 2 - ratio**2 * path.sigma(after) ** 2
    if path.kind == "vp":
        assert torch.allclose(beta, 1 - ratio**2)
    assert torch.allclose(guided - plain, (0.7 * beta / ratio * slope).expand(3, 4), atol=1e-12)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_an_edit_of_the_answer_moves_the_next_state_by_the_known_share(path):
    """By (α′ − α·σ′/σ)·δ, on the flow (t − t′)/t·δ: Steered's δ = −σ·Jᵀg."""
    c, (t, after) = 0.3, torch.tensor([0.6, 0.45], dtype=torch.float64)
    den, x = Gaussian(torch.zeros(4), c).denoiser(path), randn(3, 4)
    alpha, sigma = path.alpha(t), path.sigma(t)
    gain = alpha * c / (alpha**2 * c + sigma**2)
    plan = make_plan(path, "ddim", torch.stack([t, after]))
    guide = Steered([(1.0, lambda x0: x0.sum(1))])
    plain, guided = (sample(den, start=x, plan=plan, guides=g).x for g in ([], [guide]))
    share = path.alpha(after) - alpha * path.sigma(after) / sigma
    assert torch.allclose(guided - plain, (-share * sigma * gain).expand(3, 4), atol=1e-12)
    if path.kind == "flow":
        assert torch.allclose(share, (t - after) / t)


SPREAD = torch.tensor([0.02, 0.1, 0.4, 1.0, 2.5], dtype=torch.float64)
SEEN = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64)


def cosine_of_gradients(path, lam, predicts="x0"):
    """(cosine of FlowChef's push and of one through the network, the closed form, J's trace) at a level."""
    world, y = GaussianMixture([1.0], torch.zeros(1, 5), SPREAD[None]), randn(5, seed=3)
    den = world.denoiser(path, predicts)
    t = path.t_of_lam(torch.tensor(lam, dtype=torch.float64))
    alpha, sigma = path.alpha(t), path.sigma(t)
    x = alpha * world.sample(6, seed=1) + sigma * randn(6, 5, seed=2)
    plan = make_plan(path, "ddim", torch.stack([t, 0.9 * t]))

    def loss(x0):
        return ((x0 - y).square() * SEEN).sum(1)

    guides = ([], [FlowChef(loss, 1e-3, last=True)], [Steered([(1e-3, loss)])])
    plain, skipped, through = (sample(den, start=x, plan=plan, guides=g).x for g in guides)
    gain = alpha * SPREAD / (alpha**2 * SPREAD + sigma**2)
    g = 2 * (gain * x - y) * SEEN
    want = (gain * g.square()).sum(1) / ((gain * g).norm(dim=1) * g.norm(dim=1))
    return torch.cosine_similarity(skipped - plain, through - plain), want, gain


@pytest.mark.parametrize("predicts", ["flow", "eps"])
def test_flowchefs_gradient_and_the_one_through_the_network_agree_as_known(predicts):
    """cos = Σ J·g²/(‖Jg‖·‖g‖) with J = (1 − t)·S/((1 − t)²·S + t²); it comes to 1 at the end, as J does."""
    path = Flow()
    found = []
    for lam in (-2.0, 0.0, 2.0, 5.0):
        got, want, gain = cosine_of_gradients(path, lam, predicts)
        t = path.t_of_lam(torch.tensor(lam, dtype=torch.float64))
        assert torch.allclose(gain, (1 - t) * SPREAD / ((1 - t) ** 2 * SPREAD + t**2))
        assert torch.allclose(got, want, atol=1e-7)
        found.append(float(got.mean()))
    assert found == sorted(found)
    assert found[0] < 0.85
    assert found[-1] > 0.9999


def test_an_exact_network_has_the_same_cosine_at_the_same_level_on_every_path():
    """So a straight path is not what makes the two gradients agree."""
    for lam in (-2.0, 0.0, 2.0):
        flow, vp = (cosine_of_gradients(path, lam)[0] for path in PATHS)
        # The states differ by α alone, and J by 1/α.
        assert torch.allclose(flow, vp, atol=1e-7)


@pytest.mark.parametrize("predicts", ["x0", "eps", "v"])
def test_flowchef_of_a_network_of_noise_holds_the_noise(predicts):
    """x′ = α′·(x̂₀ − s·g) + σ′·ε̂, whatever the network predicts."""
    path, (t, after) = VP(), torch.tensor([0.6, 0.45], dtype=torch.float64)
    den, x = Gaussian(torch.zeros(4), 0.3).denoiser(path, predicts), randn(3, 4)
    believed = den(x, t)
    noise = (x - path.alpha(t) * believed) / path.sigma(t)
    guide = FlowChef(lambda x0: (x0 - 0.4).square().sum(1), 0.2, last=True)
    got = sample(den, start=x, plan=make_plan(path, "ddim", torch.stack([t, after])), guides=[guide]).x
    steered = believed - 0.2 * 2 * (believed - 0.4)
    assert torch.allclose(got, path.alpha(after) * steered + path.sigma(after) * noise, atol=1e-12)


def linear_run(answers, path, times):
    """The matrix of ddim with answers x̂₀ = answers(t)·x."""
    whole = torch.eye(len(answers(times[0])), dtype=torch.float64)
    for t, after in pairwise(times):
        ratio = path.sigma(after) / path.sigma(t)
        step = ratio * torch.eye(len(whole), dtype=torch.float64)
        whole = (step + (path.alpha(after) - ratio * path.alpha(t)) * answers(t)) @ whole
    return whole


def classes(*covariances):
    """A world of classes of mean 0."""
    count, size = len(covariances), len(covariances[0])
    world = GaussianMixture.full([1.0] * count, torch.zeros(count, size), torch.stack(covariances))
    return GaussianMixture(
        world.weights, world.means, world.variance, world.basis, world.spread, component_labels=range(count)
    )


def stationary(size, width):
    """A covariance that falls with the distance round a ring."""
    at = torch.arange(size, dtype=torch.float64)
    apart = torch.minimum(at, size - at)
    row = (-apart / width).exp()
    return torch.stack([row.roll(k) for k in range(size)])


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_bands_by_blurs_have_the_covariance_of_their_recurrence(path):
    """A blur is no projector, so each band depends on both classes: x̂₀ = (F·W₁ + (1 − F)·W₂)·x step by step."""
    size, covariances = 16, (stationary(16, 3.0), 0.5 * stationary(16, 0.3))
    low, high = (lambda x, f=f: f(x.reshape(-1, 1, 4, 4)).reshape(-1, size) for f in frequency_bands(0.8))
    blur = low(torch.eye(size, dtype=torch.float64)).mT
    assert (blur @ blur - blur).abs().max() > 0.05
    times, den = times_of(path, -3, 3, 6), classes(*covariances).denoiser(path)

    def gains(t):
        alpha, sigma = path.alpha(t), path.sigma(t)
        eye = torch.eye(size, dtype=torch.float64)
        first, second = (alpha * c @ torch.linalg.inv(alpha**2 * c + sigma**2 * eye) for c in covariances)
        return blur @ first + (eye - blur) @ second

    start, plan = torch.eye(size, dtype=torch.float64), make_plan(path, "ddim", times)
    guide = Factorized([low, high], [{"label": 1}])
    got = sample(den, start=start, plan=plan, guides=[guide], cond={"label": 0}).x.mT
    want = linear_run(gains, path, times)
    assert torch.allclose(got @ got.mT, want @ want.mT, atol=1e-9)
    assert torch.allclose(got, want, atol=1e-9)


def test_bands_by_projectors_have_the_spectrum_of_each_class():
    """f₁S₁ + f₂S₂, up to what the steps of the solver leave."""
    size, path, covariances = 16, VP(), (stationary(16, 3.0), 0.5 * stationary(16, 0.3))
    kept = (torch.fft.fftfreq(size).abs() < 0.2).double()

    def low(x):
        return torch.fft.ifft(torch.fft.fft(x) * kept).real

    times, den = times_of(path, -5, 4, 80), classes(*covariances).denoiser(path)
    start, plan = (
        float(path.sigma(times[0])) * torch.eye(size, dtype=torch.float64),
        make_plan(path, "dpm-solver++", times),
    )
    guide = Factorized([low, lambda x: x - low(x)], [{"label": 1}])
    out = sample(den, start=start, plan=plan, guides=[guide], cond={"label": 0}).x.mT
    spectra = [torch.fft.fft(c[0]).real for c in covariances]
    wanted = path.alpha(times[-1]) ** 2 * (kept * spectra[0] + (1 - kept) * spectra[1]) + path.sigma(times[-1]) ** 2
    basis = torch.fft.fft(torch.eye(size, dtype=torch.float64)) / size**0.5
    got = (basis @ (out @ out.mT).to(basis.dtype) @ basis.conj().mT).real
    assert torch.allclose(got.diagonal(), wanted, rtol=0.01)
    assert (got - got.diagonal().diag()).abs().max() < 1e-9
    assert (spectra[0] / spectra[1] - 1).abs().median() > 0.3


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_blur_guidance_damps_what_the_blur_and_the_gain_leave_out(path):
    """x̂₀′ = x̂₀ − s·(1 − w)·(1 − b)·x̂₀, w = αW the Wiener gain of coloured data and b the blur, both as matrices."""
    covariance, t = stationary(16, 3.0), torch.tensor(0.5, dtype=torch.float64)
    world = GaussianMixture.full([1.0], torch.zeros(1, 1, 4, 4), covariance[None])
    x, plan = randn(3, 1, 4, 4), make_plan(path, "ddim", torch.tensor([0.5, 0.0], dtype=torch.float64))
    got = sample(world.denoiser(path), start=x, plan=plan, guides=[SAG(0.7, 0.8, mask=False)]).x
    alpha, sigma, eye = path.alpha(t), path.sigma(t), torch.eye(16, dtype=torch.float64)
    gain = alpha**2 * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * eye)
    blur = blurred(eye.reshape(-1, 1, 4, 4), 0.8).reshape(16, 16).mT
    believed = x.flatten(1) @ gain.mT / alpha
    want = believed - 0.7 * believed @ ((eye - gain) @ (eye - blur)).mT
    assert torch.allclose(got.flatten(1), want, atol=1e-10)


def spectrum(shape, width=1.5):
    """That of a stationary field whose correlation falls round the torus as a Gaussian, at the small size."""
    (rows, columns) = (torch.fft.fftfreq(n, dtype=torch.float64) for n in shape)
    return 0.05 + (-(width**2) * 2 * math.pi**2 * (rows[:, None] ** 2 + columns**2)).exp() * 2 * math.pi * width**2 / 4


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_upsampled_stationary_data_has_the_small_worlds_covariance_in_its_block_means(path):
    """With w = 1 and the filter that is right for the small size: α²·S + σ²/m² at every frequency, exactly."""
    size, m = 4, 2

    def net(x, t):
        alpha, sigma = (v.reshape(-1, 1, 1, 1) for v in (path.alpha(t.double()), path.sigma(t.double())))
        power = spectrum(x.shape[-2:])
        return torch.fft.ifft2(torch.fft.fft2(x) * alpha * power / (alpha**2 * power + sigma**2)).real

    large = wrap(net, path, "x0", shape=(1, m * size, m * size), time="t")
    times = times_of(path, -5, 3, 120)
    count = (m * size) ** 2
    start = float(path.sigma(times[0])) * torch.eye(count, dtype=torch.float64).reshape(count, 1, m * size, m * size)
    plan = make_plan(path, "dpm-solver++", times)

    def covariance(guides):
        x = sample(large, start=start, plan=plan, guides=guides).x
        means = torch.nn.functional.avg_pool2d(x, m).reshape(count, size * size).mT
        return means @ means.mT

    alpha, sigma = path.alpha(times[-1]), path.sigma(times[-1])
    wanted = alpha**2 * spectrum((size, size)) + sigma**2 / m**2
    basis = (
        torch.fft.fft2(torch.eye(size * size, dtype=torch.float64).reshape(-1, size, size)).reshape(-1, size * size)
        / size
    )
    got = (basis.mT @ covariance([UpsampleGuidance(m)]).to(basis.dtype) @ basis.conj()).real
    assert torch.allclose(got.diagonal(), wanted.flatten(), rtol=0.01)
    assert (got - got.diagonal().diag()).abs().max() < 1e-6
    plain = (basis.mT @ covariance([]).to(basis.dtype) @ basis.conj()).real.diagonal()
    assert (plain / wanted.flatten() - 1).abs().max() > 0.3


def test_with_a_linear_energy_on_one_gaussian_the_energy_of_the_answer_is_exact():
    """Where the exact energy, E of the mean and the mean of E differ by constants alone, and all guide the same."""
    path, v, c = VP(), 0.4, torch.tensor([0.8, -0.5, 0.3], dtype=torch.float64)
    den = Gaussian(torch.zeros(3), v).denoiser(path)
    guide = ContrastiveEnergy(lambda x, t: -(den(x, t) @ c), interval=(0, 1))
    times, start = times_of(path, -4, 3, 10), randn(5, 3)
    got = sample(den, start=start, plan=make_plan(path, "dpm-solver++", times), guides=[guide]).x
    tilted = Gaussian(-v * c, v).denoiser(path)
    assert torch.allclose(got, sample(tilted, start=start, plan=make_plan(path, "dpm-solver++", times)).x, atol=1e-9)


def test_the_self_guided_push_is_the_gradient_by_differences():
    """On unequal variances, with the second answer held: uphill, of largest part 1, by the slope of d(x̂₀, held)."""
    path, t = VP(), torch.tensor(0.5, dtype=torch.float64)
    world = GaussianMixture([0.7, 0.3], randn(2, 5, seed=3), torch.stack([SPREAD, SPREAD.flip(0)]))
    den, x, h = world.denoiser(path), randn(2, 5), 1e-6
    plan = make_plan(path, "ddim", torch.tensor([0.5, 0.0]))
    plain, guided = (
        sample(den, start=x, plan=plan, guides=g, seed=3).x for g in ([], [SelfGuidedMinority(0.4, t_noise=0.7)])
    )
    from fewstep.noise import KeyedNoise

    z = KeyedNoise(3, range(2), (5,), torch.float64, "cpu").guide(0)
    held = den(float(path.alpha(0.7)) * plain + float(path.sigma(0.7)) * z, 0.7)

    def loss(x):
        return (den(x, 0.5) - held).square().mean(1)

    slope = torch.stack([(loss(x + h * e) - loss(x - h * e)) / (2 * h) for e in torch.eye(5, dtype=torch.float64)], 1)
    push = (guided - plain) / (0.4 * path.sigma(t) ** 2)
    assert torch.allclose(push, slope / slope.abs().amax(1, keepdim=True), atol=1e-5)
