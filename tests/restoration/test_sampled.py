"""Restorers whose law is not linear in their noise, by samples; and the weights of two modes."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch

from fewstep import VP
from fewstep.restoration import Clipping, Matrix, Measurement, Poisson, restore
from fewstep.restoration import Gaussian as Noise
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


@pytest.mark.parametrize("scale", [0.1, 0.3])
def test_dps_ends_with_a_third_of_its_squared_step_whatever_the_noise(scale):
    for sigma in (0.05, 0.2):
        x = draw(b1(sigma), "dps", 400, samples=300, scale=scale)
        assert float(x[:, 0].var()) == pytest.approx(scale**2 / 3, rel=0.25)
        assert float(x[:, 0].mean()) == pytest.approx(1.5, abs=0.05)
    assert float(x[:, 1].mean()) > (1.3 if scale == 0.3 else 1.1)  # 1.2 is right


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
