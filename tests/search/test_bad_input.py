"""Every search alike: rewards that are none, rewards that say nothing, one particle, and weights that collapse."""

import math

import pytest
import torch

from fewstep import VE, sample
from fewstep.errors import ArgumentError, NumericalError
from fewstep.restoration import Gaussian, Matrix, Measurement
from fewstep.search import (
    AFDPS,
    PAHI,
    SVDD,
    CollapseWarning,
    EnKG,
    FKSteering,
    InverseDesign,
    PathSearch,
    RandomSearch,
    ZeroOrderSearch,
)
from fewstep.worlds import GaussianMixture

WORLD = GaussianMixture([0.6, 0.4], torch.tensor([[-1.5, 0.0], [1.5, 0.0]]), torch.tensor([[0.3], [0.15]]))
MODEL = WORLD.denoiser(VE(10.0))
SEARCHES = {
    "fk-steering": lambda r, k=4: FKSteering(r, 1.0, k, weighings=3),
    "svdd": lambda r, k=3: SVDD(r, 1.0, k),
    "random": lambda r, k=3: RandomSearch(r, k),
    "zero-order": lambda r, k=2: ZeroOrderSearch(r, k, 2),
    "paths": lambda r, k=2: PathSearch(r, k, 2),
    "inverse-design": lambda r, k=3: InverseDesign(r, k, 2),
    "pahi": lambda r, k=2: PAHI(r, iterations=2, batch=k),
}


def linear(x):
    return x[:, 0]


def run(search, n=2, **options):
    return sample(MODEL, n, search=search, seed=4, **({"steps": 6} | options))


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize(
    ("reward", "error", "says"),
    [
        (lambda x: x[:, 0] * math.nan, NumericalError, "not finite"),
        (lambda x: x[:, 0] * 0 + math.inf, NumericalError, "not finite"),
        (lambda x: x, ArgumentError, "one number a row"),
        (lambda x: x[:, 0].mean(), ArgumentError, "one number a row"),
        (lambda x: x[:, 0] + 1j, ArgumentError, "one number a row"),
    ],
    ids=["nan", "infinite", "a picture", "one for all", "complex"],
)
def test_rewards_that_are_none_end_the_run(name, reward, error, says):
    with pytest.raises(error, match=says):
        run(SEARCHES[name](reward))


@pytest.mark.parametrize("name", SEARCHES)
def test_a_constant_reward_steers_nothing(name):
    """Whatever the constant is, the samples are the same, each of them one that the model alone could have drawn."""
    a, b = (run(SEARCHES[name](lambda x, c=c: 0 * x[:, 0] + c)) for c in (0.0, 1e6))
    assert torch.equal(a.x, b.x)
    assert torch.equal(b.rewards, torch.full((2,), 1e6, dtype=torch.float64))
    if name in ("random", "zero-order"):
        assert torch.equal(a.x, sample(MODEL, 2, steps=6, seed=4).x)
    if name == "pahi":
        assert torch.allclose(a.x, sample(MODEL, 2, steps=6, seed=4, solver="ddim").x, atol=1e-5)


@pytest.mark.parametrize("name", ["fk-steering", "svdd", "random"])
def test_one_particle_is_the_plain_sampler(name):
    solver = "dpm-solver++" if name == "random" else "ddpm"
    plain = sample(MODEL, 2, solver=solver, steps=6, seed=4).x
    assert torch.equal(run(SEARCHES[name](linear, 1)).x, plain)


@pytest.mark.parametrize("name", ["zero-order", "paths", "inverse-design", "pahi"])
def test_one_particle_is_allowed(name):
    out = run(SEARCHES[name](linear, 1))
    assert bool(out.x.isfinite().all())
    assert torch.equal(out.rewards, out.x[:, 0].double())


def seen(noise, y=0.4):
    return Measurement(Matrix(torch.ones(1, 2), (2,)), torch.tensor([[y]]), Gaussian(noise))


def test_the_ensembles_on_one_particle_and_on_nothing_to_follow():
    one = sample(MODEL, 2, search=AFDPS(seen(0.5), 1, 8, norm=1.5), seed=4)
    assert torch.equal(one.weights.shares, torch.ones(2, 1, dtype=torch.float64))
    with pytest.raises(ArgumentError, match="at least 2"):
        EnKG(linear, torch.zeros(1, 1), 1)
    blind = EnKG(lambda x: 0 * x[:, :1] + 3.0, torch.zeros(1, 1), 4, steps=6)
    still = sample(MODEL, 1, search=blind, seed=4, dtype=torch.float64)
    assert torch.equal(still.rewards, torch.full((1,), -9.0, dtype=torch.float64))
    # With nothing to tell particles apart none is moved: all stay on the flow, as under a weight of next to nothing.
    unmoved = EnKG(lambda x: x[:, :1], torch.zeros(1, 1), 4, 1e-12, steps=6)
    flow = sample(MODEL, 1, search=unmoved, seed=4, dtype=torch.float64)
    assert torch.allclose(still.particles, flow.particles, atol=1e-9)


def test_weights_that_collapse_are_told():
    with pytest.warns(CollapseWarning, match=r"effective sample size of \d\.\d\d of 300"):
        run(FKSteering(linear, 200.0, 300, weighings=1), 1)
    with pytest.warns(CollapseWarning, match="effective sample size"):
        sample(MODEL, 1, search=AFDPS(seen(0.001, 4.0), 300, 6, annealed=True, corrections=0, below=0.0), seed=4)
