"""Noise-refined guidance: exact at every answer where data are an isotropic Gaussian, and linear in its weight."""

import math

import pytest
import torch

from fewstep.errors import ArgumentError
from fewstep.guidance import Ask
from fewstep.paths import VP
from fewstep.restoration import Gaussian as Noise
from fewstep.restoration import Matrix, Measurement, PhaseRetrieval
from fewstep.restoration.noise_refined import NoiseRefined
from fewstep.worlds import Gaussian

MATRIX = torch.tensor([[1.0, 0.5, -0.3], [0.2, -1.0, 0.4]], dtype=torch.float64)
SEEN = Measurement(Matrix(MATRIX, (3,)), torch.tensor([[0.7, -0.4]], dtype=torch.float64), Noise(0.9))
MEAN, VARIANCE, ALPHA, SIGMA = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64), 0.25, 0.6, 0.8


def question():
    """(what is asked at x, what the network answers)."""
    t = VP().t_of_lam(math.log(ALPHA / SIGMA))
    denoiser = Gaussian(MEAN, VARIANCE).denoiser(VP())
    x = torch.tensor([[0.4, -1.1, 0.9]], dtype=torch.float64)
    return Ask(x, t, t / 2, 0, 2, denoiser, lambda slot: x, lambda *a: x, {}), denoiser(x, t)


def test_the_answer_is_the_mean_of_x0_given_the_state_and_the_measurement():
    ask, x0 = question()
    # Two Gaussian sights of x₀ ~ N(MEAN, VARIANCE): the state, and what was measured.
    precision = (1 / VARIANCE + ALPHA**2 / SIGMA**2) * torch.eye(3, dtype=torch.float64) + MATRIX.mT @ MATRIX / 0.9**2
    told = MEAN / VARIANCE + ALPHA / SIGMA**2 * ask.x[0] + MATRIX.mT @ SEEN.y[0] / 0.9**2
    got = NoiseRefined(SEEN, data_variance=VARIANCE).answer(ask, x0, None)[0]
    assert torch.allclose(got[0], torch.linalg.solve(precision, told), atol=1e-9)


def test_the_weight_is_a_factor_of_the_correction():
    ask, x0 = question()
    one, three = (NoiseRefined(SEEN, weight=w).answer(ask, x0, None)[0] - x0 for w in (1.0, 3.0))
    assert float(one.norm()) > 0.1
    assert torch.allclose(three, 3 * one, rtol=1e-12)


@pytest.mark.parametrize("wrong", [{"weight": -0.1}, {"weight": math.nan}, {"data_variance": 0.0}])
def test_bad_parameters_are_refused(wrong):
    with pytest.raises(ArgumentError, match="weight must be a"):
        NoiseRefined(SEEN, **wrong)


def test_an_operator_that_is_not_linear_is_refused():
    operator = PhaseRetrieval()
    seen = Measurement(operator, operator.A(torch.ones(1, 1, 8, 8)), Noise(0.1))
    with pytest.raises(ArgumentError, match="noise-refined"):
        NoiseRefined(seen)
