"""Phase space: the kernel solves its equation, the joint score is exact, and an ordinary state knows all of it."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from fewstep import VP, Flow
from fewstep.errors import ArgumentError
from fewstep.paths.phase_space import PhaseSpace
from fewstep.worlds import GaussianMixture
from fewstep.worlds.phase_space import PhaseSpaceWorld

SPACES = [PhaseSpace(), PhaseSpace(0.4, 1.9, 0.3)]
MEANS = torch.tensor([[-1.0, 0.4], [0.9, -0.2], [0.1, 1.2]], dtype=torch.float64)
WORLD = GaussianMixture(
    [0.2, 0.5, 0.3], MEANS, torch.tensor([[0.05, 0.2], [0.1, 0.1], [0.3, 0.02]], dtype=torch.float64)
)


@pytest.mark.parametrize("space", SPACES)
def test_the_kernel_solves_its_equation(space):
    """μ′ = Fμ and Σ′ = FΣ + ΣFᵀ + GGᵀ, from (1, 0) and diag(0, κM)."""
    g, n, m = space.friction, space.momentum_friction, space.mass
    drift, noise = np.array([[-g, 1 / m], [-1, -n]]) / 2, np.diag([g, m * n])

    def rate(_, state):
        mean, covariance = state[:2], state[2:].reshape(2, 2)
        return np.concatenate([drift @ mean, (drift @ covariance + covariance @ drift.T + noise).ravel()])

    b = np.array([0.03, 0.4, 2.0, 7.0])
    start = np.array([1.0, 0.0, 0.0, 0.0, 0.0, space.start * m])
    want = torch.from_numpy(solve_ivp(rate, (0, 7), start, t_eval=b, rtol=1e-11, atol=1e-13, method="DOP853").y.T)
    assert torch.allclose(space.mean(torch.from_numpy(b)), want[:, :2], rtol=1e-8, atol=1e-10)
    assert torch.allclose(space.covariance(torch.from_numpy(b)).flatten(1), want[:, 2:], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("space", SPACES)
def test_the_seen_state_and_what_it_leaves_open(space):
    """x_seen = α·x₀ + σ·ε at the path's own level, and K·x_seen + r·ξ has the law of z given x₀."""
    lam = torch.tensor([-6.0, -1.0, 0.3, 2.0, 5.0], dtype=torch.float64)
    b = space.b_of_lam(lam)
    assert (b.diff() < 0).all()
    assert torch.allclose(space.lam(b), lam, atol=1e-9)
    t = VP().t_of_lam(lam)
    kernel, alpha, sigma = space.kernel(b), VP().alpha(t), VP().sigma(t)
    seen = sigma[:, None] * kernel.seen
    covariance = space.covariance(b)
    assert torch.allclose((seen * kernel.mean).sum(-1), alpha, rtol=1e-7)
    assert torch.allclose((seen * (covariance @ seen[..., None])[..., 0]).sum(-1), sigma**2, rtol=1e-7)
    on_x = kernel.mean / kernel.worth[:, None] / sigma[:, None]
    rebuilt = (
        sigma[:, None, None] ** 2 * on_x[:, :, None] * on_x[:, None] + kernel.rest[:, :, None] * kernel.rest[:, None]
    )
    assert torch.allclose(on_x * alpha[:, None], kernel.mean, rtol=1e-7)
    assert torch.allclose(rebuilt, covariance, rtol=1e-6, atol=1e-12)
    assert float(space.b_of_lam(-float("inf"))) == pytest.approx(float(space.b_of_lam(-12.0)))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
def test_an_ordinary_denoiser_knows_the_joint_score(space, path):
    """−Σ⁻¹(z − μ·x̂₀(x_seen)) is the gradient of the joint log-density."""
    world = PhaseSpaceWorld(WORLD, space)
    for lam in (-1.5, 0.5, 2.5):
        b, t = space.b_of_lam(lam), path.t_of_lam(lam)
        z = world.sample(6, float(b), seed=3).requires_grad_()
        (slope,) = torch.autograd.grad(world.log_density(z, float(b)).sum(), z)
        z = z.detach()
        assert torch.allclose(world.score(z, float(b)), slope, rtol=1e-8, atol=1e-8)
        kernel = space.kernel(b)
        seen = torch.einsum("p,npd->nd", path.sigma(t) * kernel.seen, z)
        off = z - kernel.mean[:, None] * WORLD.denoiser(path)(seen, t)[:, None]
        score = -torch.einsum("pq,nqd->npd", kernel.inverse, off)
        assert torch.allclose(score, slope, rtol=1e-6, atol=1e-6)


def test_samples_have_the_law_of_the_pair():
    world, b, n = PhaseSpaceWorld(WORLD), 0.6, 40_000
    z = world.sample(n, b, seed=1)
    mean, covariance = world.space.mean(b), world.space.covariance(b)
    x0 = WORLD.mean
    spread = WORLD.covariance.diagonal()
    for j in range(2):
        want = spread[j] * mean[:, None] * mean + covariance
        assert torch.allclose(z[:, :, j].mean(0), mean * x0[j], atol=4 * float(want.diagonal().max() / n) ** 0.5)
        assert torch.allclose(torch.cov(z[:, :, j].T), want, atol=6 * float(want.abs().max()) * (1 / n) ** 0.5)


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="friction < momentum_friction"):
        PhaseSpace(4.0, 1.0)
    with pytest.raises(ArgumentError, match="start"):
        PhaseSpace(start=0.0)
    with pytest.raises(ArgumentError, match="basis"):
        PhaseSpaceWorld(GaussianMixture.full([1.0], torch.zeros(1, 2), torch.eye(2)[None]))
