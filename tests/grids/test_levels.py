"""Grids given by a list in σ, in λ or in a network's timesteps."""

import math

import pytest
import torch

import fewstep
from fewstep import VE, VP, Flow, make_plan
from fewstep.errors import ArgumentError
from fewstep.grids import GRIDS, Levels
from fewstep.kdiffusion import to_sigmas

SD = VP.from_betas("scaled_linear")


@pytest.mark.parametrize("path", [VP(), SD, VE(), Flow()], ids=["vp", "discrete", "ve", "flow"])
def test_a_list_in_any_unit_is_the_grid_that_it_was_made_of(path):
    times = GRIDS["logsnr"](path, 6, 0.9)
    lam = path.lam(times)
    sigmas = path.sigma(times) if isinstance(path, Flow) else path.sigma(times) / path.alpha(times)
    for values, unit in ((sigmas, "sigma"), (sigmas.tolist(), "sigma"), (lam, "lam"), (lam.tolist(), "lam")):
        assert torch.allclose(Levels(values, unit).times(path), times, rtol=0, atol=1e-9)
    # The tools' own float32 lists.
    assert torch.allclose(Levels(to_sigmas(path, times)).times(path), times, rtol=0, atol=1e-6)


def test_timesteps_are_those_of_diffusers():
    times = Levels([999, 749, 499, 249], "timestep").times(SD)
    assert torch.equal(times, GRIDS["trailing"](SD, 4, 1.0))
    assert float(SD.alpha(times[1])) == pytest.approx(math.prod(1 - b for b in SD.betas[:750]) ** 0.5, rel=1e-12)
    assert Levels([249], "timestep").times(SD).tolist() == [0.25, 0.0]


def test_a_list_that_ends_before_the_data_ends_there():
    assert float(Levels([2.0, 0.5], "sigma").times(SD)[-1]) > 0
    assert float(SD.lam(Levels([-1.0, 1.5], "lam").times(SD)[-1])) == pytest.approx(1.5)


def test_every_call_takes_it():
    times = GRIDS["trailing"](SD, 3, 1.0)
    plan = make_plan(SD, "dpm-solver++", Levels([999, 666, 332], "timestep"))
    assert plan.source["grid"] == "given in timestep"
    assert torch.equal(plan.times, make_plan(SD, "dpm-solver++", Levels([999, 666, 332], "timestep").times(SD)).times)
    assert torch.allclose(plan.times, times, atol=2e-3)
    den = fewstep.wrap(lambda x, t: 0.1 * x, SD, "eps", shape=(2,))
    out = fewstep.sample(den, 2, solver="ddim", grid=Levels([5.0, 1.0, 0.0]))
    assert out.stats.evaluations == 2


@pytest.mark.parametrize(
    ("values", "unit", "says"),
    [
        ([1.0, 2.0, 0.0], "sigma", "fall strictly"),
        ([2.0, 1.0, 1.0], "sigma", "fall strictly"),
        ([2.0, -1.0], "sigma", "at least 0"),
        ([math.inf, 1.0], "sigma", "finite"),
        ([2.0, math.nan], "sigma", "finite"),
        ([2.0], "sigma", "fall strictly"),
        ([1.0, 0.5], "lam", "rise strictly"),
        ([-math.inf, 0.5], "lam", "rise strictly"),
        ([], "timestep", "fall strictly"),
        ([10, 20], "timestep", "fall strictly"),
        ("many", "sigma", "a list of numbers"),
        ([1.0, 0.0], "snr", "unknown unit 'snr'"),
    ],
)
def test_what_is_no_list_of_levels_is_refused_at_once(values, unit, says):
    with pytest.raises(ArgumentError, match=says):
        Levels(values, unit)


def test_levels_beyond_the_path_are_refused():
    with pytest.raises(ArgumentError, match=r"go up to 14\.6"):
        make_plan(SD, "ddim", Levels([80.0, 1.0, 0.0]))
    with pytest.raises(ArgumentError, match=r"λ of this path begins at -2\.68"):
        make_plan(SD, "ddim", Levels([-5.0, 1.0, math.inf], "lam"))
    with pytest.raises(ArgumentError, match="go from 0 to 999"):
        make_plan(SD, "ddim", Levels([1000, 1], "timestep"))
    with pytest.raises(ArgumentError, match="leave steps and evaluations out"):
        make_plan(SD, "ddim", Levels([2.0, 0.0]), steps=3)
