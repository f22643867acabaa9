"""Fitting finds the mixture that the data came from; the shipped one is what it says."""

import pytest
import torch

from fewstep import VP, load, sample
from fewstep.errors import ArgumentError, WeightsError
from fewstep.loading import ASSETS
from fewstep.worlds import GaussianMixture
from fewstep.worlds.low_rank import fit_low_rank, read_world, write_world


def known(seed=0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.linalg.qr(torch.randn(4, 12, 2, dtype=torch.float64, generator=generator))[0]
    means = 3 * torch.randn(4, 3, 4, dtype=torch.float64, generator=generator)
    spread = torch.tensor([[2.0, 0.7]] * 4, dtype=torch.float64)
    return GaussianMixture([0.1, 0.2, 0.3, 0.4], means, torch.full((4, 1), 0.05), u, spread, [0, 0, 1, 1])


def test_em_finds_the_mixture():
    world = known()
    data = torch.cat([world.sample(1500, seed=k, label=k) for k in (0, 1)])
    labels = torch.arange(2).repeat_interleave(1500)
    fitted = fit_low_rank(data, labels, components=2, rank=2, rounds=10)
    assert fitted.component_labels.tolist() == [0, 0, 1, 1]
    for label, kept in ((0, [0, 1]), (1, [2, 3])):
        mine = [k for k in range(4) if int(fitted.component_labels[k]) == label]
        for k in kept:
            at = min(mine, key=lambda j: float((fitted.means[j] - world.means[k]).norm()))
            assert torch.allclose(fitted.means[at], world.means[k], atol=0.15)
            assert torch.allclose(fitted.component_covariance(at), world.component_covariance(k), atol=0.2)
            share = float(world.weights[k] / world.weights[kept].sum()) / 2
            assert float(fitted.weights[at]) == pytest.approx(share, abs=0.02)


def test_more_rounds_never_lower_the_likelihood():
    world = known(1)
    data, labels = world.sample(600, seed=5), torch.zeros(600, dtype=torch.int64)
    logs = [
        float(fit_low_rank(data, labels, components=4, rank=2, rounds=n).log_density(data, VP(), 0.0).mean())
        for n in (1, 3, 9)
    ]
    assert logs[0] <= logs[1] + 1e-3 <= logs[2] + 2e-3


def test_a_world_goes_through_its_file(tmp_path):
    world = known()
    write_world(tmp_path / "w.safetensors", world, {"path": VP().to_json(), "range": [-3, 3]})
    back = read_world(tmp_path / "w.safetensors")
    x = world.sample(20, seed=3)
    assert torch.allclose(back.log_density(x, VP(), 0.3), world.log_density(x, VP(), 0.3), atol=0.02)
    denoiser = load(tmp_path / "w.safetensors")
    assert denoiser.limits == (-3, 3)
    assert denoiser.null == {"label": 2}


def test_the_shipped_world_is_whole():
    file = ASSETS / "cifar10-lowrank.safetensors"
    assert file.stat().st_size <= 4 * 2**20
    denoiser = load("cifar10-lowrank")
    world = denoiser.world
    assert denoiser.shape == (3, 32, 32)
    assert len(world.means) >= 10
    assert world.basis.shape[-1] >= 24
    assert set(world.component_labels.tolist()) == set(range(10))
    eye = torch.eye(world.basis.shape[-1], dtype=torch.float64)
    assert torch.allclose(world.basis.mT @ world.basis, eye.expand(len(world.means), -1, -1), atol=1e-12)
    out = sample(denoiser, 2, steps=3, cond={"label": [3, 10]})
    assert out.x.shape == (2, 3, 32, 32)
    assert out.x.abs().max() < 4


def test_bad_data_and_bad_files_are_refused(tmp_path):
    data = torch.zeros(10, 5)
    with pytest.raises(ArgumentError, match="rank must be 1 … 4"):
        fit_low_rank(data, torch.zeros(10).long(), rank=5)
    with pytest.raises(ArgumentError, match="class 0 has 10 samples"):
        fit_low_rank(data, torch.zeros(10).long(), rank=4, components=3)
    with pytest.raises(WeightsError, match="is a 'fewstep-model'"):
        read_world(ASSETS / "mnist.safetensors")
    short = (ASSETS / "cifar10-lowrank.safetensors").read_bytes()[:100_000]
    (tmp_path / "short.safetensors").write_bytes(short)
    with pytest.raises(WeightsError, match="not a whole safetensors"):
        load(tmp_path / "short.safetensors")
