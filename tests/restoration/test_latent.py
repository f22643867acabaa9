"""Restoring with latent models, held in worlds whose decoder is a matrix and whose latents are Gaussian."""

import importlib.util
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from fewstep import VP, sample
from fewstep.denoisers import Latent
from fewstep.errors import ArgumentError
from fewstep.guidance import Ask
from fewstep.planning import make_plan
from fewstep.restoration import Clipping, Mask, Matrix, Measurement, PhaseRetrieval, restore, restorer_named
from fewstep.restoration import Gaussian as Noise
from fewstep.restoration.decoded import decoded
from fewstep.restoration.psld import PSLD
from fewstep.restoration.resample import HardConsistency, ReSample, fit
from fewstep.worlds import Gaussian

_spec = importlib.util.spec_from_file_location("benches", Path(__file__).with_name("benches.py"))
benches = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(benches)

GENERATOR = torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def same_draws():
    """Every test draws the same numbers whatever ran before it."""
    GENERATOR.manual_seed(0)


W = torch.linalg.qr(torch.randn(5, 3, dtype=torch.float64, generator=GENERATOR))[0]
ROWS = torch.linalg.qr(torch.randn(5, 2, dtype=torch.float64, generator=GENERATOR))[0].mT
COVARIANCE = torch.tensor([[1.0, 0.6, 0.0], [0.6, 0.8, -0.2], [0.0, -0.2, 0.5]], dtype=torch.float64)
WORLD, PATH = Gaussian(torch.zeros(3), COVARIANCE), VP()


def latent(encode=lambda x: x @ W.to(x), path=PATH):
    return Latent(WORLD.denoiser(path), encode, lambda z: z @ W.mT.to(z), (5,))


def measured(sigma=0.1, rows=ROWS, n=1):
    truth = WORLD.sample(n, seed=7) @ W.mT
    return Measurement.simulate(Matrix(rows, (5,)), truth, Noise(sigma)), truth


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("daps", {"evaluations": 30, "step_size": 1e-3, "moves": 5}), ("dps", {"evaluations": 20}),
        ("dps-likelihood", {"evaluations": 60}), ("red-diff", {"evaluations": 20}),
    ],
)  # fmt: skip
def test_through_a_matrix_as_decoder_it_is_the_restorer_of_latents_with_the_product(method, options):
    measurement, _ = measured(0.5)
    common = {"samples": 4, "seed": 1, "dtype": torch.float64, **options}
    out = restore(latent(), measurement, method, **common)
    product = Measurement(Matrix(ROWS @ W, (3,)), measurement.y, measurement.noise)
    want = restore(WORLD.denoiser(PATH), product, method, **common)
    if method != "red-diff":  # which begins at E(A†y), and with the product at (A D)†y
        assert torch.allclose(out.latents, want.x, atol=1e-8)
    else:
        assert torch.allclose(out.latents, want.x, atol=0.4)
    assert torch.allclose(out.x, out.latents @ W.mT)
    assert out.mean.shape == (1, 5)


def test_linear_methods_say_that_a_decoder_is_in_between_and_shapes_are_those_of_pictures():
    measurement, _ = measured()
    with pytest.raises(ArgumentError, match="ddnm needs a linear operator"):
        restore(latent(), measurement, "ddnm")
    with pytest.raises(ArgumentError, match=r"does not take samples of \(5,\)"):
        restore(latent(), Measurement(Mask(torch.tensor([1, 0, 1])), torch.zeros(1, 3)), "dps")
    with pytest.raises(ArgumentError, match="psld needs a linear operator, got Clipping"):
        restore(latent(), Measurement(Clipping(), torch.zeros(1, 5)), "psld")
    with pytest.raises(ArgumentError, match="scale and glue must be at least 0"):
        restore(latent(), measurement, "psld", glue=-0.1)
    with pytest.raises(ArgumentError, match="every and further"):
        restore(latent(), measurement, "resample", every=0)


