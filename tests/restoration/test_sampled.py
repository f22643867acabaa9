"""Restorers whose law is not linear in their noise, by samples; and the weights of two modes."""

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from fewstep import VE, VP, sample
from fewstep.denoisers import wrap
from fewstep.restoration import Clipping, Mask, Matrix, Measurement, Poisson, restore
from fewstep.restoration import Gaussian as Noise
from fewstep.restoration.base import RestorationGuide
from fewstep.restoration.daps import DAPS
from fewstep.session import prepare
from fewstep.worlds import Gaussian

_spec = importlib.util.spec_from_file_location("benches", Path(__file__).with_name("benches.py"))
benches = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(benches)
b1, b2, PATH = benches.b1, benches.b2, benches.PATH


def draw(bench, method, evaluations, samples=1000, path=PATH, **options):
    world, measurement = bench
    return restore(
        world.denoiser(path), measurement, method, evaluations=evaluations, samples=samples, dtype=torch.float64,
        **options,
    ).x  # fmt: skip


def test_dps_in_its_thousand_steps():
    x = draw(b1(0.05), "dps", 1000, samples=1500, grid="linspace")
    assert x.mean(0).tolist() == pytest.approx((1.50, 1.46), abs=0.06)
    assert x.var(0).tolist() == pytest.approx((0.030, 0.302), abs=0.04)


@pytest.mark.parametrize("scale", [0.1, 0.3, 1.0])
def test_dps_ends_with_a_third_of_its_squared_step_whatever_the_noise(scale):
    for sigma in (0.05, 0.2):
        x = draw(b1(sigma), "dps", 400, samples=300, scale=scale)
        assert float(x[:, 0].var()) == pytest.approx(scale**2 / 3, rel=0.25)
        assert float(x[:, 0].mean()) == pytest.approx(1.5, abs=0.05)
    assert float(x[:, 1].mean()) > (1.1 if scale == 0.1 else 1.3)  # 1.2 is right


def test_mcg_moves_what_replacement_leaves_behind_and_overshoots():
    draws = (draw(b1(0.0), "mcg", 150, samples=1000, weight=w) for w in (0.0, 0.04, 1.0))
    none, small, full = (float(x[:, 1].mean()) for x in draws)
    assert none == pytest.approx(0.745, abs=0.1)
    assert none + 0.15 < small < full
    assert full > 1.5


@pytest.mark.parametrize(
    ("method", "solver", "weight"),
    [
        ("pgdm", "ddim", 0.776), ("pgdm", "ddpm", 0.717), ("diffpir", "ddim", 0.580), ("diffpir", "ddpm", 0.609),
        ("dmps", "ddim", 0.551), ("dmps", "ddpm", 0.567), ("dps-likelihood", "ddim", 0.978),
        ("dps-likelihood", "ddpm", 0.945), ("daps", None, 0.689),
    ],
)  # fmt: skip
def test_how_far_the_weights_of_modes_move(method, solver, weight):
    """The exact weight is 0.847, and methods without a gradient hardly move it from 1/2."""
    chain = {"chain": "exact", "inner": 1, "sigma_max": 20.0}
    options = {"dmps": {"scale": 1.0}, "daps": chain}.get(method, {})
    x = draw(b2(), method, 40 if method == "daps" else 100, samples=1500, solver=solver, **options)
    assert float((x.sum(1) > 0).double().mean()) == pytest.approx(weight, abs=0.04)


@pytest.mark.parametrize(("solver", "weight"), [("ddim", 0.848), ("ddpm", 0.853)])
def test_the_exact_guide_has_the_weights_of_the_modes(solver, weight):
    world, measurement = b2()
    guide = benches.ExactGuide(measurement, world.posterior(torch.tensor([[1.0, 0.0]]), measurement.y[0, :1], 0.5))
    x = sample(world.denoiser(PATH), 1500, solver=solver, steps=100, guides=guide.guides(), dtype=torch.float64).x
    assert float((x.sum(1) > 0).double().mean()) == pytest.approx(weight, abs=0.04)


@dataclass(frozen=True)
class TrueCovariance(RestorationGuide):
    """One Gaussian about x̂₀ with the mixture's own C_t = (σ²/α)·J, which is not exact for two."""

    level: ClassVar[str] = "answer"
    needs_grad: ClassVar[bool] = True

    def solver(self):
        return "ddpm"

    def answer(self, ask, x0, state):
        alpha, sigma = float(ask.path.alpha(ask.t)), float(ask.path.sigma(ask.t))
        column = sigma**2 / alpha * torch.autograd.grad(x0[:, 0].sum(), ask.x)[0]
        gain = column / (column[:, :1] + self.measurement.sigma**2)
        return x0 + gain * (self.measurement.y[:, :1] - x0[:, :1]), state


@pytest.mark.parametrize(("solver", "weight"), [("ddim", 0.711), ("ddpm", 0.689)])
def test_the_true_covariance_in_one_gaussian_does_not_have_the_weights(solver, weight):
    world, measurement = b2()
    guides = TrueCovariance(measurement).guides()
    x = sample(world.denoiser(PATH), 1500, solver=solver, steps=100, guides=guides, dtype=torch.float64).x
    assert float((x.sum(1) > 0).double().mean()) == pytest.approx(weight, abs=0.04)


class DrawnDAPS(DAPS):
    """Of a denoiser that draws x₀ itself."""

    def _draw(self, session, i, guess, variance):
        return guess


