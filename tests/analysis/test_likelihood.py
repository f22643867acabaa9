"""Likelihood by the flow, the equation of Fokker and Planck, and dimension from scores: against exact worlds."""

import pytest
import torch

from fewstep import VE, VP, Cosine, Flow
from fewstep.analysis import Gauged, fokker_planck_residual, log_likelihood, turned
from fewstep.analysis.normal_directions import score_dimension
from fewstep.errors import ArgumentError
from fewstep.worlds import Gaussian, GaussianMixture

MEANS = torch.tensor([[-0.6, 0.5, 0.1], [0.8, -0.1, 0.3]], dtype=torch.float64)
WORLD = GaussianMixture([0.3, 0.7], MEANS, torch.tensor([[0.06, 0.1, 0.2], [0.16, 0.05, 0.1]]))
PATHS = [VP(), VE(), Flow(), Cosine()]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_the_flow_finds_the_exact_density(path):
    x = WORLD.sample(6, seed=1).double()
    want = WORLD.log_density(x, path, 0.0)
    assert torch.allclose(log_likelihood(WORLD.denoiser(path), x), want, atol=5e-4)


def test_probes_are_right_on_average_and_a_gauge_changes_nothing():
    path = VP()
    x = WORLD.sample(4, seed=2).double()
    exact = log_likelihood(WORLD.denoiser(path), x, steps=60)
    runs = torch.stack([log_likelihood(WORLD.denoiser(path), x, 60, probes=8, seed=s) for s in range(8)])
    assert torch.allclose(runs.mean(0), exact, atol=0.25)
    assert bool((runs.std(0) > 0.01).all())
    matrix = 0.3 * torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.5], [0.0, -0.5, 0.0]], dtype=torch.float64)
    gauged = log_likelihood(Gauged(WORLD.denoiser(path), turned(matrix)), x, steps=120, reach=6.0)
    assert torch.allclose(gauged, exact, atol=0.02)
    wrong = log_likelihood(Gauged(WORLD.denoiser(path), lambda x, t, s: 0.3 * x), x, steps=120, reach=6.0)
    assert float((wrong - exact).abs().min()) > 0.05


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_exact_scores_belong_to_one_law_and_others_do_not(path):
    t = 0.4
    x = path.alpha(t) * WORLD.sample(5, seed=3).double() + path.sigma(t) * torch.randn(
        5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    assert float(fokker_planck_residual(WORLD.denoiser(path), x, t).max()) < 1e-4
    wrong = Gauged(WORLD.denoiser(path), lambda x, at, s: 0.1 * s)
    assert float(fokker_planck_residual(wrong, x, t).min()) > 1e-3


def test_dimension_of_planes_and_the_size_of_the_score():
    spectrum = torch.tensor([1.0, 0.5, 0.2, 0.0, 0.0, 0.0], dtype=torch.float64)
    for path in (VP(), VE()):
        den = Gaussian(torch.zeros(6), torch.diag(spectrum)).denoiser(path)
        x = spectrum.sqrt() * torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        dims, values = score_dimension(den, x, draws=200)
        assert dims.tolist() == [3, 3, 3]
        # E‖√h·s‖² = D − d as h falls.
        assert torch.allclose(values.square().sum(1), torch.full((3,), 3.0, dtype=torch.float64), rtol=0.15)


def test_bad_arguments():
    den, x = WORLD.denoiser(VP()), torch.zeros(1, 3, dtype=torch.float64)
    for options, match in (({"steps": 0}, "steps"), ({"probes": -1}, "probes"), ({"reach": -9.0}, "reach")):
        with pytest.raises(ArgumentError, match=match):
            log_likelihood(den, x, **options)
    for call in (log_likelihood, score_dimension):
        with pytest.raises(ArgumentError, match="shape"):
            call(den, torch.zeros(1, 2, dtype=torch.float64))
    with pytest.raises(ArgumentError, match="shape"):
        fokker_planck_residual(den, torch.zeros(1, 2), 0.5)
    for t in (0.0, 1.0):
        with pytest.raises(ArgumentError, match="t must"):
            fokker_planck_residual(den, x, t)
    for options, match in (({"draws": 2}, "draws"), ({"level": 0.0}, "level"), ({"level": 1e9}, "level")):
        with pytest.raises(ArgumentError, match=match):
            score_dimension(den, x, **options)