def test_a_decoded_operator_has_a_pseudo_inverse_where_its_own_has_one():
    den = latent()
    y = torch.randn(2, 2, dtype=torch.float64)
    seen = decoded(Measurement(Matrix(ROWS, (5,)), y), den)
    assert torch.allclose(seen.project(y), y @ ROWS @ W)
    assert Measurement.inverts(seen.operator)
    drawn = torch.randn(2, 3, dtype=torch.float64)
    blind = decoded(Measurement(PhaseRetrieval(), y), den)
    assert not Measurement.inverts(blind.operator)
    assert torch.equal(blind.first_guess(drawn), drawn)
    pixels = Measurement(Matrix(ROWS, (5,)), y)
    assert decoded(pixels, WORLD.denoiser(PATH)) is pixels


def one_step(guides, start, measurement):
    plan = make_plan(PATH, "ddim", torch.tensor([0.6, 0.4], dtype=torch.float64))
    return sample(latent(), plan=plan, start=start, guides=guides).x


def test_pslds_step_is_the_closed_form_of_both_gradients():
    """E∘D = I, so the glued difference is h = WᵀA†(y − A W ẑ₀), and ∂ẑ₀/∂z_t = (α/σ²)·C_t."""
    measurement, _ = measured(n=3)
    den, omega, gamma = latent(), 0.7, 0.4
    start = torch.randn(3, 3, dtype=torch.float64, generator=GENERATOR)
    guide = PSLD(decoded(measurement, den), omega, gamma)
    moved = one_step([guide], start, measurement) - one_step([], start, measurement)
    t = torch.tensor(0.6, dtype=torch.float64)
    alpha, sigma = PATH.alpha(t), PATH.sigma(t)
    jacobian = alpha * COVARIANCE @ torch.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * torch.eye(3))
    a = ROWS @ W
    r = measurement.y - start @ jacobian.mT @ a.mT
    h = r @ ROWS @ W
    p = W.mT @ ROWS.mT @ ROWS @ W
    slope = omega * (r / r.norm(dim=1, keepdim=True)) @ a + gamma * (h / h.norm(dim=1, keepdim=True)) @ p
    assert torch.allclose(moved, slope @ jacobian, atol=1e-9)


def test_psld_without_glue_is_latent_dps():
    measurement, _ = measured()
    common = {"evaluations": 20, "samples": 3, "dtype": torch.float64}
    ours = restore(latent(), measurement, "psld", scale=0.2, glue=0.0, **common)
    dps = restore(latent(), measurement, "dps", scale=0.2, solver="ddim", **common)
    assert torch.allclose(ours.x, dps.x, atol=1e-10)


def test_psld_recovers_what_is_measured_fully_and_its_steps_set_how_nearly():
    rows = torch.linalg.qr(torch.randn(5, 4, dtype=torch.float64, generator=GENERATOR))[0].mT
    measurement, truth = measured(0.0, rows)
    common = {"evaluations": 300, "samples": 8, "dtype": torch.float64}
    off = [
        float((restore(latent(), measurement, "psld", scale=s, glue=s / 10, **common).x - truth).norm(dim=1).mean())
        for s in (0.4, 0.05)
    ]
    assert off[1] < 0.06
    assert off[0] > 4 * off[1]


def test_the_glue_brings_latents_to_where_encoder_and_decoder_agree():
    """E D z = (z₁, z₂, z₃/2), which leaves a latent as it is where z₃ = 0."""
    halve = torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64)
    measurement, _ = measured(0.1)
    den = latent(lambda x: (x @ W.to(x)) * halve.to(x))
    off = []
    for glue in (0.0, 0.2):
        z = restore(den, measurement, "psld", evaluations=200, samples=100, scale=0.05, glue=glue).latents.double()
        off.append(float((z * halve - z).norm(dim=1).mean()))
    assert off[1] < 0.5 * off[0]


