"""Align Your Steps: its bound on Gaussian data is known, its grid there too, it never rises, and it gains elsewhere."""

import math
from functools import cache
from itertools import pairwise

import pytest
import torch

from fewstep import VE, VP, Flow, tune
from fewstep.errors import ArgumentError
from fewstep.tuning.align_your_steps import AlignYourSteps, Klub, halved, interpolated, sweep
from fewstep.tuning.levels import karras_levels
from fewstep.tuning.problem import Problem
from fewstep.tuning.random_mixtures import mixtures
from fewstep.worlds import Gaussian


@cache
def world(path):
    """Twenty overlapping modes in 64 dimensions; made once a path, as the flow that comes with it takes its time."""
    return mixtures(path, 8, 1)[1][0]


def gaussian(path, d=64, variance=1.0):
    return Gaussian(torch.zeros(d, dtype=torch.float64), torch.full((d,), variance, dtype=torch.float64)).denoiser(path)


def log_grid(first, last, n):
    """On N(0, 1) the bound is least where log(1 + 1/ρ²) is even."""
    ends = [math.log1p(1 / v**2) for v in (first, last)]
    return (1 / torch.linspace(*ends, n + 1, dtype=torch.float64).expm1()).sqrt()


def total(klub, levels):
    return sum(klub(float(low), float(high)) for high, low in pairwise(levels))


@pytest.mark.parametrize("path", [VE(14.6), VP(), Flow()], ids=lambda p: p.kind)
def test_the_bound_on_gaussian_data_is_the_exact_one(path):
    """Per dimension 1.5735 on the best grid of ten steps from 14.6 to 0.03, and 15.86 on the arctan grid."""
    klub = Klub(Problem(gaussian(path), 4), 256, spread=1.0)
    best = total(klub, log_grid(14.6, 0.03, 10)) / 64
    arctan = torch.linspace(math.atan(14.6), math.atan(0.03), 11, dtype=torch.float64).tan()
    assert best == pytest.approx(1.5735, rel=0.03)
    assert total(klub, arctan) / 64 == pytest.approx(15.86, rel=0.03)


def test_an_interval_is_measured_whatever_the_density_that_s_is_drawn_from():
    values = [Klub(Problem(gaussian(VE()), 4), 512, spread=c)(0.2, 1.5) / 64 for c in (0.5, 1.0, 2.0)]
    assert values[0] == pytest.approx(values[1], rel=0.05)
    assert values[2] == pytest.approx(values[1], rel=0.05)


def test_descent_never_rises_and_ends_at_the_best_grid():
    klub = Klub(Problem(gaussian(VE(14.6), 32), 4), 24, spread=1.0)
    levels, values = karras_levels(VE(14.6), 5, bottom=0.03), []
    for width in (1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25):
        values.append(total(klub, levels))
        levels = sweep(klub, levels, range(1, 4), width)
    assert all(b <= a for a, b in pairwise(values))
    assert values[-1] < values[0] / 2
    want = log_grid(14.6, 0.03, 4)
    assert float((levels / want).log().abs().max()) < 0.2
    assert values[-1] < 1.03 * total(klub, want)


def test_grids_are_halved_and_interpolated_in_log_rho():
    levels = torch.tensor([16.0, 4.0, 0.25], dtype=torch.float64)
    assert torch.allclose(halved(levels), torch.tensor([16.0, 8.0, 4.0, 1.0, 0.25], dtype=torch.float64))
    assert torch.allclose(interpolated(levels, 4), halved(levels))
    assert torch.allclose(interpolated(halved(levels), 2), levels)
    moved = sweep(lambda low, high: high - low, levels, range(0))
    assert torch.equal(moved, levels)


@pytest.mark.parametrize(("path", "solver"), [(VP(), "dpm-solver++"), (Flow(), "sde-dpm-solver++")])
def test_it_gains_on_noises_not_seen(path, solver):
    denoiser = world(path)
    tuner = AlignYourSteps(solver, base=4, doublings=1, sweeps=3, samples=16)
    plan = tune(denoiser, 4, method=tuner, samples=24)
    about = plan.source["tuned"]
    assert about["after"] < 0.9 * about["before"]
    assert about["untuned"] == f"{solver}, karras"
    assert (plan.evaluations, plan.times[0], plan.times[-1]) == (4, 1, 0)


def test_a_budget_ends_the_descent_and_a_kill_changes_nothing(tmp_path):
    denoiser = world(VP())
    tuner = AlignYourSteps(base=3, doublings=1, sweeps=3, samples=4)
    whole = tune(denoiser, 5, method=tuner, samples=8)
    file, lines = tmp_path / "a.safetensors", []

    def die(line):
        lines.append(line)
        if line.startswith("refining"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(denoiser, 5, method=tuner, samples=8, checkpoint=file, tell=die)
    again = tune(denoiser, 5, method=tuner, samples=8, checkpoint=file)
    assert again == whole
    assert again.source["tuned"]["spent"] == whole.source["tuned"]["spent"]
    little = tune(denoiser, 5, method=tuner, samples=8, budget=700).source["tuned"]
    assert 0 < little["spent"] <= 700
    with pytest.raises(ArgumentError, match="needs at least 40 evaluations"):
        tune(denoiser, 5, method=tuner, samples=8, budget=39)


def test_bad_arguments_are_refused():
    for options, message in (({"base": 1}, "base must be"), ({"bottom": 0.0}, "bottom must lie")):
        with pytest.raises(ArgumentError, match=message):
            AlignYourSteps(**options)
