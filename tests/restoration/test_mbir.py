"""DiffusionMBIR: volumes as stacks of slices, the ADMM iteration in dense matrices, and what the third axis gains."""

import pytest
import torch

from fewstep import VP
from fewstep.errors import ArgumentError
from fewstep.restoration import Gaussian, Mask, Matrix, Measurement, PhaseRetrieval, Tomography, restore
from fewstep.restoration.mbir import MBIR, difference, difference_adjoint, shrunk
from fewstep.restoration.slices import EverySlice, Slices
from fewstep.worlds import Gaussian as GaussianWorld
from fewstep.worlds import GaussianMixture

PICTURES = GaussianMixture(
    [0.5, 0.5], torch.stack([torch.full((1, 4, 4), v) for v in (-0.4, 0.4)]), torch.full((2, 1), 0.05)
)


def test_a_volume_is_asked_slice_by_slice():
    inner = PICTURES.denoiser(VP())
    volume = PICTURES.sample(6, seed=1).reshape(2, 3, 1, 4, 4)
    want = inner(volume.flatten(0, 1), 0.4).reshape(volume.shape)
    assert torch.allclose(Slices(inner, 3)(volume, 0.4), want)
    each = torch.tensor([0.2, 0.7], dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    got = Slices(inner, 3)(volume, each)
    assert torch.allclose(got[1], inner(volume[1], 0.7))
    assert torch.allclose(got[0], inner(volume[0], 0.2))


def test_every_slice_has_the_adjoint_and_the_spectrum_of_its_operator():
    generator = torch.Generator().manual_seed(0)
    for operator in (Tomography(4, 3), Mask.half(4, 4)):
        every = EverySlice(operator)
        x = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64, generator=generator)
        y = torch.randn(every.A(x).shape, dtype=torch.float64, generator=generator)
        assert torch.allclose((every.A(x) * y).sum(), (x * every.A_adjoint(y)).sum())
        assert torch.allclose(every.A(x)[1, 2], operator.A(x[1, 2:3])[0])
        assert torch.allclose(every.A(every.A_dagger(every.A(x))), every.A(x), atol=1e-6)
    assert torch.allclose(every.spectral(lambda d: 2 + d, x), 2 * x + every.A(x))


def test_differences_are_periodic_with_their_adjoint():
    generator = torch.Generator().manual_seed(0)
    x, v = torch.randn(2, 2, 5, 3, dtype=torch.float64, generator=generator)
    assert torch.allclose((difference(x) * v).sum(), (x * difference_adjoint(v)).sum())
    assert torch.allclose(difference(x)[:, -1], x[:, 0] - x[:, -1])
    assert shrunk(torch.tensor([-3.0, -0.5, 0.2, 2.0]), 1.0).tolist() == [-2, 0, 0, 1]


def volume_of_numbers():
    matrix = torch.tensor([[1.0, 0.5, -0.3, 0.2], [0.2, -1.0, 0.4, 0.9]], dtype=torch.float64)
    y = torch.tensor([[0.7, -0.4]], dtype=torch.float64)
    return matrix, Measurement(Matrix(matrix, (4,)), y, Gaussian(0.1))


def test_an_iteration_of_admm_by_its_formula():
    matrix, measurement = volume_of_numbers()
    loop = MBIR(measurement, weight=0.3, rho=2.0, iterations=20)
    x, z, w = torch.randn(3, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    d = torch.eye(4, dtype=torch.float64).roll(1, 1) - torch.eye(4, dtype=torch.float64)
    want = torch.linalg.solve(
        matrix.mT @ matrix + 2 * d.mT @ d, (measurement.y @ matrix + 2 * (z - w) @ d).mT
    ).mT  # fmt: skip
    got, (z2, w2) = loop.join(x, (z, w))
    assert torch.allclose(got, want, atol=1e-6)
    apart = got @ d.mT
    assert torch.allclose(z2, shrunk(apart + w, 0.15))
    assert torch.allclose(w2, w + apart - z2)


def test_one_iteration_of_conjugate_gradients_never_raises_what_it_lowers():
    matrix, measurement = volume_of_numbers()
    loop = MBIR(measurement, rho=2.0)
    for x, z, w in torch.randn(5, 3, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)):

        def loss(v, z=z, w=w):
            return float(0.5 * (v @ matrix.mT - measurement.y).square().sum() + (difference(v) - z + w).square().sum())

        assert loss(loop.join(x, (z, w))[0]) < loss(x)


@pytest.mark.parametrize("snr", [0.0, 0.16])
def test_predictor_and_corrector_alone_draw_the_prior(monkeypatch, snr):
    world = GaussianWorld(torch.full((2, 1, 8, 8), 0.3), 0.09)
    monkeypatch.setattr(MBIR, "join", lambda self, x, memory: (x, memory))
    measurement = Measurement(Mask(torch.ones(2, 1, 8, 8)), torch.zeros(1, 2, 1, 8, 8))
    x = restore(world.denoiser(VP()), measurement, "mbir", steps=120, samples=30, snr=snr).x
    assert float(x.mean()) == pytest.approx(0.3, abs=0.02)
    assert float(x.std()) == pytest.approx(0.3, abs=0.03)


def phantom():
    """Six equal slices of which each is seen by itself from two angles."""
    truth = PICTURES.sample(1, seed=4)[None].expand(1, 6, 1, 4, 4).clone()
    return truth, Measurement.simulate(EverySlice(Tomography(4, 2)), truth, Gaussian(0.02), seed=1)


def test_total_variation_makes_the_slices_one_volume():
    truth, measurement = phantom()
    spread, error = {}, {}
    for weight in (0.0, 1e-3, 1e-2):
        x = restore(
            Slices(PICTURES.denoiser(VP()), 6), measurement, "mbir", evaluations=120, weight=weight, rho=0.1
        ).x.double()
        spread[weight], error[weight] = float(x.std(1).mean()), float((x - truth).square().mean().sqrt())
    assert spread[1e-2] < 0.5 * spread[1e-3] < 0.5 * spread[0.0]
    assert error[1e-2] < 0.8 * error[0.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: MBIR(m, steps=0), "steps and iterations"),
        (lambda m: MBIR(m, rho=0.0), "rho"),
        (lambda m: MBIR(m, sigma_min=400.0), "sigma_min"),
        (lambda m: MBIR(Measurement(PhaseRetrieval(), m.y)), "linear operator"),
        (lambda m: Slices(PICTURES, 3), "inner must be"),
        (lambda m: Slices(PICTURES.denoiser(VP()), 0), "depth"),
        (lambda m: EverySlice(PhaseRetrieval()), "linear"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call(phantom()[1])
