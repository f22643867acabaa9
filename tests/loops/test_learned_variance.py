"""Learned variances: both ends of the interpolation, the exact optimum, sampling with it, guidance and rows."""

import pytest
import torch

from fewstep import CFG, VP, Flow, sample, wrap
from fewstep.denoisers.learned_variance import step_posterior, wrap_with_variance
from fewstep.errors import ArgumentError
from fewstep.guidance import Guide
from fewstep.loops import loop_named
from fewstep.loops.learned_variance import LearnedVariance
from fewstep.solvers.ancestral import Ancestral
from fewstep.worlds import Gaussian, GaussianMixture
from fewstep.worlds.optimal_variance import OptimalVariance


def two_headed(second, path=None, predicts="x0"):
    def net(x, t, **_):
        return torch.cat([0.7 * torch.tanh(x), torch.full_like(x, second)], 1)

    return wrap_with_variance(net, path or VP(), predicts, shape=(2, 3, 3))


def plain(path=None):
    return wrap(lambda x, t: 0.7 * torch.tanh(x), path or VP(), "x0", shape=(2, 3, 3))


@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
@pytest.mark.parametrize(("second", "variance"), [(-1.0, "small"), (1.0, "large")])
def test_the_ends_are_the_two_fixed_variances(path, second, variance):
    got = LearnedVariance(steps=6)(two_headed(second, path), 3, seed=2, dtype=torch.float64)
    want = sample(plain(path), 3, solver=Ancestral(variance), grid="uniform", steps=6, seed=2, dtype=torch.float64)
    assert torch.allclose(got.x, want.x, rtol=1e-10, atol=1e-10)
    assert got.stats.evaluations == 6


def test_between_the_ends_log_variance_is_linear():
    den, (t, t_next) = two_headed(0.0), torch.tensor([0.6, 0.4], dtype=torch.float64)
    step = step_posterior(VP(), t, t_next)
    second = torch.tensor([[-1.0, 0.0, 0.5, 1.0]], dtype=torch.float64)
    v = (second + 1) / 2
    want = v * step.large.log() + (1 - v) * step.small.log()
    assert torch.allclose(den.log_variance(second, t, t_next), want, rtol=1e-12)
    ratio = VP().alpha(t) / VP().alpha(t_next)
    beta = 1 - ratio**2
    assert step.large == pytest.approx(float(beta), rel=1e-10)
    assert step.small == pytest.approx(float(beta * VP().sigma(t_next) ** 2 / VP().sigma(t) ** 2), rel=1e-10)


def test_the_worlds_variance_is_the_posteriors_own():
    """Var[x₀ | x] of a mixture in one dimension, by quadrature."""
    means, variances, weights = [-0.6, 0.8], [0.06, 0.02], [0.3, 0.7]
    world = GaussianMixture(weights, torch.tensor(means)[:, None], torch.tensor(variances)[:, None])
    path, t, x = VP(), 0.35, torch.tensor([[-0.5], [0.1], [0.9]], dtype=torch.float64)
    grid = torch.linspace(-4, 4, 20001, dtype=torch.float64)
    prior = sum(
        w * (-((grid - m) ** 2) / (2 * v)).exp() / v**0.5 for w, m, v in zip(weights, means, variances, strict=True)
    )
    likely = prior * (-((x - path.alpha(t) * grid) ** 2) / (2 * path.sigma(t) ** 2)).exp()
    likely = likely / likely.sum(1, keepdim=True)
    mean = (likely * grid).sum(1, keepdim=True)
    want = (likely * (grid - mean) ** 2).sum(1, keepdim=True)
    x0, u = OptimalVariance(world, path).both(x, torch.tensor(t, dtype=torch.float64))
    assert torch.allclose(x0, mean, rtol=1e-8)
    assert torch.allclose(u, want, rtol=1e-6)


@pytest.mark.parametrize("steps", [2, 5])
def test_with_the_best_variance_few_steps_keep_a_gaussian_exactly(steps):
    """The mean is linear, so the variance of the chain follows from a recurrence: it must be the marginal's."""
    c, path = torch.tensor([0.04, 0.3, 0.9], dtype=torch.float64), VP()
    den, times = OptimalVariance(Gaussian(torch.zeros(3), c), path), torch.linspace(1, 0, steps + 1).double()
    marginal = path.alpha(times)[:, None] ** 2 * c + path.sigma(times)[:, None] ** 2
    for i in range(steps):
        x = torch.ones(1, 3, dtype=torch.float64)
        gain, u = den.both(x, times[i])
        step = step_posterior(path, times[i], times[i + 1])
        drawn = den.log_variance(u, times[i], times[i + 1]).exp()
        after = (step.on_x + step.on_x0 * gain) ** 2 * marginal[i] + drawn
        assert torch.allclose(after[0], marginal[i + 1], rtol=1e-10)


def labelled(mean_too):
    def net(x, t, label):
        label = label.to(x.dtype)[:, None]
        return torch.cat([torch.tanh(x) * ((label + 1) / 4 if mean_too else 0.5), (1 - 2 * label / 3).expand_as(x)], 1)

    return wrap_with_variance(net, VP(), "x0", shape=(2,), null={"label": 3})


class Asks(Guide):
    """Asks again before and after the noise is drawn; changes nothing."""

    level = "answer"

    def answer(self, ask, x0, state):
        ask.again(ask.x, ask.t, {"label": torch.full((len(x0),), 3)})
        return x0, state


def test_guidance_changes_the_mean_and_leaves_the_plain_variance():
    cond, loop = {"label": [0, 1, 2, 0]}, LearnedVariance(steps=5)
    for mean_too in (False, True):
        alone = loop(labelled(mean_too), 4, cond=cond, dtype=torch.float64)
        guided = loop(labelled(mean_too), 4, cond=cond, guides=[CFG(2.0), Asks()], dtype=torch.float64)
        assert guided.stats.evaluations == 15
        assert torch.allclose(alone.x, guided.x, rtol=1e-9) != mean_too


def test_a_row_is_a_row_and_what_is_refused():
    den = OptimalVariance(Gaussian(torch.zeros(3), 0.3), VP())
    whole = loop_named("improved-ddpm", steps=4)(den, 5, seed=3, dtype=torch.float64)
    alone = loop_named("improved-ddpm", steps=4)(den, 1, seed=3, first=2, dtype=torch.float64)
    assert torch.allclose(whole.x[2:3], alone.x, rtol=1e-12)
    assert "network's own" in whole.plan.deviates
    with pytest.raises(ArgumentError, match="tells variances"):
        LearnedVariance(steps=4)(plain())
    narrow = wrap_with_variance(lambda x, t: x, VP(), "x0", shape=(2,))
    with pytest.raises(ArgumentError, match="twice the channels"):
        LearnedVariance(steps=4)(narrow)
