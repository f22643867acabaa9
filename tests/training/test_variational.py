"""The bound against PyTorch's divergence and a Gaussian's entropy, what the hybrid teaches, and importance sampling."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from fewstep import VP
from fewstep.denoisers.learned_variance import step_posterior, wrap_with_variance
from fewstep.errors import ArgumentError
from fewstep.noise import KeyedNoise
from fewstep.training.variational import Chain, ImportanceTimes
from fewstep.worlds import Gaussian
from fewstep.worlds.optimal_variance import OptimalVariance

TIMES = torch.linspace(1, 0, 6, dtype=torch.float64)


def fixed(v, scale=0.5, shape=(1,), predicts="x0"):
    def net(x, t):
        return torch.cat([scale * x, (2 * v - 1) * torch.ones_like(x)], 1)

    return wrap_with_variance(net, VP(), predicts, shape=shape)


@pytest.mark.parametrize("index", [0, 2, 3])
def test_a_step_is_the_divergence_of_its_two_gaussians(index):
    path, x0 = VP(), torch.tensor([[0.7], [-0.3]], dtype=torch.float64)
    noise = torch.tensor([[0.2], [-1.1]], dtype=torch.float64)
    t, t_next = TIMES[index], TIMES[index + 1]
    x = path.alpha(t) * x0 + path.sigma(t) * noise
    step = step_posterior(path, t, t_next)
    true = Normal(step.on_x * x + step.on_x0 * x0, step.small.sqrt())
    variance = (0.3 * step.large.log() + 0.7 * step.small.log()).exp()
    taken = Normal(step.on_x * x + step.on_x0 * 0.5 * x, variance.sqrt())
    got = Chain(fixed(0.3), TIMES).nats(x0, torch.full((2,), index), noise)
    assert torch.allclose(got, kl_divergence(true, taken)[:, 0], rtol=1e-10)


def test_the_last_step_is_a_density_or_a_bin():
    path, x0 = VP(), torch.tensor([[0.2]], dtype=torch.float64)
    noise, last = torch.tensor([[0.4]], dtype=torch.float64), torch.tensor([4])
    mean = 0.5 * (path.alpha(TIMES[4]) * x0 + path.sigma(TIMES[4]) * noise)
    floor = step_posterior(path, TIMES[3], TIMES[4]).small
    large = step_posterior(path, TIMES[4], TIMES[5]).large
    spread = (0.3 * large.log() + 0.7 * floor.log()).mul(0.5).exp()
    got = Chain(fixed(0.3), TIMES).nats(x0, last, noise)
    assert torch.allclose(got, -Normal(mean, spread).log_prob(x0)[0], rtol=1e-10)
    values = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    den = wrap_with_variance(lambda x, t: torch.cat([0 * x, -torch.ones_like(x)], 1), VP(), "x0", shape=(1,))
    shares = (-Chain(den, TIMES, bins=5).nats(values, last.expand(5), torch.zeros_like(values))).exp()
    assert float(shares.sum()) == pytest.approx(1, abs=1e-12)
    inner = Normal(0.0, float(floor.sqrt())).cdf(torch.tensor([0.25, 0.75], dtype=torch.float64))
    assert float(shares[3]) == pytest.approx(float(inner[1] - inner[0]), rel=1e-6)


def test_the_outer_bins_have_a_gradient():
    """Black and white reach to infinity, and the slope by the variance is that of finite differences."""
    values = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)[:, None]

    def nats(v):
        den = wrap_with_variance(
            lambda x, t: torch.cat([0.4 * torch.ones_like(x), (2 * v - 1) * torch.ones_like(x)], 1), VP(), "x0",
            shape=(1,),
        )  # fmt: skip
        return Chain(den, TIMES, bins=3).nats(values, torch.full((3,), 4), torch.zeros_like(values)).sum()

    v = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(nats(v), v)
    step = 1e-5
    assert float(slope) == pytest.approx(float((nats(v + step) - nats(v - step)).detach()) / (2 * step), rel=1e-5)
    assert abs(float(slope)) > 1e-3


@pytest.mark.parametrize("steps", [3, 20])
def test_the_bound_is_the_entropy_where_steps_are_exact(steps):
    c = torch.tensor([0.05, 0.4], dtype=torch.float64)
    world = Gaussian(torch.zeros(2), c)
    chain = Chain(OptimalVariance(world, VP()), torch.linspace(1, 0, steps + 1, dtype=torch.float64))
    x0 = world.sample(3000, seed=1)
    want = -(torch.distributions.Normal(0.0, c.sqrt()).log_prob(x0) / math.log(2)).mean()
    assert float(want) == pytest.approx(float((0.5 * (2 * math.pi * math.e * c).log2()).mean()), abs=0.06)
    assert float(chain.bits_per_dimension(x0).mean()) == pytest.approx(float(want), abs=0.06)
    wrong = Chain(fixed(0.0, shape=(2,)), chain.times)
    assert float(wrong.bits_per_dimension(x0).mean()) > float(want) + 0.2


def test_the_bound_begins_with_the_divergence_from_the_noise_that_sampling_begins_with():
    path, x0 = VP(), torch.tensor([[0.9], [-0.4]], dtype=torch.float64)
    chain, noise = Chain(fixed(0.3), TIMES[3:]), KeyedNoise(7, range(2), (1,), torch.float64, "cpu")
    alpha, sigma = path.alpha(TIMES[3]), path.sigma(TIMES[3])
    first = kl_divergence(Normal(alpha * x0, sigma), Normal(0 * x0, sigma))[:, 0]
    steps = sum(chain.nats(x0, torch.full((2,), i), noise.step(i, 0.0, 0.0)) for i in range(2))
    assert torch.allclose(chain.bits_per_dimension(x0, seed=7), (first + steps) / math.log(2), rtol=1e-9)


def test_the_bound_teaches_the_variance_alone_and_to_its_best():
    """On a Gaussian the best v follows from Var[x₀ | x]; the mean's weights feel only the plain loss."""
    c, path = 0.3, VP()
    world, index = Gaussian(torch.zeros(1), c), torch.full((4000,), 2)
    v, scale = (torch.tensor(0.5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    t, t_next = TIMES[2], TIMES[3]
    gain = path.alpha(t) * c / (path.alpha(t) ** 2 * c + path.sigma(t) ** 2)
    den = wrap_with_variance(
        lambda x, _: torch.cat([(2 * scale * gain) * x, (2 * v - 1) * torch.ones_like(x)], 1), path, "x0", shape=(1,)
    )
    x0 = world.sample(4000, seed=2)
    noise = torch.randn(4000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    chain = Chain(den, TIMES)
    plain, both = (torch.autograd.grad(chain.hybrid(x0, index, noise, weight=w).mean(), scale)[0] for w in (0.0, 10.0))
    assert torch.equal(plain, both)
    assert not torch.autograd.grad(chain.hybrid(x0, index, noise, weight=0.0).mean(), v)[0].any()
    optimiser = torch.optim.LBFGS([v], lr=0.5, max_iter=40)

    def closure():
        optimiser.zero_grad()
        loss = chain.hybrid(x0, index, noise, weight=1.0).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    step = step_posterior(path, t, t_next)
    u = c * path.sigma(t) ** 2 / (path.alpha(t) ** 2 * c + path.sigma(t) ** 2)
    best = ((step.small + step.on_x0**2 * u).log() - step.small.log()) / (step.large.log() - step.small.log())
    assert v.item() == pytest.approx(float(best), abs=0.02)


def test_hybrid_is_the_plain_loss_and_so_many_steps_of_the_bound():
    den, x0 = fixed(0.3, predicts="eps"), torch.tensor([[0.5], [0.1]], dtype=torch.float64)
    noise, index = torch.tensor([[1.0], [-0.5]], dtype=torch.float64), torch.tensor([1, 3])
    chain, t = Chain(den, TIMES), TIMES[[1, 3]][:, None]
    x = VP().alpha(t) * x0 + VP().sigma(t) * noise
    plain = (0.5 * x - noise).square()[:, 0]
    assert torch.allclose(chain.hybrid(x0, index, noise, weight=0.0), plain, rtol=1e-10)
    want = plain + 0.01 * 5 * chain.nats(x0, index, noise)
    assert torch.allclose(chain.hybrid(x0, index, noise, weight=0.01), want, rtol=1e-10)


def test_importance_sampling_is_uniform_first_and_unbiased_after():
    times, losses = ImportanceTimes(4, history=3, uniform=0.1), torch.tensor([1.0, 2.0, 3.0, 10.0])
    for _ in range(2):
        times.record(torch.arange(4), 100 * losses)
    assert torch.allclose(times.probabilities, torch.full((4,), 0.25, dtype=torch.float64))
    for _ in range(3):
        times.record(torch.arange(4), losses)
    want = 0.9 * losses.double() / 16 + 0.025
    assert torch.allclose(times.probabilities, want)
    index, weights = times.draw(40000, torch.Generator().manual_seed(0))
    assert torch.allclose(torch.bincount(index) / 40000, want.float(), atol=0.01)
    assert float((weights * losses[index]).mean()) == pytest.approx(4.0, rel=0.01)


def test_bad_arguments():
    for times in (TIMES.flip(0), TIMES[:-1], TIMES[:1]):
        with pytest.raises(ArgumentError, match="times"):
            Chain(fixed(0.5), times)
    with pytest.raises(ArgumentError, match="bins"):
        Chain(fixed(0.5), TIMES, bins=1)
    with pytest.raises(ArgumentError, match="history"):
        ImportanceTimes(4, history=0)
