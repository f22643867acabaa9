"""Steered diffusion's repeats are a plan that goes up again by a level: they keep the law, and bring the rest along."""

import pytest
import torch

from fewstep import VP, make_plan, sample
from fewstep.analysis import gaussian_output
from fewstep.errors import ArgumentError
from fewstep.guidance import SteeredLinear
from fewstep.solvers.resampling import Resampling
from fewstep.worlds import GaussianMixture

PATH = VP()
TIMES = PATH.t_of_lam(torch.linspace(-4, 3, 31, dtype=torch.float64))


def test_repeats_cost_what_they_should_and_keep_the_law_of_the_data():
    c, m = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64), torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64)
    t = TIMES[-1]
    want = PATH.alpha(t) ** 2 * c + PATH.sigma(t) ** 2
    errors = []
    for repeats in (1, 4):
        plan = make_plan(PATH, Resampling(1, repeats), TIMES)
        if repeats == 1:
            ancestral = make_plan(PATH, "ddpm", TIMES)
            for mine, theirs in ((plan.M, ancestral.M), (plan.B, ancestral.B), (plan.N, ancestral.N)):
                assert torch.allclose(mine.value, theirs.value, rtol=1e-12)
        assert plan.evaluations == 1 + 29 * repeats
        mean, variance = gaussian_output(plan, c, m, exact_start=True)[:2]
        assert torch.allclose(mean, PATH.alpha(t) * m, atol=0.02)
        assert torch.allclose(variance, want, rtol=0.35)
        errors.append(float((variance / want - 1).abs().max()))
    assert errors[1] < errors[0] * 1.5
    # The noise of a step up is √β and not β: with the latter the law would be far too narrow.
    assert errors[0] < 0.3


def test_repeats_bring_the_hidden_part_to_the_exact_posterior():
    """Of two numbers of correlation 0.9 one is known: the other's mean and variance are."""
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    world = GaussianMixture.full([1.0], torch.zeros(1, 2), covariance[None])
    known = torch.tensor([[1.5]], dtype=torch.float64)

    def forward(x):
        return x[:, :1]

    def backward(y):
        return torch.cat([y, torch.zeros_like(y)], 1)

    guide = SteeredLinear(forward, backward, known)
    missed = []
    for repeats in (1, 8):
        plan = make_plan(PATH, Resampling(1, repeats), torch.cat([TIMES, torch.zeros(1, dtype=torch.float64)]))
        x = sample(world.denoiser(PATH), 2000, plan=plan, guides=[guide], seed=0, dtype=torch.float64).x
        assert torch.allclose(x[:, 0], known[0].expand(2000), atol=1e-9)
        missed.append(abs(float(x[:, 1].mean()) - 1.35))
    assert missed[1] < 0.5 * missed[0]
    assert missed[1] < 0.1


def test_the_catalogue_knows_the_repeats_and_refuses_none():
    plan = make_plan(PATH, "resampling", TIMES)
    assert torch.equal(plan.times, make_plan(PATH, Resampling(1, 2), TIMES).times)
    for bad in ({"jump_length": 0}, {"repeats": 0}, {"repeats": 1.5}):
        with pytest.raises(ArgumentError, match=r"at least 1|whole number"):
            Resampling(**bad)
