"""Worlds against Bayes' rule written anew: quadrature, dense linear algebra, torch.distributions, autograd."""

import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from fewstep import VE, VP, Flow, sample
from fewstep.errors import ArgumentError
from fewstep.paths import PREDICTIONS
from fewstep.worlds import Empirical, Gaussian, GaussianMixture

PATHS = [VP(), VE(), Flow()]
TIMES = [0.05, 0.4, 0.9]


def numbers(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def covariances(count, d, rank=None, floor=0.05):
    factor = numbers(count, d, rank or d, seed=1) / math.sqrt(d)
    return factor @ factor.mT + floor * torch.eye(d, dtype=torch.float64)


def low_rank(count=3, shape=(6,), rank=2):
    d = math.prod(shape)
    u = torch.linalg.qr(numbers(count, d, rank, seed=2))[0]
    spread = numbers(count, rank, seed=3).square() + 0.2
    v = torch.linspace(0.02, 0.08, count, dtype=torch.float64)[:, None]
    return GaussianMixture([0.2, 0.3, 0.5][:count], numbers(count, *shape, seed=4), v, u, spread)


WORLDS = {
    "isotropic": GaussianMixture([1.0, 3.0], numbers(2, 4), torch.tensor([[0.3], [0.1]])),
    "diagonal": GaussianMixture([0.4, 0.6], numbers(2, 4), numbers(2, 4, seed=5).square()),
    "full": GaussianMixture.full([0.4, 0.6], numbers(2, 4), covariances(2, 4)),
    "low-rank": low_rank(),
    "pictures": low_rank(shape=(2, 3, 1)),
    "gaussian": Gaussian(numbers(4), covariances(1, 4)[0]),
}


def dense(world, alpha, variance):
    """p(x_t) by torch.distributions, from dense matrices; α and σ² numbers, or one a coordinate."""
    d = world.means.shape[1]
    a = torch.as_tensor(alpha, dtype=torch.float64).expand(d)
    c = torch.stack([world.component_covariance(k) for k in range(len(world.means))])
    c = a[:, None] * c * a + torch.diag(torch.as_tensor(variance, dtype=torch.float64).expand(d))
    return MixtureSameFamily(Categorical(world.weights), MultivariateNormal(a * world.means, c))


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("name", WORLDS)
def test_density_and_score_are_those_of_the_dense_mixture(name, path, t):
    world = WORLDS[name]
    x = world.sample(5, seed=1)
    x = path.alpha(t) * x + path.sigma(t) * numbers(*x.shape, seed=2)
    flat = x.flatten(1).requires_grad_()
    log = dense(world, path.alpha(t), path.sigma(t) ** 2).log_prob(flat)
    assert torch.allclose(world.log_density(x, path, t), log, rtol=1e-9, atol=1e-9)
    score = torch.autograd.grad(log.sum(), flat)[0].reshape(x.shape)
    assert torch.allclose(world.score(x, path, t), score, rtol=1e-7, atol=1e-8)
    # Tweedie: α·x̂₀ = x + σ²·∇log p, so the denoiser is held by the same numbers.
    believed = (x + path.sigma(t) ** 2 * score) / path.alpha(t)
    assert torch.allclose(world.denoise(x, path, t), believed, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["isotropic", "diagonal", "full", "low-rank", "pictures"])
def test_times_that_differ_within_a_sample(name):
    world, path = WORLDS[name], Flow()
    d = world.means.shape[1]
    t = torch.linspace(0.2, 0.9, d, dtype=torch.float64)
    x = numbers(3, d, seed=3).requires_grad_()
    score = torch.autograd.grad(dense(world, path.alpha(t), path.sigma(t) ** 2).log_prob(x).sum(), x)[0]
    believed = (x + path.sigma(t) ** 2 * score) / path.alpha(t)
    got = world.denoise(x.detach().reshape(3, *world.shape), path, t.reshape(world.shape))
    assert torch.allclose(got.flatten(1), believed, rtol=1e-6, atol=1e-6)


def test_a_time_that_has_come_to_nothing_returns_the_state():
    for world in WORLDS.values():
        x = numbers(3, *world.shape)
        assert torch.allclose(world.denoise(x, Flow(), 0.0), x, atol=1e-9)
        assert torch.allclose(world.denoise(x, Flow(), 1.0), world.mean.expand_as(x), atol=1e-9)


def test_one_time_a_sample_is_each_sample_with_its_time():
    world, path, t = WORLDS["low-rank"], VP(), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    x = numbers(3, 6)
    together = world.denoise(x, path, t[:, None])
    alone = torch.cat([world.denoise(x[i : i + 1], path, float(t[i])) for i in range(3)])
    assert torch.allclose(together, alone, rtol=1e-12)


def test_points_are_weighed_by_their_distance():
    points, path, t = numbers(7, 2), Flow(), 0.3
    world, x = Empirical(points), numbers(4, 2, seed=1)
    weights = (-(x[:, None] - 0.7 * points).square().sum(-1) / (2 * 0.09)).softmax(-1)
    assert torch.allclose(world.denoise(x, path, t), weights @ points, rtol=1e-10)
    assert torch.equal(world.denoise(points, path, 0.0), points)
    assert set(map(tuple, world.sample(50).tolist())) <= set(map(tuple, points.tolist()))


@pytest.mark.parametrize("name", WORLDS)
def test_samples_have_the_moments(name):
    world = WORLDS[name]
    x = world.sample(40_000).flatten(1)
    assert torch.allclose(x.mean(0), world.mean.flatten(), atol=0.04)
    assert torch.allclose(x.mT.cov(), world.covariance, atol=0.06)


def test_labels_choose_components_and_null_chooses_all():
    world = GaussianMixture([1.0, 1.0, 2.0], numbers(3, 2) * 3, torch.full((3, 1), 0.1), component_labels=[0, 1, 1])
    one = GaussianMixture([1.0, 2.0], world.means[1:], torch.full((2, 1), 0.1))
    x = numbers(3, 2)
    assert torch.allclose(world.denoise(x, VP(), 0.6, 1), one.denoise(x, VP(), 0.6))
    mixed = world.denoise(x, VP(), 0.6, torch.tensor([1, 2, 0]))
    assert torch.allclose(mixed[1], world.denoise(x, VP(), 0.6)[1])
    assert torch.allclose(mixed[2:], Gaussian(world.means[0], 0.1).denoise(x[2:], VP(), 0.6))
    assert torch.allclose(world.sample(4000, label=0).mean(0), world.means[0], atol=0.03)
    assert world.denoiser(VP()).null == {"label": 2}
    with pytest.raises(ArgumentError, match="label must be 0 … 1, or 2"):
        world.denoise(x, VP(), 0.6, 3)


@pytest.mark.parametrize("name", WORLDS)
def test_posterior_is_bayes_rule(name):
    """p(x₀ | y) ∝ p(x₀)·N(y; A x₀, noise²): the ratio of both sides is one constant over x₀."""
    world = WORLDS[name]
    d = world.means.shape[1]
    a, y, noise = numbers(2, d, seed=6), torch.tensor([0.3, -0.5], dtype=torch.float64), torch.tensor([0.2, 0.4])
    after = world.posterior(a, y, noise)
    x = after.sample(6, seed=3)
    likelihood = torch.distributions.Normal(x.flatten(1) @ a.mT, noise.double()).log_prob(y).sum(-1)
    ratio = after.log_density(x, Flow(), 0.0) - world.log_density(x, Flow(), 0.0) - likelihood
    assert torch.allclose(ratio, ratio[:1].expand(6), atol=1e-6)


def test_posterior_of_points_moves_only_their_weights():
    points = numbers(5, 3)
    after = Empirical(points).posterior(torch.eye(3, dtype=torch.float64)[:1], points[2, :1], 1e-3)
    assert torch.equal(after.means, points)
    assert float(after.weights[2]) == pytest.approx(1.0)


@pytest.mark.parametrize("predicts", PREDICTIONS)
def test_a_denoiser_of_any_prediction_says_the_same(predicts):
    world, path = WORLDS["pictures"], VP()
    x = numbers(3, *world.shape)
    plain, other = world.denoiser(path), world.denoiser(path, predicts)
    for t in (0.2, torch.full((3, 1, 1, 1), 0.7, dtype=torch.float64)):
        assert torch.allclose(plain(x, t), other(x, t), rtol=1e-8, atol=1e-10)
    assert torch.allclose(sample(plain, 2, steps=4).x, sample(other, 2, steps=4).x, atol=1e-5)


def test_bad_worlds_are_refused():
    for message, make in {
        "weights must be finite": lambda: GaussianMixture([-1.0, 2.0], numbers(2, 3), torch.ones(2, 1)),
        "need weights": lambda: GaussianMixture([1.0], numbers(2, 3), torch.ones(2, 1)),
        "need .* variance": lambda: GaussianMixture([1.0, 1.0], numbers(2, 3), torch.ones(2, 2)),
        "negative eigenvalue": lambda: Gaussian(numbers(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]])),
        "symmetric": lambda: Gaussian(numbers(2), torch.tensor([[1.0, 2.0], [0.0, 1.0]])),
        "noise more than 0": lambda: WORLDS["full"].posterior(torch.ones(1, 4), torch.ones(1), 0.0),
        "divides by": lambda: WORLDS["full"].score(numbers(1, 4), VP(), 0.0),
        "takes no label": lambda: WORLDS["full"].denoise(numbers(1, 4), VP(), 0.5, 1),
        "conditions": lambda: sample(WORLDS["full"].denoiser(VP()), 1, steps=1, cond={"text": 3}),
    }.items():
        with pytest.raises(ArgumentError, match=message):
            make()