def test_fitting_touches_what_is_measured_alone_and_stops_row_by_row():
    mask = torch.tensor([1.0, 1.0, 0.0])
    target = torch.tensor([[0.3, -0.2, 9.0], [0.0, 0.1, 9.0]], dtype=torch.float64)
    x = torch.tensor([[1.0, 1.0, 0.7], [0.0, 0.1005, -0.4]], dtype=torch.float64)

    def loss(x):
        return ((x - target[: len(x)]) * mask).square().sum(1) / 2

    done = fit(loss, x, 1e-2, 1000, 1e-6)
    assert (loss(done) <= 1e-6).all()
    assert torch.equal(done[1], x[1])  # it was good enough
    assert torch.equal(done[:, 2], x[:, 2])
    assert torch.allclose(fit(loss, x[:1], 1e-2, 1000, 1e-6)[0], done[0])
    assert torch.equal(fit(loss, x, 1e-2, 0, 0.0), x)
    calls = []
    worse = fit(lambda x: calls.append(1) or (x - 1).square().sum(1) / 2 + 1, x[:1], 1e-2, 10_000, 0.0)
    assert torch.allclose(worse, torch.ones_like(worse), atol=0.05)  # it never is enough, but settles
    assert len(calls) < 2000


def test_what_resample_costs_is_counted_and_fits():
    measurement, _ = measured()
    consistency = HardConsistency(decoded(measurement, latent()))
    assert [i for i in range(500) if consistency.due(i, 500)][:2] == [169, 179]
    for evaluations in (8, 60, 100):
        out = restore(latent(), measurement, "resample", evaluations=evaluations, moves=(0, 0), every=5)
        steps = out.plan.steps
        times = sum(HardConsistency(measurement, every=5).due(i, steps) for i in range(steps - 1))
        assert out.stats.evaluations <= evaluations
        assert out.stats.evaluations >= steps + 4 * times  # a question nearer the end than `further` steps is not asked


@pytest.mark.parametrize("gamma", [0.7, 40.0])
def test_resampling_draws_the_product_of_the_two_laws(gamma):
    """Three steps on one number, the second resampled, nothing optimised: mean and variance by scalar recurrences."""
    world = Gaussian(torch.zeros(1), torch.tensor([[0.5]]))
    measurement = Measurement(Mask(torch.ones(1)), torch.zeros(1, 1, dtype=torch.float64))
    restorer = ReSample(measurement, scale=0.0, every=1, gamma=gamma, further=1, moves=(0, 0))
    _, covariance = benches.law(world, restorer, evaluations=4, path=PATH)
    times = torch.linspace(1, 0, 4, dtype=torch.float64)
    line = list(zip(PATH.alpha(times).tolist(), PATH.sigma(times).tolist(), strict=True))

    def belief(alpha, sigma):
        return alpha * 0.5 / (alpha**2 * 0.5 + sigma**2)

    factor = line[0][1]  # of the start's unit noise
    for (alpha, sigma), (below, noise) in pairwise(line[:3]):
        k = belief(alpha, sigma)
        factor *= below * k + noise * (1 - alpha * k) / sigma
    (before, sigma), (alpha, noise) = line[1], line[2]
    v = gamma * (noise / sigma) ** 2 * (1 - (before / alpha) ** 2)
    precision = 1 / v + 1 / noise**2
    last = belief(alpha, noise)
    factor *= (1 / v + alpha * last / noise**2) / precision
    assert float(covariance) == pytest.approx(last**2 * (factor**2 + 1 / precision), rel=1e-9)


def test_resample_ends_at_the_noise_level_and_not_below():
    measurement, _ = measured(0.2, n=2)
    common = {"evaluations": 60, "samples": 3, "dtype": torch.float64, "every": 5}
    out = restore(latent(), measurement, "resample", **common)
    off = measurement.repeated(3).residual(out.x).square().mean(1).sqrt()
    assert (off <= 0.2 + 1e-9).all()
    assert (off > 0.15).any()
    tight = restore(latent(), measurement, "resample", enough=1e-3, **common)
    assert (measurement.repeated(3).residual(tight.x).square().mean(1).sqrt() <= 0.05).all()


def test_both_find_what_is_measured_with_a_mask_of_pictures():
    mask = Mask(torch.tensor([1, 1, 1, 0, 1]))
    truth = WORLD.sample(2, seed=3) @ W.mT
    measurement = Measurement.simulate(mask, truth, Noise(0.02))
    for method, options in (("psld", {"scale": 0.05, "glue": 0.005}), ("resample", {"every": 5})):
        out = restore(latent(), measurement, method, evaluations=200, samples=4, **options)
        assert math.sqrt((out.mean - truth).square().mean()) < 0.1
    assert restorer_named("psld", measurement).budget == 1000


