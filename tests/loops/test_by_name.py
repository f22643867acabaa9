"""`sample` runs loops and bridges by their names, and says what to call where it cannot."""

import pytest
import torch

import fewstep
from fewstep import CFG, VP, make_plan, sample, stream, wrap, wrap_bridge
from fewstep.catalog import methods
from fewstep.denoisers.energy import EnergyDenoiser
from fewstep.denoisers.learned_variance import wrap_with_variance
from fewstep.errors import ArgumentError
from fewstep.loops import loop_named
from fewstep.paths import RDDM, Flow, ResShift, VPBridge
from fewstep.solvers import solver_named
from fewstep.solvers.bridge_boot import Booted
from fewstep.worlds import GaussianMixture

LOOPS = [m.name for m in methods() if m.family == "loops"]
PATHS = [m for m in methods() if m.family == "bridges" and m.module.startswith("fewstep.paths.")]
WORLD = GaussianMixture(
    [0.5, 0.5], torch.tensor([[-1.0, 0.3], [0.8, -0.5]]), torch.full((2, 1), 0.1), component_labels=[0, 1]
)


def model(name):
    if name == "ensemble":
        return EnergyDenoiser(lambda x: x.square().sum(-1), VP(), (3,), 64)
    if name == "improved-ddpm":
        return wrap_with_variance(lambda x, t: torch.cat([torch.tanh(x)] * 2, 1), VP(), "x0", shape=(3,))
    return WORLD.denoiser(VP())


@pytest.mark.parametrize("name", LOOPS)
def test_sample_runs_a_loop_by_its_name(name):
    loop = loop_named(name)
    want, got = loop(model(name), 3, seed=5, first=2), sample(model(name), 3, solver=name, seed=5, first=2)
    assert torch.equal(got.x, want.x)
    assert got.stats.evaluations == want.stats.evaluations
    assert type(got.stats) is type(want.stats)
    assert got.plan == want.plan
    assert got.seeds == want.seeds


def test_grid_steps_and_the_other_options_reach_the_loop():
    start = torch.randn(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    options = {"cond": {"label": [0, 1]}, "guides": [CFG(1.5)], "start": start}
    want = loop_named("paradigms", grid="logsnr", steps=12)(model(""), **options)
    got = sample(model(""), solver="paradigms", grid="logsnr", steps=12, **options)
    assert torch.equal(got.x, want.x)
    assert got.x.dtype == torch.float64
    assert got.plan.steps == 12
    assert got.stats.rounds == want.stats.rounds
    same = sample(model(""), solver=loop_named("paradigms", grid="logsnr", steps=12), steps=None, **options)
    assert torch.equal(same.x, want.x)
    with pytest.raises(ArgumentError, match="takes no steps here"):
        sample(model(""), 2, solver=loop_named("paradigms"), steps=12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"evaluations": 10},
            "takes no evaluations here; its own parameters are grid, solver, steps, tol",
        ),
        ({"noise": "brownian"}, "takes no noise"),
        ({"grad": True, "debug": True}, "takes no debug, grad"),
        ({"keep": "trajectory"}, "shows no steps"),
        ({"progress": True}, "shows no steps"),
        ({"callback": print}, "shows no steps"),
    ],
)
def test_what_a_loop_does_not_take_is_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        sample(model(""), 2, solver="paradigms", **options)


def test_a_loop_without_steps_says_so():
    with pytest.raises(ArgumentError, match=r"takes no steps here; its own parameters .*loop_named\('dpm-solver-a"):
        sample(model(""), 2, solver="dpm-solver-adaptive", steps=5)


@pytest.mark.parametrize("name", LOOPS)
def test_where_a_loop_cannot_be_the_error_names_the_call(name):
    for call in (lambda: make_plan(VP(), name, steps=4), lambda: stream(model(""), 2, solver=name)):
        with pytest.raises(ArgumentError, match=rf"is a loop .*fewstep\.sample\(denoiser, solver='{name}'\)"):
            call()


def net(x, time, y):
    return torch.tanh(0.7 * x + 0.2 * y)


@pytest.mark.parametrize("row", ["dbim", "dbim-3"])
def test_a_bridge_row_that_is_a_solver_is_one(row):
    assert isinstance(solver_named(row), Booted)
    path, y = VPBridge(), torch.randn(3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    den = wrap_bridge(net, path, shape=(2, 4))
    arguments = dict(next(m for m in methods() if m.name == row).arguments)
    runs = [
        sample(den, start=den.start(y), cond={"y": y}, solver=solver, steps=5, grid="uniform").x
        for solver in (row, Booted(**arguments))
    ]
    assert torch.equal(*runs)
    assert not torch.equal(runs[0], sample(den, start=den.start(y), cond={"y": y}, solver=row, steps=6).x)


@pytest.mark.parametrize("row", PATHS, ids=lambda m: m.name)
def test_a_bridge_row_that_is_a_path_names_the_call(row):
    message = rf"{row.name}' is a path and takes any solver: den = fewstep.wrap_bridge\(net, fewstep.paths.{row.symbol}"
    for call in (lambda: make_plan(VP(), row.name, steps=4), lambda: sample(model(""), 2, solver=row.name)):
        with pytest.raises(ArgumentError, match=message):
            call()


@pytest.mark.parametrize("path", [RDDM(), ResShift(), VPBridge()], ids=lambda p: p.kind)
def test_wrap_refuses_a_bridge_and_names_wrap_bridge(path):
    with pytest.raises(ArgumentError, match=r"is a bridge.*fewstep\.wrap_bridge\(net, path"):
        wrap(net, path, "x0", shape=(2, 4))
    assert fewstep.wrap_bridge(net, path, shape=(2, 4)).path == path
    with pytest.raises(ArgumentError, match="wrap takes others"):
        wrap_bridge(net, Flow(), shape=(2, 4))


def test_an_unknown_name_is_still_unknown():
    with pytest.raises(ArgumentError, match="unknown solver 'paradigm'"):
        sample(model(""), 2, solver="paradigm")
