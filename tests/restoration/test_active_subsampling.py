"""Active subsampling: what is chosen, from whose disagreement, and that nothing else is looked at."""

import math

import pytest
import torch

from fewstep import VP
from fewstep.errors import ArgumentError
from fewstep.restoration import FourierMask, Mask, Measurement, restore
from fewstep.restoration import Gaussian as Noise
from fewstep.restoration.active_subsampling import ActiveSubsampling, candidates, disagreement
from fewstep.worlds import Gaussian, GaussianMixture

PATH = VP()
OPTIONS = {"evaluations": 100, "samples": 32, "scale": 0.3, "window": (0.5, 0.9), "dtype": torch.float64}


def scenes(covariance, n=1, seed=1):
    world = Gaussian(torch.zeros(len(covariance)), covariance)
    return world, Measurement(Mask(torch.ones(len(covariance))), world.sample(n, seed=seed), Noise(0.1))


def chosen(world, measurement, **options):
    return restore(world.denoiser(PATH), measurement, "ads", **{**OPTIONS, **options}).plan.source["chosen"]


def test_candidates_are_columns_rows_pixels_or_frequencies():
    assert candidates((2, 2, 3), (-1,)).tolist() == [[[0, 1, 2]] * 2] * 2
    assert candidates((1, 2, 3), (-2,)).tolist() == [[[0, 0, 0], [1, 1, 1]]]
    assert candidates((2, 2, 3), (-2, -1)).tolist() == [[[0, 1, 2], [3, 4, 5]]] * 2
    assert candidates((1, 2, 3, 2), (-2,))[0, 1].tolist() == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.parametrize("rule", ["published", "entropy"])
def test_a_wide_belief_ranks_by_the_variance_of_the_guesses(rule):
    """Σ_i log Σ_j e^{±d²/2σ²} → N log N ± N·V/σ², V the variance with 1/N summed over the candidate's numbers."""
    guesses = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    candidate, n, sigma = torch.tensor([0, 1, 0, 1]), 9, 300.0
    got = disagreement(guesses, candidate, 2, sigma, rule)
    variance = guesses.var(0, correction=0)
    base = n * math.log(n) if rule == "published" else 0.0
    for a in range(2):
        want = n * float(variance[candidate == a].sum()) / sigma**2
        assert float(got[a]) - base == pytest.approx(want, rel=1e-3)


def test_the_entropy_rule_is_the_entropy_of_far_clusters():
    """Three guesses of one value and one of another, far apart: N times the entropy of (3/4, 1/4)."""
    guesses = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [50.0, 1.0]], dtype=torch.float64)
    got = disagreement(guesses, torch.tensor([0, 1]), 2, 0.5, "entropy")
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert got.tolist() == pytest.approx([4 * entropy, 0.0], abs=1e-9)


def test_the_entropy_rule_bounds_the_belief_from_above():
    guesses = torch.tensor([[-1.0], [0.3], [1.5]], dtype=torch.float64)
    sigma = 0.7
    line = torch.linspace(-8, 8, 20001, dtype=torch.float64)
    density = torch.exp(-0.5 * ((line - guesses) / sigma) ** 2).mean(0) / (sigma * math.sqrt(2 * math.pi))
    exact = float(torch.trapezoid(-density * density.clamp_min(1e-300).log(), line))
    alone = 0.5 * math.log(2 * math.pi * math.e * sigma**2)
    bound = float(disagreement(guesses, torch.tensor([0]), 1, sigma, "entropy")) / 3 + alone
    assert alone < exact < bound
    assert bound < alone + math.log(3)


@pytest.mark.parametrize("rule", ["published", "entropy"])
def test_independent_numbers_are_measured_by_their_variance(rule):
    world, measurement = scenes(torch.diag(torch.tensor([0.1, 1.0, 0.4, 0.02])), n=2)
    assert chosen(world, measurement, count=3, rule=rule) == [[1, 2, 0]] * 2