def test_the_answer_that_is_optimised_is_that_of_further_steps_of_ddim():
    """From t = 0.5 on, each as long as the last step, and never a step to 0 or beyond."""
    den, path, z = WORLD.denoiser(PATH), PATH, torch.randn(2, 3, dtype=torch.float64, generator=GENERATOR)
    asked = []

    def again(x, t, cond):
        asked.append(float(t))
        return den(x, t)

    for before, count in ((0.6, 5), (0.7, 3)):
        asked.clear()
        t = torch.tensor(0.5, dtype=torch.float64)
        ask = Ask(z, t, t, 4, 10, den, noise=lambda slot: z, again=again)
        got = HardConsistency(measured()[0])._ahead(ask, z, torch.tensor(before, dtype=torch.float64))
        times = torch.tensor([0.5 - k * (before - 0.5) for k in range(count)], dtype=torch.float64)
        assert asked == pytest.approx(times.tolist())
        want = sample(den, plan=make_plan(path, "ddim", times), start=z, keep="trajectory").x
        assert torch.allclose(got, den(want, times[-1]), atol=1e-9)


def test_pslds_norms_are_those_of_its_formula():
    """With an encoder that halves, the picture with its measured part replaced by y is another than with −y."""
    measurement, _ = measured(n=3)
    z = torch.randn(3, 3, dtype=torch.float64, generator=GENERATOR)
    halve = torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64)
    den = latent(lambda x: (x @ W) * halve)
    picture = z @ W.mT
    replaced = measurement.y @ ROWS + picture @ (torch.eye(5, dtype=torch.float64) - ROWS.mT @ ROWS)
    want = 0.7 * (measurement.y - picture @ ROWS.mT).norm(dim=1) + 0.4 * ((replaced @ W) * halve - z).norm(dim=1)
    assert torch.allclose(PSLD(decoded(measurement, den), 0.7, 0.4).loss(z), want)


def test_resamples_gradient_is_that_of_dps_times_half_the_squared_signal():
    measurement, _ = measured(n=3)
    seen, start = decoded(measurement, latent()), torch.randn(3, 3, dtype=torch.float64, generator=GENERATOR)
    plain = one_step([], start, measurement)
    dps = one_step([restorer_named("dps", seen, scale=1.0)], start, measurement) - plain
    ours = one_step([ReSample(seen)], start, measurement) - plain
    assert torch.allclose(ours, 0.5 * float(PATH.alpha(torch.tensor(0.6))) ** 2 * dps, atol=1e-9)


@pytest.mark.parametrize("left", [5, 2])
def test_first_the_picture_is_fitted_then_the_latent(left):
    """γ = ∞ and no noise show what was fitted. A mask leaves hidden pixels of a picture as they were decoded."""
    mask = torch.tensor([1.0, 0, 1, 0, 0], dtype=torch.float64)
    den, z = latent(), torch.randn(2, 3, dtype=torch.float64, generator=GENERATOR)
    t, before = (torch.tensor(v, dtype=torch.float64) for v in (0.5, 0.6))
    # Of a latent near the answer, so that the moves that are allowed can reach it.
    held = den(z, t) + 0.3 * torch.randn(2, 3, dtype=torch.float64, generator=GENERATOR)
    measurement = Measurement(Mask(mask), (held @ W.mT) * mask)
    ask = Ask(z, t, t, 9 - left, 10, den, noise=torch.zeros_like(z).mul, again=lambda x, t, cond: den(x, t))
    guide = HardConsistency(decoded(measurement, den), every=1, gamma=1e12, further=1)
    moved, _, jumped = guide.move(ask, z, before)
    assert jumped
    fitted = moved / PATH.alpha(t)
    if left == 5:
        want = mask * measurement.y + (1 - mask) * (den(z, t) @ W.mT)
        assert torch.allclose(fitted, want @ W, atol=5e-3)
    else:
        assert ((fitted @ W.mT - measurement.y) * mask).abs().max() < 5e-3