def test_daps_levels_anneal_to_the_posterior_where_the_draw_is_exact():
    """0.847 of the + mode, mean (0.8, 1), variance (0.071, 0.1), as the paper's proposition has it."""
    world, measurement = b2()
    posterior, path = world.posterior(torch.tensor([[1.0, 0.0]]), measurement.y[0, :1], 0.5), VE(100.0)
    generator = torch.Generator().manual_seed(0)
    covariances = torch.stack([posterior.component_covariance(k) for k in range(2)])

    def drawn(x, t):
        sigma = float(path.sigma(t).flatten()[0])
        v = covariances + sigma**2 * torch.eye(2)
        off = x[:, None] - posterior.means
        solved = torch.linalg.solve(v, off[..., None])
        logs = posterior.weights.log() - 0.5 * (off * solved[..., 0]).sum(-1) - 0.5 * torch.logdet(v)
        k = torch.multinomial(logs.softmax(1), 1, generator=generator)[:, 0]
        factor = torch.linalg.cholesky(covariances - covariances @ torch.linalg.solve(v, covariances))
        mean = posterior.means + (covariances @ solved)[..., 0]
        xi = torch.randn(*x.shape, 1, dtype=torch.float64, generator=generator)
        return mean[torch.arange(len(x)), k] + (factor[k] @ xi)[..., 0]

    daps = DrawnDAPS(measurement, steps=30, inner=1)
    denoiser = wrap(drawn, path, "x0", shape=(2,), time="t")
    x = daps.run(prepare(denoiser, 1000, plan=daps.opening(path), dtype=torch.float64))[0]
    plus = x[x.sum(1) > 0]
    assert len(plus) / len(x) == pytest.approx(0.847, abs=0.045)
    assert plus.mean(0).tolist() == pytest.approx((0.8, 1.0), abs=0.04)
    assert plus.var(0).tolist() == pytest.approx((0.071, 0.1), abs=0.02)


def test_daps_as_published_believes_its_own_noise_and_hardly_moves_at_high_levels():
    """The authors' η₀ = 1e-4 and τ = 0.01, on data of variance 1/4 with σ_y = 0.05: 150 pairs side by side.

    The exact variance is (0.0025, 0.092); the measured number's is that of τ instead.
    """
    one = 0.25 * torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    world = Gaussian(torch.zeros(300), torch.kron(torch.eye(150, dtype=torch.float64), one))
    mask = torch.tensor([1, 0]).repeat(150)
    measurement = Measurement(Mask(mask), 1.5 * mask[None].double(), Noise(0.05))
    options = {"deviation": 0.01, "step_size": 1e-4, "inner": 5, "path": VE(100.0)}
    x = draw((world, measurement), "daps", 1000, samples=2, **options).reshape(-1, 2)
    assert x.mean(0).tolist() == pytest.approx((1.5, 1.09), abs=0.06)
    assert float(x[:, 0].var()) < 5e-4
    assert float(x[:, 1].var()) == pytest.approx(0.085, abs=0.025)


def test_red_diff_is_a_point_near_the_fit_and_its_last_weight_decides():
    world, measurement = b1(0.05)
    x = draw((world, measurement), "red-diff", 400, samples=40, rate=0.05)
    assert x[:, 0].var() < 0.02
    assert float(x[:, 0].mean()) == pytest.approx(1.5, abs=0.1)
    assert 0.1 < float(x[:, 1].mean()) < 1.3


def test_red_diffs_fixed_point_is_a_ridge_estimate():
    """At one level the expected pull is α·σ(α²Σ + σ²)⁻¹μ, so the slope vanishes where the ridge equation says."""
    path, sigma_t = VP(), 0.3
    world = Gaussian(torch.zeros(2), torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
    measurement = b1(0.3)[1]
    t = path.t_of_lam(0.5 * math.log((1 - sigma_t**2) / sigma_t**2))
    alpha, sigma = path.alpha(t), path.sigma(t)
    mu = torch.tensor([[0.4, -0.3]], dtype=torch.float64)
    x0 = world.denoise(alpha * mu, path, t)  # its mean over ξ, as the denoiser is linear
    pull = (alpha * mu - alpha * x0) / sigma
    want = alpha * sigma * torch.linalg.solve(alpha**2 * world.covariance + sigma**2 * torch.eye(2), mu.mT).mT
    assert torch.allclose(pull, want, atol=1e-9)
    assert torch.allclose(measurement.misfit_gradient(mu), torch.tensor([[0.4 - 1.5, 0.0]], dtype=torch.float64))


def test_nonlinear_and_counted_measurements():
    world = Gaussian(torch.zeros(2), torch.tensor([[0.2, 0.1], [0.1, 0.2]]))
    truth = torch.tensor([[0.3, 0.2]], dtype=torch.float64)
    clipped = Measurement.simulate(Clipping(), truth, Noise(0.05))
    for method, options in (("dps", {"scale": 0.05}), ("daps", {"steps": 20, "step_size": 5e-4}), ("red-diff", {})):
        x = draw((world, clipped), method, 100, samples=50, **options)
        assert (x.mean(0) - truth[0]).abs().max() < 0.2
    counted = Measurement.simulate(Matrix(torch.eye(2), (2,)), truth, Poisson(500.0))
    x = draw((world, counted), "dps", 200, samples=50, scale=0.05)
    assert (x.mean(0) - truth[0]).abs().max() < 0.2
