"""Energy-parameterised models: a linear f is a Gaussian exactly, and training goes through the gradient."""

import pytest
import torch
from torch import nn

from fewstep import VP, Flow, make_plan, sample, wrap
from fewstep.errors import ArgumentError
from fewstep.guidance import AnnealedMCMC, Composition, EnergyParameterised, log_prob_of
from fewstep.worlds import Gaussian

PATHS = [VP(), Flow()]


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Scaled(nn.Module):
    """f = √(σ/(α²c + σ²))·x, by which E/σ is the energy of N(0, α²c + σ²)."""

    def __init__(self, path, c):
        super().__init__()
        self.path, self.c = path, nn.Parameter(torch.tensor(c, dtype=torch.float64))

    def forward(self, x, t):
        alpha, sigma = (v.reshape(-1, *[1] * (x.ndim - 1)) for v in (self.path.alpha(t), self.path.sigma(t)))
        return (sigma / (alpha**2 * self.c + sigma**2)).sqrt() * x


def model(path, c, size=8):
    return wrap(EnergyParameterised(Scaled(path, c)), path, "eps", shape=(size,), time="t")


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_a_linear_network_is_a_gaussian_with_its_density(path):
    den, exact, x = model(path, 0.3), Gaussian(torch.zeros(8), 0.3), randn(5, 8)
    times = path.t_of_lam(torch.linspace(-3, 3, 7, dtype=torch.float64))
    assert torch.allclose(den(x, times[2]), exact.denoiser(path)(x, times[2]), atol=1e-12)
    plan = make_plan(path, "dpm-solver++", times)
    want = sample(exact.denoiser(path), start=x, plan=plan).x
    assert torch.allclose(sample(den, start=x, plan=plan).x, want, atol=1e-10)
    for t in times:
        ours, theirs = log_prob_of(den)(x, t), exact.log_density(x, path, t)
        assert torch.allclose(ours - ours[0], theirs - theirs[0], atol=1e-10)
    each = times[:5].reshape(-1, 1)
    alone = torch.cat([log_prob_of(den)(x[i : i + 1], times[i]) for i in range(5)])
    assert torch.allclose(log_prob_of(den)(x, each), alone, atol=1e-12)


def test_its_densities_correct_a_product():
    path, variances = VP(), (0.3, 0.5)
    first, second = (model(path, v) for v in variances)
    composed = Composition(((1.0, second),), log_probs=[log_prob_of(first), log_prob_of(second)])
    plan = make_plan(path, "ddpm", path.t_of_lam(torch.tensor([-2, -1, 0, 0.2], dtype=torch.float64)))
    walk = AnnealedMCMC(composed, "mala", rounds=20, size=0.2)
    x = sample(first, start=randn(1000, 8), plan=plan, guides=[composed, walk]).x
    alpha, sigma = float(path.alpha(plan.times[-1])), float(path.sigma(plan.times[-1]))
    assert float(x.var()) == pytest.approx(1 / sum(1 / (alpha**2 * v + sigma**2) for v in variances), rel=0.05)


def test_training_by_the_noise_goes_through_the_gradient():
    """The loss's slope in a weight by differences, and the variance of the data at its least."""
    path, net = VP(), EnergyParameterised(Scaled(VP(), 0.9))
    x0, noise = 0.3**0.5 * randn(4000, 4, seed=1), randn(4000, 4, seed=2)
    t = torch.rand(4000, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    noisy = path.alpha(t)[:, None] * x0 + path.sigma(t)[:, None] * noise

    def loss():
        return (net(noisy, t) - noise).square().mean()

    net.zero_grad()
    loss().backward()
    c, h = net.network.c, 1e-5
    values = []
    for value in (0.9 + h, 0.9 - h):
        with torch.no_grad():
            c.fill_(value)
            values.append(float(loss()))
    assert float(c.grad) == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-5)
    optimiser = torch.optim.Adam(net.parameters(), 0.05)
    for _ in range(120):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    assert float(c.detach()) == pytest.approx(0.3, abs=0.03)


def test_sampling_leaves_no_graph_and_a_run_can_be_differentiated():
    den, start = model(VP(), 0.3), randn(2, 8).requires_grad_()
    assert not sample(den, 2, steps=2, dtype=torch.float64).x.requires_grad
    plan = make_plan(VP(), "ddim", steps=3)
    (slope,) = torch.autograd.grad(sample(den, start=start, plan=plan, grad=True).x.sum(), start)
    exact = Gaussian(torch.zeros(8), 0.3).denoiser(VP())
    (want,) = torch.autograd.grad(sample(exact, start=start, plan=plan, grad=True).x.sum(), start)
    assert torch.allclose(slope, want, atol=1e-10)


def test_another_model_is_refused():
    with pytest.raises(ArgumentError, match="log_prob_of needs"):
        log_prob_of(wrap(lambda x, t: x, VP(), "eps", shape=(3,)))
    with pytest.raises(ArgumentError, match="log_prob_of needs"):
        log_prob_of(wrap(EnergyParameterised(Scaled(VP(), 0.3)), VP(), "x0", shape=(3,)))
    with pytest.raises(ArgumentError, match="without noise"):
        log_prob_of(model(VP(), 0.3))(randn(1, 8), torch.tensor(0.0, dtype=torch.float64))
