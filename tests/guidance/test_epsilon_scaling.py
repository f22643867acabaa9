"""Epsilon scaling: the noise is divided, steps are counted from the end, and 1 is the identity."""

from itertools import pairwise

import pytest
import torch

from fewstep import VE, VP, Flow, make_plan, sample
from fewstep.errors import ArgumentError
from fewstep.guidance.epsilon_scaling import EpsilonScaling
from fewstep.worlds import Gaussian

PATHS = [VP(), VE(), Flow()]
M = torch.tensor([0.5, -1.0], dtype=torch.float64)
C = torch.tensor([0.02, 0.3], dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("slope", [0.0, 0.02])
def test_ddim_with_its_noise_divided(path, slope):
    """The loop of the paper: x̂₀ = (x − σε̂/λ)/α and x′ = α′x̂₀ + σ′ε̂/λ, λ = 1.1 + slope·(steps still to take)."""
    denoiser = Gaussian(M, C).denoiser(path)
    times = [0.9, 0.6, 0.3, 0.1]
    x = start = torch.tensor([[0.3, -0.8], [1.5, 0.1]], dtype=torch.float64) * float(path.sigma(0.9))
    for i, (t, t_next) in enumerate(pairwise(times)):
        noise = (x - path.alpha(t) * denoiser(x, t)) / path.sigma(t) / (1.1 + slope * (2 - i))
        x = path.alpha(t_next) * (x - path.sigma(t) * noise) / path.alpha(t) + path.sigma(t_next) * noise
    ours = sample(denoiser, start=start, plan=make_plan(path, "ddim", times), guides=[EpsilonScaling(1.1, slope)])
    assert torch.allclose(ours.x, x, rtol=1e-9)
    assert ours.stats.evaluations == 3


@pytest.mark.parametrize("solver", ["ddim", "heun", "dpm-solver++"])
def test_at_one_it_is_the_identity(solver):
    denoiser = Gaussian(M, C).denoiser(VP(), "eps")
    start = torch.tensor([[0.3, -0.8]], dtype=torch.float64)
    plan = make_plan(VP(), solver, "logsnr", 5)
    guided = sample(denoiser, start=start, plan=plan, guides=[EpsilonScaling(1.0)]).x
    assert torch.allclose(guided, sample(denoiser, start=start, plan=plan).x, rtol=1e-12)


def test_pure_noise_at_the_start_leaves_the_answer():
    """On the flow path α = 0 at t = 1: one step to the data is the plain answer, and nothing is infinite."""
    denoiser = Gaussian(M, C).denoiser(Flow())
    start = torch.tensor([[0.3, -0.8]], dtype=torch.float64)
    one = sample(denoiser, start=start, plan=make_plan(Flow(), "ddim", [1.0, 0.0]), guides=[EpsilonScaling(1.3)]).x
    assert torch.allclose(one, denoiser(start, 1.0), rtol=1e-12)
    assert sample(denoiser, 2, solver="heun", steps=4, guides=[EpsilonScaling(1.3)]).x.isfinite().all()


def test_places_have_their_own_times():
    denoiser = Gaussian(M, C).denoiser(VP())
    start = torch.tensor([[0.3, -0.8], [0.7, 0.2]], dtype=torch.float64)
    rows = torch.tensor([[0.9, 0.7], [0.4, 0.5], [0.1, 0.1]], dtype=torch.float64)
    both = sample(denoiser, start=start, plan=make_plan(VP(), "ddim", rows[..., None]), guides=[EpsilonScaling(1.1)]).x
    for i in range(2):
        plan = make_plan(VP(), "ddim", rows[:, i])
        alone = sample(denoiser, start=start[i : i + 1], plan=plan, guides=[EpsilonScaling(1.1)]).x
        assert torch.allclose(both[i : i + 1], alone, rtol=1e-10)


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="scale must be"):
        EpsilonScaling(0.0)
    with pytest.raises(ArgumentError, match="slope must be"):
        EpsilonScaling(1.0, -0.1)
