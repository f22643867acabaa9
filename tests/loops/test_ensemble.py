"""Energies as denoisers: exact on the reference, converging elsewhere, unbiased pools; and the ensemble that learns."""

import math

import pytest
import torch

from fewstep import CFG, VP, Flow, sample
from fewstep.denoisers.energy import EnergyDenoiser, Reference
from fewstep.errors import ArgumentError
from fewstep.loops import loop_named
from fewstep.loops.ensemble import EnsembleScore, _Learning
from fewstep.metrics import sliced_w2
from fewstep.worlds import Gaussian, GaussianMixture

MIXTURE = GaussianMixture.full(
    [0.3, 0.7],
    torch.tensor([[-0.6, 0.8], [0.7, -0.4]], dtype=torch.float64),
    torch.tensor([[[0.2, 0.1], [0.1, 0.3]], [[0.15, -0.1], [-0.1, 0.2]]], dtype=torch.float64),
)


def energy_of(world, calls=None):
    def energy(x):
        if calls is not None:
            calls.append(len(x))
        return -world.log_density(x, VP(), 0.0)

    return energy


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
def test_the_answer_is_exact_where_p_is_the_reference(path, pooled):
    """Alone by the pairs' symmetry, at any J; pooled the weights are exact but the draws are not symmetric in x."""
    a = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
    mean = torch.tensor([0.4, -0.3], dtype=torch.float64)
    world = Gaussian(mean, a)
    den = EnergyDenoiser(energy_of(world), path, (2,), 4000 if pooled else 2, Reference(mean, a), pooled)
    for t in (1.0, 0.6, 0.2):
        x = torch.tensor([[0.3, -1.0], [1.5, 0.2]], dtype=torch.float64)
        tolerance = 0.05 if pooled else 1e-9
        assert torch.allclose(den(x, t), world.denoise(x, path, t), atol=tolerance)


@pytest.mark.parametrize("pooled", [False, True])
def test_the_error_falls_as_one_over_the_root_of_the_draws(pooled):
    x = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact, errors = MIXTURE.denoise(x, VP(), 0.4), []
    for draws in (16, 1024):
        off = [
            EnergyDenoiser(energy_of(MIXTURE), VP(), (2,), draws, pooled=pooled, seed=s)(x, 0.4) - exact
            for s in range(20)
        ]
        errors.append(float(torch.stack(off).square().mean().sqrt()))
    assert math.log(errors[0] / errors[1]) / math.log(64) == pytest.approx(0.5, abs=0.15)
    many = EnergyDenoiser(energy_of(MIXTURE), VP(), (2,), 20000 if pooled else 200000, pooled=pooled)
    assert torch.allclose(many(x, 0.4), exact, atol=0.01)


def test_sharing_draws_is_worth_it():
    x = MIXTURE.sample(50, seed=1) * 0.8 + 0.6 * torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    t = float(VP().t_of_lam(math.log(0.8 / 0.6)))
    exact = MIXTURE.denoise(x, VP(), t)
    error = {
        pooled: float((EnergyDenoiser(energy_of(MIXTURE), VP(), (2,), 8, pooled=pooled)(x, t) - exact).square().mean())
        for pooled in (False, True)
    }
    assert error[True] < error[False] / 3


def test_alone_rows_are_rows_and_pooled_ones_are_not():
    den = EnergyDenoiser(energy_of(MIXTURE), VP(), (2,), 8)
    whole = sample(den, 6, solver="ddim", grid="uniform", steps=5, seed=2, dtype=torch.float64).x
    alone = sample(den, 1, solver="ddim", grid="uniform", steps=5, seed=2, first=3, dtype=torch.float64).x
    assert torch.allclose(whole[3:4], alone, rtol=1e-9)
    loop = EnsembleScore(steps=5)
    assert loop.couples
    whole = loop(den, 6, seed=2, dtype=torch.float64).x
    assert not torch.allclose(whole[3:4], loop(den, 1, seed=2, first=3, dtype=torch.float64).x, rtol=1e-3)
    assert torch.equal(whole, loop(den, 6, seed=2, dtype=torch.float64).x)


def test_the_ensembles_gaussian_finds_the_moments():
    mean = torch.tensor([0.5, -0.4], dtype=torch.float64)
    covariance = torch.tensor([[0.3, 0.2], [0.2, 0.4]], dtype=torch.float64)
    den = EnergyDenoiser(energy_of(Gaussian(mean, covariance)), VP(), (2,), 16)
    out = loop_named("ensemble", steps=10)(den, 200, dtype=torch.float64)
    assert torch.allclose(out.stats.reference.mean, mean, atol=0.1)
    assert torch.allclose(out.stats.reference.covariance, covariance, atol=0.1)
    assert torch.allclose(out.x.mean(0), mean, atol=0.15)


def test_one_step_of_learning_by_hand():
    den = EnergyDenoiser(energy_of(MIXTURE), VP(), (2,), 4, pooled=True)
    x, t = torch.randn(3, 2, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)
    weighed, learning = den.weigh(x, t), _Learning(den)
    answer = learning.raw(x, t)
    v = weighed.target.exp() / weighed.target.exp().sum()
    effective = 1 / v.square().sum()
    step = effective / (effective + 4)
    draws = weighed.draws[0]
    second = (1 - step) * torch.eye(2) + step * torch.einsum("j,ja,jb->ab", v, draws, draws)
    mean = step * (v[:, None] * draws).sum(0)
    assert torch.allclose(learning.reference.mean, mean)
    assert torch.allclose(learning.reference.covariance, second - mean[:, None] * mean)
    assert torch.allclose(answer, den(x, t))


def test_samples_of_a_mixture_from_its_energy_and_the_count_of_values():
    calls = []
    den = EnergyDenoiser(energy_of(MIXTURE, calls), VP(), (2,), 16)
    out = EnsembleScore(steps=15)(den, 150, dtype=torch.float64)
    assert sum(calls) == 150 * out.stats.evaluations == 150 * 15 * 16
    assert 1 < out.stats.effective <= 150 * 16
    truth = MIXTURE.sample(4000, seed=1)
    assert float(sliced_w2(out.x, truth)) < 0.2
    assert 0.15 < float((out.x[:, 0] < 0).double().mean()) < 0.5


def test_bad_arguments():
    energy = energy_of(MIXTURE)
    with pytest.raises(ArgumentError, match="EnergyDenoiser"):
        EnsembleScore()(MIXTURE.denoiser(VP()))
    with pytest.raises(ArgumentError, match="draws"):
        EnergyDenoiser(energy, VP(), (2,), 3)
    with pytest.raises(ArgumentError, match="reference has"):
        EnergyDenoiser(energy, VP(), (3,), 4, Reference(torch.zeros(2).double(), torch.eye(2).double()))
    with pytest.raises(ArgumentError, match="positive"):
        Reference(torch.zeros(2).double(), -torch.eye(2).double())
    with pytest.raises(ArgumentError, match="of its size"):
        Reference(torch.zeros(3).double(), torch.eye(2).double())
    with pytest.raises(ArgumentError, match="one time"):
        EnergyDenoiser(energy, VP(), (2,))(torch.zeros(2, 2), torch.tensor([[0.1], [0.2]]))
    with pytest.raises(ArgumentError, match="no conditions"):
        EnsembleScore(steps=2)(EnergyDenoiser(energy, VP(), (2,)), 2, cond={"label": 1}, guides=[CFG(1.0)])
