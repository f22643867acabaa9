"""Every plan that the catalogue can make survives JSON bit for bit: bridges, one time a sample, restarts, loops."""

import json

import pytest
import torch

from fewstep import VP, Flow, make_plan, wrap
from fewstep.catalog import methods
from fewstep.denoisers.energy import EnergyDenoiser
from fewstep.denoisers.learned_variance import wrap_with_variance
from fewstep.errors import ArgumentError, PlanError
from fewstep.loops import loop_named
from fewstep.paths import RDDM, MeanReverting, ResShift, VEBridge, VPBridge
from fewstep.plan.files import dumps, loads
from fewstep.solvers import solver_named
from fewstep.solvers.bridge_boot import Booted
from fewstep.worlds import Gaussian

SOLVERS = [m.name for m in methods() if m.family == "solvers"]
LOOPS = [m.name for m in methods() if m.family == "loops"]
BRIDGES = {m.name: m for m in methods() if m.family == "bridges"}
PATHS = {"rddm": RDDM(), "resshift": ResShift(), "resshift-4": ResShift(4, 0.2), "mr-sampler": MeanReverting()}
BOOTED = ["dbim", "dbim-3"]


def survives(plan):
    text = dumps(plan)
    again = loads(text)
    assert again == plan
    assert again.source == json.loads(json.dumps(plan.source))
    assert again.deviates == plan.deviates
    assert again.restarts == plan.restarts
    assert dumps(again) == text


def test_every_row_of_the_family_is_here():
    assert set(BRIDGES) == {*PATHS, *BOOTED}


@pytest.mark.parametrize("path", PATHS.values(), ids=list(PATHS))
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_on_a_bridge(solver, path):
    survives(make_plan(path, solver, "uniform", 4))


@pytest.mark.parametrize("path", [VEBridge(), VPBridge(), VP(), Flow()], ids=lambda p: p.kind)
@pytest.mark.parametrize("row", BOOTED)
def test_a_booted_solver(row, path):
    survives(make_plan(path, Booted(**dict(BRIDGES[row].arguments)), "uniform", 5))


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_time_a_sample(solver):
    """Where a solver takes such times at all."""
    times = torch.tensor([[0.9, 1.0], [0.5, 0.7], [0.2, 0.3], [0.0, 0.0]], dtype=torch.float64)[..., None]
    try:
        plan = make_plan(VP(), solver, times)
    except (ArgumentError, PlanError):
        assert solver in ("churn", "deis", "phase-space-conjugate", "phase-space-euler", "phase-space-oba", "restart")
        return
    survives(plan)


def model(name):
    if name == "ensemble":
        return EnergyDenoiser(lambda x: x.square().sum(-1), VP(), (3,), 64)
    if name == "improved-ddpm":
        return wrap_with_variance(lambda x, t: torch.cat([torch.tanh(x)] * 2, 1), VP(), "x0", shape=(3,))
    if name == "dmcmc":
        return Gaussian(torch.zeros(3, dtype=torch.float64), 1.0).denoiser(VP())
    return wrap(lambda x, t: 0.7 * torch.tanh(x), VP(), "x0", shape=(3,))


@pytest.mark.parametrize("name", LOOPS)
def test_the_plan_that_a_loop_ran(name):
    loop = loop_named(name)
    survives(loop.opening(VP()))
    survives(loop(model(name), 4).plan)


def test_a_plan_of_odd_numbers():
    """Numbers without a short decimal form, and a solver that was not in the catalogue."""
    times = torch.tensor([1 - 2**-53, 1 / 3, 5e-324**0.25, 0.0], dtype=torch.float64)
    survives(solver_named("ddim", eta=1 / 3)(VP(), times, {"note": "σ ≥ ⅓"}))
