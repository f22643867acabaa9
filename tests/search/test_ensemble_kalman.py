"""EnKG: its correction is Kalman's, it stays in its span, finds posterior means, and never asks for a slope."""

import numpy as np
import pytest
import torch

from fewstep import VE, VP, sample
from fewstep.errors import ArgumentError, NumericalError
from fewstep.search import EnKG
from fewstep.search.ensemble_kalman import _Kalman
from fewstep.search.particles import widened
from fewstep.session import prepare
from fewstep.worlds import Gaussian, GaussianMixture

GENERATOR = torch.Generator().manual_seed(0)
ROOT = torch.randn(4, 4, generator=GENERATOR, dtype=torch.float64)
WORLD = Gaussian(torch.randn(4, generator=GENERATOR, dtype=torch.float64), ROOT @ ROOT.mT / 4 + 0.1 * torch.eye(4))
MATRIX = torch.randn(2, 4, generator=GENERATOR, dtype=torch.float64)
Y = WORLD.sample(1, seed=3) @ MATRIX.mT + 0.2 * torch.randn(1, 2, generator=GENERATOR, dtype=torch.float64)


def forward(x):
    """A black box: the tensor leaves torch, so that no gradient could be had."""
    return torch.from_numpy(np.asarray(x.double()) @ MATRIX.numpy().T)


def kalman(particles=12, steps=20, **parameters):
    method = EnKG(forward, Y, particles, scaled=False, steps=steps, **parameters)
    path = VE(80.0)
    session = prepare(WORLD.denoiser(path), 1, plan=method.opening(path), dtype=torch.float64)
    return method, _Kalman(method, widened(session, particles, False))


def test_a_correction_is_the_preconditioned_gradient_where_all_is_affine():
    _, run = kalman(weight=0.3, updates=1, skip_first=0.0, inner=1)
    z, t = run.z.clone(), run.plan.times[0]
    run.correct(0)
    x0, spread = WORLD.denoise(z, VE(80.0), t), z - z.mean(0)
    slope = torch.autograd.functional.jacobian(lambda v: WORLD.denoise(v[None], VE(80.0), t)[0], z[0])
    gradient = (x0 @ MATRIX.mT - Y) @ MATRIX @ slope
    move = -gradient @ (spread.mT @ spread) / 12
    moved = run.z - z
    assert torch.allclose(moved / moved.norm(), move / move.norm(), atol=1e-8)
    c = (x0 @ MATRIX.mT - Y) @ ((x0 - x0.mean(0)) @ MATRIX.mT).mT / 12
    assert torch.allclose(moved, move * 0.3 / c.norm(), atol=1e-8)


def test_particles_never_leave_their_span():
    _, run = kalman(particles=3, weight=0.5)
    z = run.z.clone()
    run.correct(1)
    spread = z - z.mean(0)
    across = torch.linalg.svd(spread, full_matrices=True).Vh[2:]
    assert torch.allclose((run.z - z.mean(0)) @ across.mT, torch.zeros(3, 2, dtype=torch.float64), atol=1e-10)


@pytest.mark.parametrize("path", [VE(80.0), VP()], ids=lambda p: p.kind)
def test_the_ensemble_gathers_at_the_posterior_mean(path):
    exact = WORLD.posterior(MATRIX, Y[0], 0.2)
    out = sample(
        WORLD.denoiser(path), 1, search=EnKG(forward, Y, 96, 0.08, scaled=False, steps=50, inner=8),
        dtype=torch.float64,
    )  # fmt: skip
    x = out.particles[0]
    assert float((x.mean(0) - exact.mean).norm()) < 0.3
    assert float((WORLD.mean - exact.mean).norm()) > 0.9
    assert float((x @ MATRIX.mT - Y).square().mean().sqrt()) < 0.35
    assert float(out.rewards) == pytest.approx(float(out.scores.max()))


def test_the_weight_decides_what_is_found_and_the_papers_own_diverges_in_few_dimensions():
    """.02 does not reach the data, .05 does, and 2, the weight of 16,384 numbers, leaves the prior."""
    exact, off, misfit = WORLD.posterior(MATRIX, Y[0], 0.2), {}, {}
    for weight in (0.02, 0.05, 2.0):
        search = EnKG(forward, Y, 64, weight, scaled=False, inner=8)
        x = sample(WORLD.denoiser(VE(80.0)), 1, search=search, dtype=torch.float64).particles[0]
        off[weight] = float((x.mean(0) - exact.mean).norm())
        misfit[weight] = float((x @ MATRIX.mT - Y).square().mean().sqrt())
    assert off[0.05] < 0.3
    assert off[2.0] > 6
    assert misfit[0.02] > 0.5 > 0.35 > misfit[0.05]


