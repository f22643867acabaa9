"""A tuning goes from its start to what it found only as far as it pays on noises that it never saw."""

from dataclasses import dataclass, replace

import pytest
import torch

import fewstep
from fewstep import VP, Flow, make_plan, tune
from fewstep.plan import Plan
from fewstep.tuning.distilled_solver import DistilledSolver, pushed
from fewstep.tuning.dynamic_compensation import DynamicCompensation, compensated
from fewstep.tuning.problem import Problem, Tuner
from fewstep.tuning.quasi_newton import minimise
from fewstep.tuning.settling import SHARES, between, settled
from fewstep.tuning.timestep_aligner import aligned


def small():
    return fewstep.wrap(lambda x, t: 0.5 * torch.tanh(2 * x), VP(), "x0", shape=(6,))


def ends_of(plan, n=6):
    problem = Problem(small(), plan.evaluations)
    return problem.run(plan, problem.starts(n, part=4))


def test_a_share_of_fitted_numbers_is_the_plan_with_that_share_of_them():
    plan, pushes = make_plan(VP(), "ipndm", "logsnr", 5), torch.tensor([0.0, 0.3, -0.2, 0.1, 0.05], dtype=torch.float64)
    half = between(plan, pushed(plan, pushes), 0.25)
    assert torch.allclose(ends_of(half), ends_of(pushed(plan, 0.25 * pushes)), rtol=1e-10, atol=1e-12)


def test_a_share_of_a_grid_is_even_in_lambda():
    one, other = (make_plan(VP(), "ipndm", grid, 5) for grid in ("logsnr", "karras"))
    middle = between(one, other, 0.5)
    lam = [VP().lam(plan.times[1:-1]) for plan in (one, middle, other)]
    assert torch.allclose(lam[1], (lam[0] + lam[2]) / 2)
    assert middle.order == one.order


def test_a_share_of_told_times_lies_between():
    plan = make_plan(VP(), "ddim", "uniform", 4)
    found = aligned(plan, torch.tensor([1.0, 0.8, 0.9, 1.0], dtype=torch.float64))
    half = between(plan, found, 0.5)
    assert torch.allclose(half.ask_times, (plan.ask_times + found.ask_times) / 2)
    assert half.deviates
    for share in (0.0, 1.0):
        assert between(plan, found, share) is (found if share else plan)


@pytest.mark.parametrize("path", [VP(), Flow()], ids=["vp", "flow"])
@pytest.mark.parametrize("steps", [4, 6])
def test_a_register_that_one_plan_fills_later_than_the_other_is_whole_until_then(path, steps):
    base = DynamicCompensation().base
    start = make_plan(path, base, "uniform", steps)
    found = compensated(path, start.times, torch.linspace(1.0, 1.4, steps, dtype=torch.float64), base)
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def ends(plan):
        net = fewstep.wrap(lambda x, t: 0.5 * torch.tanh(2 * x), path, "x0", shape=(6,))
        return fewstep.sample(net, start=x, plan=plan).x

    # Building a plan checks that every register stands where its path says.
    way = [ends(between(start, found, share)) for share in (0.001, 0.25, 0.5, 0.75, 0.999)]
    whole = float((ends(found) - ends(start)).norm())
    left = [float((ends(found) - x).norm()) / whole for x in way]
    assert float((way[0] - ends(start)).norm()) < 0.01 * whole
    assert left[-1] < 0.01
    assert left == sorted(left, reverse=True)


def test_where_there_is_no_way_between_there_is_none():
    plan = make_plan(VP(), "ddim", "uniform", 4)
    for solver, grid, steps in (("ddim", "uniform", 5), ("unipc", "karras", 4), ("ddpm", "uniform", 4)):
        other = make_plan(VP(), solver, grid, steps)
        assert between(plan, other, 0.5) is None
        assert between(plan, other, 1.0) is other


@dataclass(frozen=True)
class Beginning(Tuner):
    """Begins with a plan, and finds nothing."""

    plan: Plan

    def __call__(self, problem):
        return self.plan

    def untuned(self, problem):
        return self.plan


def test_the_best_share_on_noises_of_their_own_is_taken():
    problem = Problem(small(), 5, samples=32)
    plan = make_plan(VP(), "ddim", "logsnr", 5)
    start, ends = problem.pairs(16, part=3)
    found = DistilledSolver().fit(problem, plan)
    # Four times the pushes that DDIM wants: a part of the way is best.
    far = pushed(plan, 4 * torch.tensor(found.source["pushes"], dtype=torch.float64))
    kept, seen = settled(problem, Beginning(plan), far)
    assert list(seen["settled"]) == [f"{s:g}" for s in SHARES]
    assert 0 < seen["went"] < 1
    off = (problem.run(kept, start) - ends).square().mean(1).sqrt().log().mean().exp()
    assert float(off) == pytest.approx(min(seen["settled"].values()))
    assert seen["settled"][f"{seen['went']:g}"] == min(seen["settled"].values())
    told = "not measured: the budget did not allow it"
    assert settled(Problem(small(), 5, budget=1000), Beginning(plan), found) == (found, {"went": 1.0, "settled": told})
    noisy = make_plan(VP(), "ddpm", "logsnr", 5)
    assert settled(problem, Beginning(plan), noisy)[0] is noisy
    lighter = replace(plan, skips=(("a layer",), (), (), (), ()))
    assert settled(problem, Beginning(plan), lighter)[0] is lighter


@dataclass(frozen=True)
class Spoiling(Tuner):
    """What it finds is worse than its start."""

    def __call__(self, problem: Problem) -> Plan:
        return pushed(self.untuned(problem), torch.full((5,), 0.5, dtype=torch.float64))

    def untuned(self, problem: Problem) -> Plan:
        return make_plan(problem.denoiser.path, "dpm-solver++", "logsnr", 5)


def test_a_plan_that_is_no_better_than_its_start_is_not_kept_and_the_plan_says_so():
    plan = tune(small(), 5, method=Spoiling(), samples=16)
    about = plan.source["tuned"]
    assert (about["went"], about["after"]) == (0.0, about["before"])
    assert about["spent"] == 16 * 199 + len(SHARES) * 16 * 5
    assert "The start itself was kept; on noises of their own, by the share of the way, 0%: " in str(tune.report(plan))
    raw = tune(small(), 5, method=Spoiling(), samples=16, settle=False).source["tuned"]
    assert raw["after"] > raw["before"]
    assert raw["spent"] == 0


def test_quasi_newton_reaches_what_is_known_and_counts_its_losses():
    z = torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)
    losses = minimise([z], lambda: 1e-6 + (1 - z[0]) ** 2 + 100 * (z[1] - z[0] ** 2) ** 2, 200)
    assert torch.allclose(z.detach(), torch.ones(2).double(), atol=1e-3)
    assert len(losses) < 200
    few = torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)
    left = iter([True, True, False])
    seen = minimise([few], lambda: 1 + few.square().sum(), 200, more=lambda: next(left))
    assert len(seen) == 3
    assert float(1 + few.detach().square().sum()) == pytest.approx(min(seen))
