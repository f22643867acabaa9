"""AFDPS against the exact posterior of a mixture; without weights, without corrections, and its sde form."""

import pytest
import torch

from fewstep import VE, VP, sample
from fewstep.errors import ArgumentError
from fewstep.restoration import Clipping, Gaussian, Matrix, Measurement
from fewstep.search import AFDPS
from fewstep.search.particles import widened
from fewstep.search.weighted_ensemble import _Ensemble
from fewstep.session import prepare
from fewstep.worlds import Gaussian as WorldOfOne
from fewstep.worlds import GaussianMixture

WORLD = GaussianMixture.full(
    [0.3, 0.4, 0.3],
    torch.tensor([[-1.5, -1.0], [1.0, 1.2], [1.5, -1.5]]),
    torch.tensor([[[0.5, 0.2], [0.2, 0.4]], [[0.3, -0.1], [-0.1, 0.5]], [[0.4, 0.0], [0.0, 0.3]]]),
)
MATRIX, Y, NOISE = torch.tensor([[1.0, 0.5]], dtype=torch.float64), torch.tensor([[0.9]], dtype=torch.float64), 0.6
SEEN = Measurement(Matrix(MATRIX, (2,)), Y, Gaussian(NOISE))
EXACT = WORLD.posterior(MATRIX, Y[0], NOISE)
PATH = VE(8.0)
COMMON = {"norm": 1.118, "data_variance": 2.0, "sigma_max": 8.0}


def moments(out):
    w, x = out.weights.shares[0][:, None], out.particles[0].double()
    mean = (w * x).sum(0)
    return mean, (x - mean).mT @ (w * (x - mean))


def ensemble(measurement=SEEN, n=1, path=PATH, seed=0, first=0, **parameters):
    search = AFDPS(measurement, **{**COMMON, **parameters})
    return sample(WORLD.denoiser(path), n, search=search, dtype=torch.float64, seed=seed, first=first)


@pytest.mark.parametrize("path", [VE(8.0), VP()], ids=lambda p: p.kind)
@pytest.mark.parametrize("annealed", [False, True])
def test_the_particles_are_the_posterior(annealed, path):
    out = ensemble(particles=4000, steps=100, annealed=annealed, path=path)
    mean, covariance = moments(out)
    assert torch.allclose(mean, EXACT.mean, atol=0.13)
    assert torch.allclose(covariance, EXACT.covariance, atol=0.13)
    assert out.stats.evaluations == 4000 * (100 + 99)


def test_the_sde_form_is_the_posterior_where_its_levels_are_fine():
    """Its explicit step is stable for D‖A‖²/σ_y² below 1, which a small first level and mild noise give."""
    seen = Measurement(Matrix(MATRIX, (2,)), Y, Gaussian(1.5))
    exact = WORLD.posterior(MATRIX, Y[0], 1.5)
    out = ensemble(seen, form="sde", particles=3000, steps=400, annealed=True)
    mean, covariance = moments(out)
    assert torch.allclose(mean, exact.mean, atol=0.12)
    assert torch.allclose(covariance, exact.covariance, atol=0.2)


@pytest.mark.parametrize("form", ["sde", "ode"])
def test_one_step_takes_the_family_to_its_next_member(form):
    """Particles of q at one level, drawn exactly, are q at the next after a step; a wrong sign is off by a tenth."""
    path, variance, sigma = VE(1.0), 0.3, 0.5
    seen = Measurement(Matrix(torch.ones(1, 1), (1,)), torch.tensor([[1.5]], dtype=torch.float64), Gaussian(sigma))
    method = AFDPS(seen, 60000, 500, form, sigma_max=1.0, sigma_min=0.01)
    den = WorldOfOne(torch.zeros(1), variance * torch.eye(1)).denoiser(path)
    session = prepare(den, 1, plan=method.opening(path), dtype=torch.float64)
    ensemble = _Ensemble(method, widened(session, 60000, False), 1)

    def member(ratio):
        precision = 1 / (variance + ratio**2) + 1 / sigma**2
        return 1.5 / sigma**2 / precision, 1 / precision

    mean, spread = member(ensemble.ratio[0])
    generator = torch.Generator().manual_seed(0)
    ensemble.z = mean + spread**0.5 * torch.randn(60000, 1, dtype=torch.float64, generator=generator)
    ensemble.predict(0)
    w, z = ensemble.weights.shares[0], ensemble.z[:, 0]
    mean, spread = member(ensemble.ratio[1])
    assert float((w * z).sum()) == pytest.approx(mean, abs=0.01)
    assert float((w * (z - mean) ** 2).sum()) == pytest.approx(spread, rel=0.025)


def test_weights_and_corrections_are_both_needed():
    bare = ensemble(particles=3000, steps=100, corrections=0)
    assert float(bare.particles[0].unique(dim=0).shape[0]) < 2700
    out = ensemble(particles=3000, steps=100, below=0.0)
    assert float((moments(out)[0] - EXACT.mean).norm()) < 0.08
    assert float((out.particles[0].mean(0) - EXACT.mean).norm()) > 0.12


def test_the_error_falls_with_particles():
    errors = []
    for k in (16, 256):
        out = ensemble(n=24, particles=k, steps=60, corrections=3)
        means = (out.weights.shares[..., None] * out.particles).sum(1)
        errors.append(float((means - means.mean(0)).square().mean().sqrt()))
    assert 2.5 < errors[0] / errors[1] < 6.0


def test_a_run_is_the_same_alone_and_rows_of_a_measurement_are_runs():
    two = Measurement(SEEN.operator, torch.tensor([[0.9], [-2.0]], dtype=torch.float64), Gaussian(NOISE))
    one = Measurement(SEEN.operator, two.y[1:], Gaussian(NOISE))
    whole = ensemble(two, n=2, particles=6, steps=12)
    alone = ensemble(one, n=1, first=1, particles=6, steps=12)
    assert bool(ensemble(one, particles=1, steps=12).x.isfinite().all())
    assert torch.allclose(whole.particles[1:], alone.particles)


def test_an_operator_that_is_not_linear_goes_with_the_annealed_flow():
    seen = Measurement(Clipping(0.5), torch.tensor([[0.5, 0.2]], dtype=torch.float64), Gaussian(0.3))
    out = ensemble(seen, particles=2000, steps=80, annealed=True)
    x = WORLD.sample(200000, seed=1)
    w = (-0.5 * seen.residual(x).square().sum(1) / 0.09).softmax(0)[:, None]
    assert torch.allclose(moments(out)[0], (w * x).sum(0), atol=0.12)


@pytest.mark.parametrize(
    "bad",
    [
        {"particles": 0}, {"steps": 1}, {"form": "pde"}, {"corrections": -1}, {"step_size": 0.0}, {"pick": "first"},
        {"below": -1.0}, {"norm": 0.0}, {"resample": "most"},
    ],
)  # fmt: skip
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ArgumentError):
        AFDPS(SEEN, **bad)


def test_bad_measurements_and_options_are_refused():
    clipped = Measurement(Clipping(0.5), Y, Gaussian(0.1))
    for measurement, parameters in ((None, {}), (Measurement(SEEN.operator, Y), {}), (clipped, {})):
        with pytest.raises(ArgumentError):
            AFDPS(measurement, **parameters)
    with pytest.raises(ArgumentError, match="no steps"):
        sample(WORLD.denoiser(VE(8.0)), 1, search=AFDPS(SEEN), steps=5)
    three = Measurement(SEEN.operator, Y.repeat(3, 1), Gaussian(NOISE))
    with pytest.raises(ArgumentError, match="3 rows for 2 runs"):
        ensemble(three, n=2)