def test_kalmans_own_steps_are_the_posterior_spread_and_all():
    """Whether at few levels or at many with a part of the likelihood each; by the paper's rule σ_y is nowhere."""
    exact = WORLD.posterior(MATRIX, Y[0], 0.2)
    seen = (MATRIX @ exact.covariance @ MATRIX.mT).diagonal().sqrt()
    for updates, steps in ((1, 30), (2, 40)):
        search = EnKG(forward, Y, 400, updates=updates, steps=steps, skip_first=0.5, skip_last=0.2, noise=0.2)
        x = sample(WORLD.denoiser(VE(80.0)), 1, search=search, dtype=torch.float64).particles[0]
        assert torch.allclose(x.mean(0), exact.mean, atol=0.25)
        assert torch.allclose(x.std(0), exact.covariance.diagonal().sqrt(), rtol=0.2)
        assert torch.allclose((x @ MATRIX.mT).std(0), seen, rtol=0.2)
    wide = EnKG(forward, Y, 400, updates=1, steps=30, skip_first=0.5, skip_last=0.2, noise=50.0)
    x = sample(WORLD.denoiser(VE(80.0)), 1, search=wide, dtype=torch.float64).particles[0]
    assert torch.allclose(x.std(0), WORLD.covariance.diagonal().sqrt(), rtol=0.15)


def test_the_papers_settings_call_the_box_as_often_as_told():
    """About 295,000 calls with 2,048 particles: 144 for each, two at 72 corrected levels, and ours a last one."""
    search = EnKG(forward, Y, 2, inner=1)
    out = sample(WORLD.denoiser(VE(80.0)), 1, search=search)
    assert out.stats.rewards == 2 * (2 * 72 + 1)


def test_a_black_box_that_is_not_linear_is_fitted():
    world = GaussianMixture([0.5, 0.5], torch.tensor([[-1.0] * 3, [1.0] * 3]), torch.full((2, 1), 0.3))
    product = lambda x: torch.stack([x[:, 0] * x[:, 1], (x[:, 2] > 0).to(x) + 0.1 * x[:, 2]], 1)  # noqa: E731
    y = torch.tensor([[1.2, 1.1]])
    out = sample(world.denoiser(VE(80.0)), 2, search=EnKG(product, y, 48, 0.1, scaled=False, steps=40, inner=6))
    plain = product(world.sample(5000, seed=1))
    misfit = (product(out.particles.flatten(0, 1)) - y).square().sum(1).mean()
    assert float(misfit) < 0.15 * float((plain - y).square().sum(1).mean())
    alone = sample(
        world.denoiser(VE(80.0)), 1, search=EnKG(product, y, 48, 0.1, scaled=False, steps=40, inner=6), first=1
    )
    assert torch.allclose(out.particles[1:].mean(1), alone.particles.mean(1), atol=2e-3)


def test_costs_are_counted():
    """Levels 1 … 8 of 10 are corrected twice by inner flows of 1 + (10 − i)//4 steps, at most 2; then one for each."""
    search = EnKG(forward, Y, 5, 0.05, scaled=False, steps=10, inner=2, skip_first=0.1, skip_last=0.1)
    out = sample(WORLD.denoiser(VE(80.0)), 1, search=search, dtype=torch.float64)
    assert out.stats.evaluations == 5 * (2 * (6 * 2 + 2 * 1) + 10)
    assert out.stats.rewards == 5 * (2 * 8 + 1)


@pytest.mark.parametrize(
    "bad",
    [
        {"particles": 1}, {"weight": 0.0}, {"updates": 0}, {"steps": 1}, {"inner": 0}, {"skip_first": -0.1},
        {"least": 2.0}, {"noise": 0.0}, {"y": torch.zeros(2)}, {"forward": 3},
    ],
)  # fmt: skip
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ArgumentError):
        EnKG(**{"forward": forward, "y": Y, **bad})


def test_bad_answers_of_the_black_box_are_refused():
    for box, error in ((lambda x: x, ArgumentError), (lambda x: forward(x) * torch.nan, NumericalError)):
        with pytest.raises(error):
            sample(WORLD.denoiser(VE(80.0)), 1, search=EnKG(box, Y, 4, steps=4))
    with pytest.raises(ArgumentError, match="takes no start"):
        sample(WORLD.denoiser(VE(80.0)), search=EnKG(forward, Y, 4, steps=4), start=torch.zeros(1, 4))
    with pytest.raises(ArgumentError, match="one or all"):
        sample(WORLD.denoiser(VE(80.0)), 3, search=EnKG(forward, Y.repeat(2, 1), 4, steps=4))
