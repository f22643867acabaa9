"""GITS: its way is the cheapest of all, its costs are those of Euler's jumps, trajectories are regular, it gains."""

from functools import cache
from itertools import combinations, pairwise

import pytest
import torch

from fewstep import VE, VP, Flow, make_plan, sample, tune
from fewstep.errors import ArgumentError
from fewstep.tuning.gits import Gits, cheapest_way, deviation, jump_costs
from fewstep.tuning.levels import intervals, karras_levels
from fewstep.tuning.problem import Problem
from fewstep.tuning.random_mixtures import mixtures


@cache
def world(path):
    """Twenty overlapping modes in 64 dimensions; made once a path, as the flow that comes with it takes its time."""
    return mixtures(path, 8, 1)[1][0]


@pytest.mark.parametrize("gamma", [1.0, 1.15, 0.7])
@pytest.mark.parametrize("steps", [1, 3, 5, 8])
def test_the_way_is_the_cheapest_of_all(gamma, steps):
    costs = torch.rand(9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(steps)).triu(1)
    costs[costs == 0] = float("inf")

    def price(way):
        return sum(gamma**k * float(costs[i, j]) for k, (i, j) in enumerate(pairwise(way)))

    every = [(0, *inner, 8) for inner in combinations(range(1, 8), steps - 1)]
    found = cheapest_way(costs, steps, gamma)
    assert len(found) == steps + 1
    assert price(found) == pytest.approx(min(map(price, every)))
    with pytest.raises(ArgumentError, match="1 to 8 jumps"):
        cheapest_way(costs, 9)


def test_distances_from_a_chord():
    points = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 0.0], [3.0, 0.0, -4.0]]).double()
    first, last = torch.zeros(3).double(), torch.tensor([5.0, 0.0, 0.0]).double()
    assert torch.allclose(deviation(points, first, last), torch.tensor([0.0, 2.0, 4.0]).double())


@pytest.mark.parametrize("path", [VE(), VP()], ids=lambda p: p.kind)
def test_costs_are_those_of_one_ddim_step(path):
    problem = Problem(world(path), 4, samples=8)
    levels = karras_levels(path, 7)
    seen = Gits(nodes=7)._trajectories(problem, levels)
    costs = jump_costs(levels, seen["states"], seen["answers"], "l2")
    t = path.t_of_lam(-levels.log())
    x = seen["states"][2] * path.alpha(t[2])
    jumped = sample(problem.denoiser, start=x, plan=make_plan(path, "ddim", t[[2, 5]])).x
    want = (jumped / path.alpha(t[5]) - seen["states"][5]).norm(dim=1).mean()
    assert float(costs[2, 5]) == pytest.approx(float(want), rel=1e-9)
    first = deviation(jumped / path.alpha(t[5]), seen["states"][0], seen["states"][-1])
    second = deviation(seen["states"][5], seen["states"][0], seen["states"][-1])
    dev = jump_costs(levels, seen["states"], seen["answers"])
    assert float(dev[2, 5]) == pytest.approx(float((first - second).mean()), rel=1e-9)
    assert bool(costs[torch.ones(7, 7).tril().bool()].isinf().all())


def test_trajectories_lie_near_three_directions_and_bend_once():
    problem = Problem(world(VE()), 4, samples=16)
    states = Gits()._trajectories(problem, karras_levels(VE(), 61))["states"]
    for one in states.unbind(1):
        values = torch.linalg.svdvals(one - one.mean(0)).square()
        assert float(values[:3].sum() / values.sum()) > 0.999
    bend = deviation(states, states[0], states[-1]).mean(1)
    top = int(bend.argmax())
    assert 0 < top < 60
    assert bool((bend[: top + 1].diff() > 0).all())
    assert bool((bend[top:].diff() < 0).all())


@pytest.mark.parametrize(("path", "solver"), [(VE(), "ipndm"), (Flow(), "ddim"), (VP(), "ipndm")])
def test_it_gains_on_noises_not_seen(path, solver):
    plan = tune(world(path), 8, method=Gits(solver), samples=24, settle=False)
    about = plan.source["tuned"]
    assert about["after"] < 0.7 * about["before"]
    tried = len(about["history"])
    assert 1 < tried <= 16
    assert about["spent"] == (60 + 8 * tried) * 24
    assert (plan.evaluations, plan.times[0], plan.times[-1]) == (8, 1, 0)


def test_the_grid_that_is_taken_is_the_nearest_to_the_teacher_of_all_that_are_tried():
    denoiser = mixtures(VP(), 8, 1)[3][0]
    published, found, poor = (
        (tuner(Problem(denoiser, 8, samples=24, budget=budget)))
        for tuner, budget in ((Gits(gamma=1.15, metric="dev"), None), (Gits(), None), (Gits(), 60 * 24))
    )
    problem = Problem(denoiser, 8)
    start, ends = problem.pairs(32, part=0)
    assert problem.error(found, start, ends) < 0.8 * problem.error(published, start, ends)
    # A budget for the teacher alone leaves the published ones.
    assert torch.equal(poor.times, published.times)


def test_solvers_of_several_evaluations_and_bad_arguments():
    assert intervals(VP(), "heun", 9) == 5
    assert make_plan(VP(), "heun", "logsnr", 5).evaluations == 9
    with pytest.raises(ArgumentError, match="costs"):
        intervals(VP(), "rk4", 0)
    for options, message in (({"nodes": 2}, "nodes must"), ({"gamma": 0}, "gamma must"), ({"metric": "l3"}, "metric")):
        with pytest.raises(ArgumentError, match=message):
            Gits(**options)
    denoiser = world(VP())
    with pytest.raises(ArgumentError, match="needs at least 960"):
        tune(denoiser, 4, method="gits", samples=16, budget=900)
