"""Time shift: no window is the solver itself, the time chosen is the right one, rows, replay, and what it is for."""

import math

import pytest
import torch

from fewstep import CFG, VP, Flow, Plan, sample, wrap
from fewstep.errors import ArgumentError
from fewstep.guidance import Guide
from fewstep.loops import loop_named
from fewstep.loops.time_shift import TimeShift, closest_time
from fewstep.session import prepare
from fewstep.worlds import Gaussian

SOLVERS = ["ddim", "ddpm", "dpm-solver++", "euler"]


def wide(path=None, variance=0.01, size=256):
    return Gaussian(torch.zeros(size), variance).denoiser(path or VP())


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
def test_without_a_window_it_is_the_solver(path, solver):
    want = sample(wide(path), 3, solver=solver, grid="uniform", steps=7, seed=4, dtype=torch.float64)
    got = TimeShift(solver, steps=7, window=0.0)(wide(path), 3, seed=4, dtype=torch.float64)
    assert torch.allclose(got.x, want.x, rtol=1e-12, atol=1e-12)
    assert got.stats.evaluations == want.stats.evaluations


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_plan_that_ran_and_a_row_alone_make_the_same_sample(solver, tmp_path):
    den = wide()
    out = TimeShift(solver, steps=7, window=0.2)(den, 4, seed=1, dtype=torch.float64)
    start = prepare(den, 4, steps=1, seed=1, dtype=torch.float64).start
    again = sample(den, start=start, seed=1, plan=out.plan)
    assert torch.allclose(again.x, out.x, rtol=1e-10, atol=1e-10)
    alone = TimeShift(solver, steps=7, window=0.2)(den, 1, seed=1, first=2, dtype=torch.float64)
    assert torch.allclose(alone.x, out.x[2:3], rtol=1e-12, atol=1e-12)
    assert torch.allclose(alone.plan.times[:, 0], out.plan.times[:, 2], atol=1e-12)
    out.plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == out.plan


def test_the_closest_time_is_the_root_within_the_window():
    path = VP()
    true = torch.tensor([0.4, 0.55, 0.7, 0.2], dtype=torch.float64)
    low, high = torch.full_like(true, 0.5), torch.full_like(true, 0.6)
    found = closest_time(path, path.sigma(true).square(), low, high)
    assert torch.allclose(found, torch.tensor([0.5, 0.55, 0.6, 0.5], dtype=torch.float64), atol=1e-12)


def test_the_first_shift_by_hand():
    """After DDIM's first step, the time at which σ² = t² is the state's variance."""
    path = Flow()
    den = wide(path)
    out = TimeShift(steps=4, window=0.16, cutoff=0.6)(den, 9, dtype=torch.float64)
    x = prepare(den, 9, steps=1, dtype=torch.float64).start
    first = sample(den, start=x, plan=Plan.build(path, *_one_ddim(path, 1.0, 0.75))).x
    variance = (first - first.mean(1, keepdim=True)).square().sum(1) / 255
    times = out.plan.times.reshape(5, 9)
    assert torch.allclose(times[1], variance.sqrt().clamp(0.67, 0.83), atol=1e-9)
    assert times[1].unique().numel() > 5
    assert torch.equal(times[2:].unique(), torch.tensor([0.0, 0.25, 0.5], dtype=torch.float64))


def _one_ddim(path, t, t_next):
    from fewstep.plan import Builder

    builder = Builder(torch.tensor([t, t_next], dtype=torch.float64), ("x",))
    keep = path.sigma(t_next) / path.sigma(t)
    builder.ask("x")
    builder.add("x", "x", keep)
    builder.add("x", 0, path.alpha(t_next) - path.alpha(t) * keep)
    return (builder,)


@pytest.mark.parametrize("scale", [0.95, 1.05])
def test_a_state_that_is_off_its_level_finds_its_time(scale):
    """Noise of a wrong size: the flow is linear here, so the error stays to the end unless times are shifted."""
    den, error = wide(variance=0.01, size=1024), {}
    x = torch.randn(64, 1024, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    true = float(TimeShift(window=0.0)(den, start=x).x.var())
    for window in (0.0, 0.06):
        error[window] = abs(float(TimeShift(window=window)(den, start=scale * x).x.var()) / true - 1)
    assert error[0.0] == pytest.approx(abs(scale**2 - 1), abs=1e-6)
    assert error[0.06] < 0.2 * error[0.0]


def test_guidance_is_counted_and_bad_arguments_are_refused():
    def net(x, t, label):
        return torch.tanh(x) * (label.to(x.dtype)[:, None] + 1) / 4

    den = wrap(net, VP(), "x0", shape=(8,), null={"label": 3})
    out = loop_named("time-shift", steps=5)(den, 2, cond={"label": [0, 1]}, guides=[CFG(2.0)])
    assert out.stats.evaluations == 10
    for name, bad in (("window", -0.1), ("window", 1.5), ("cutoff", math.nan)):
        with pytest.raises(ArgumentError, match=name):
            TimeShift(**{name: bad})
    with pytest.raises(ArgumentError, match="one row"):
        TimeShift("heun")(wide())

    class Moves(Guide):
        level = "state"

    with pytest.raises(ArgumentError, match="move the state"):
        TimeShift()(wide(), guides=[Moves()])
