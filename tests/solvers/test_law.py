"""The law of every stochastic solver: samples against the exact law, with a criterion that sees noise 10 % off."""

import math
from dataclasses import replace

import pytest
import torch

from fewstep import VP, make_plan, sample
from fewstep.analysis import gaussian_output
from fewstep.catalog import methods
from fewstep.denoisers import Denoiser
from fewstep.metrics import sliced_w2
from fewstep.plan import Table
from fewstep.solvers import solver_named
from fewstep.worlds import Gaussian, GaussianMixture

PATH = VP()
NAMES = [m.name for m in methods() if m.family == "solvers" and solver_named(m.name).stochastic]
# Coefficient-preserving sampling draws the same share in every step, however many: it has no limit of that law.
CONVERGING = [name for name in NAMES if name != "cps"]
SECOND_ORDER = ["churn", "er-sde", "restart", "sa-solver", "sde-dpm-solver++"]
VARIANCES = torch.tensor([0.1, 0.3, 1.0], dtype=torch.float64)
MEANS = torch.tensor([0.5, -0.7, 0.2], dtype=torch.float64)
MIXTURE = GaussianMixture(
    [0.4, 0.6], torch.tensor([[-1.0, 0.3], [0.9, -0.4]], dtype=torch.float64), torch.full((2, 1), 0.3)
)


class Many(Denoiser):
    """Independent copies of a world side by side in one sample: many draws of it for one stream of noise."""

    def __init__(self, world, copies):
        super().__init__(PATH, (copies, *world.shape))
        self.world = world

    def raw(self, x, told, **_):
        return self.world.denoise(x.flatten(0, 1), PATH, told).reshape(x.shape)


def louder(plan):
    """The plan with all its noise 10 % too large."""
    return replace(plan, N=Table(plan.N.index, 1.1 * plan.N.value), deviates="its noise is 10 % too large")


def draws(world, plan, count, seed=0):
    out = sample(Many(world, count // 4), 4, plan=plan, dtype=torch.float64, seed=seed)
    return out.x.flatten(0, 1)


def has_moments(x, mean, variance):
    """Whether samples have this mean and variance, each to five standard errors of a Gaussian's."""
    n = len(x)
    near = (x.mean(0) - mean).abs() < 5 * (variance / n).sqrt()
    return bool(near.all()) and bool(((x.var(0) / variance - 1).abs() < 5 * math.sqrt(2 / n)).all())


@pytest.mark.parametrize("solver", NAMES)
def test_samples_have_the_law_of_their_table(solver):
    """On Gaussian data the law of a plan is a Gaussian in closed form: moments, and sliced W2 to draws of it."""
    plan, world, count = make_plan(PATH, solver, "logsnr", 8), Gaussian(MEANS, VARIANCES), 80_000
    mean, variance = gaussian_output(plan, VARIANCES, MEANS)
    exact = Gaussian(mean, variance).sample(count, seed=1)
    x, loud = (draws(world, p, count) for p in (plan, louder(plan)))
    assert has_moments(x, mean, variance)
    assert not has_moments(loud, mean, variance)
    scale = variance.sqrt()  # every direction counts alike
    near, far = (float(sliced_w2(v / scale, exact / scale, 8)) for v in (x, loud))
    assert near < 0.02
    assert far > 0.024


@pytest.mark.parametrize("solver", CONVERGING)
def test_the_law_converges_to_the_datas(solver):
    """Variances on grids of 40 and 80 steps, the error's leading term taken off, are those of the path to 3 %."""

    def variances(steps, change=lambda plan: plan):
        times = PATH.t_of_lam(torch.linspace(-2, 2.5, steps + 1, dtype=torch.float64))
        want = PATH.alpha(times[-1]) ** 2 * VARIANCES + PATH.sigma(times[-1]) ** 2
        return gaussian_output(change(make_plan(PATH, solver, times)), VARIANCES, exact_start=True)[1] / want

    share = 2.0 ** solver_named(solver).order
    good, loud = ((share * variances(80, c) - variances(40, c)) / (share - 1) - 1 for c in (lambda p: p, louder))
    assert good.abs().max() < 0.03
    assert loud.abs().max() > 0.03


@pytest.mark.parametrize("solver", SECOND_ORDER)
def test_samples_of_a_mixture_have_its_law(solver):
    """Sliced W2 to exact samples of data with two modes, and their mean and covariance."""
    plan, count = make_plan(PATH, solver, "logsnr", 40), 40_000
    exact, covariance = MIXTURE.sample(count, seed=3), MIXTURE.covariance
    for good, p in ((True, plan), (False, louder(plan))):
        x = draws(MIXTURE, p, count)
        assert (float(sliced_w2(x, exact, 8)) < 0.017) is good
        off = (torch.cov(x.T) - covariance).diagonal() / covariance.diagonal()
        assert bool((off.abs() < 0.04).all()) is good
        if good:
            assert torch.allclose(x.mean(0), MIXTURE.mean, atol=0.02)