def test_what_a_measurement_tells_already_is_not_measured_next():
    """The exact greedy order of the posterior's variances: 0, then 2, since 1 is nearly known from 0."""
    c = torch.tensor([[1.0, 0.97, 0.0], [0.97, 0.98, 0.0], [0.0, 0.0, 0.5]])
    world, measurement = scenes(c)
    posterior = world.posterior(torch.tensor([[1.0, 0.0, 0.0]]), measurement.y[0, :1], 0.1)
    assert int(posterior.covariance.diagonal().argmax()) == 2
    assert chosen(world, measurement, count=3) == [[0, 2, 1]]


def test_in_a_mixture_the_choice_depends_on_what_was_seen():
    """Number 0 tells the mode; which of the others is then uncertain depends on the mode."""
    means = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    c = torch.stack([torch.diag(torch.tensor([0.01, 0.3, 0.01])), torch.diag(torch.tensor([0.01, 0.01, 0.3]))])
    world = GaussianMixture.full([0.5, 0.5], means, c)
    y = torch.tensor([[1.0, 0.4, 0.0], [-1.0, 0.0, 0.4]], dtype=torch.float64)
    measurement = Measurement(Mask(torch.ones(3)), y, Noise(0.05))
    assert chosen(world, measurement, count=2) == [[0, 1], [0, 2]]


def test_nothing_else_is_looked_at_and_more_is_known_where_it_was():
    world, measurement = scenes(torch.diag(torch.tensor([0.1, 1.0, 0.4, 0.02])))
    out = restore(world.denoiser(PATH), measurement, "ads", count=2, **OPTIONS)
    hidden = measurement.y.clone()
    hidden[:, [0, 3]] = 77.0
    other = Measurement(measurement.operator, hidden, measurement.noise)
    assert torch.equal(restore(world.denoiser(PATH), other, "ads", count=2, **OPTIONS).x, out.x)
    assert ((out.mean - measurement.y)[0, [1, 2]].abs() < 0.2).all()
    assert (out.std[0, [1, 2]] < 0.2).all()
    assert float(out.std[0, 0]) > 0.2
    told = restore(world.denoiser(PATH), measurement, "ads", count=1, given=(3,), **OPTIONS)
    assert told.plan.source["chosen"] == [[3]]


def test_fourier_columns_and_scenes_of_a_batch():
    """Two scenes in one batch are what each alone is."""
    world = GaussianMixture([1.0], torch.zeros(1, 1, 4, 4), torch.full((1, 1), 0.3))
    measurement = Measurement.simulate(FourierMask(torch.ones(4, 4)), world.sample(2, seed=2), Noise(0.1))
    options = {"evaluations": 20, "samples": 4, "count": 3, "axes": (-2,), "given": (0,), "dtype": torch.float64}
    both = restore(world.denoiser(PATH), measurement, "ads", **options)
    assert all(len(set(one)) == 3 and one[0] == 0 for one in both.plan.source["chosen"])
    for row in range(2):
        alone = Measurement(measurement.operator, measurement.y[row : row + 1], measurement.noise)
        one = restore(world.denoiser(PATH), alone, "ads", first=4 * row, **options)
        assert one.plan.source["chosen"][0] == both.plan.source["chosen"][row]
        assert torch.allclose(one.x, both.x[4 * row : 4 * row + 4], atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 5}, "count must lie between 1 and the 4 candidates"), ({"given": (0, 1), "count": 1}, "count must"),
        ({"given": (4,), "count": 2}, "count must"), ({"axes": (0,)}, "axes must count"),
        ({"rule": "max"}, "unknown rule"),
        ({"window": (0.5, 0.5)}, "window must rise"), ({"count": 4, "evaluations": 3}, "do not fit"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(options, message):
    world, measurement = scenes(torch.eye(4))
    with pytest.raises(ArgumentError, match=message):
        restore(world.denoiser(PATH), measurement, "ads", **{"evaluations": 20, "count": 2, **options})


def test_looks_are_spread_over_the_window():
    measurement = scenes(torch.eye(4))[1]
    looks = ActiveSubsampling(measurement, count=4, steps=1000, window=(0.0, 0.8))
    assert sorted(looks._when()) == [0, 200, 400, 600]
