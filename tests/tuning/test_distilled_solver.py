"""D-ODE solvers: the published rows by hand, a fit that is a projection, known figures, and what it gains."""

import itertools

import pytest
import torch

from fewstep import VP, Flow, make_plan, sample, wrap
from fewstep.errors import ArgumentError
from fewstep.tuning.distilled_solver import DistilledSolver, pushed
from fewstep.tuning.problem import Problem
from fewstep.tuning.random_mixtures import mixtures
from fewstep.tuning.teacher import taught
from fewstep.worlds import Gaussian

PATH = VP()
TIMES = torch.tensor([1.0, 0.7, 0.4, 0.1], dtype=torch.float64)


def tanh(path=PATH):
    return wrap(lambda x, t: torch.tanh(2 * x) * (1 - t[:, None]), path, "x0", shape=(3,), time="t")


def noises(n, d=3):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def noise_at(x, t):
    return (x - PATH.alpha(t) * tanh()(x, t)) / PATH.sigma(t)


def test_d_ddim_is_what_the_paper_says():
    pushes = torch.tensor([5.0, 0.3, -0.2], dtype=torch.float64)
    for reads in ("noise", "data"):
        x, before = noises(4), None
        out = sample(tanh(), start=x, plan=pushed(make_plan(PATH, "ddim", TIMES), pushes, reads)).x
        for i, (s, t) in enumerate(itertools.pairwise(TIMES)):
            x0, eps = tanh()(x, s), noise_at(x, s)
            d = eps if reads == "noise" else x0
            x = PATH.alpha(t) * x0 + PATH.sigma(t) * eps + (pushes[i] * (d - before) if i else 0)
            before = d
        assert torch.allclose(out, x, rtol=1e-10)


def test_d_dpm_solver_2_pushes_both_stages():
    pushes = torch.tensor([9.0, 0.3, -0.2, 0.1, 0.4, -0.6], dtype=torch.float64)
    plan, x = make_plan(PATH, "dpm-solver-2", TIMES), noises(4)
    out = sample(tanh(), start=x, plan=pushed(plan, pushes)).x
    before = None
    for i, (s, t) in enumerate(itertools.pairwise(TIMES)):
        mid = PATH.t_of_lam((PATH.lam(s) + PATH.lam(t)) / 2)
        eps = noise_at(x, s)

        def ddim(to, eps, x=x, s=s):
            return PATH.alpha(to) * (x - PATH.sigma(s) * eps) / PATH.alpha(s) + PATH.sigma(to) * eps

        u = ddim(mid, eps) + (pushes[2 * i] * (eps - before) if i else 0)
        there = noise_at(u, mid)
        x = ddim(t, there) + pushes[2 * i + 1] * (there - eps)
        before = there
    assert torch.allclose(out, x, rtol=1e-9)


def test_the_gain_on_gaussian_data_is_the_known_one():
    c = torch.arange(1, 65, dtype=torch.float64) ** -1.5
    denoiser = Gaussian(torch.zeros(64, dtype=torch.float64), c).denoiser(PATH)
    # Figures that were found with other code: the distance to the exact flow over all 64 axes.
    for steps, before, after in ((5, 0.770, 0.498), (10, 0.524, 0.303), (20, 0.336, 0.158)):
        problem = Problem(denoiser, steps)
        start = problem.starts(256, part=0)
        std = (PATH.alpha(TIMES.new_tensor([1.0, 0.001]))[:, None] ** 2 * c + PATH.sigma(
            TIMES.new_tensor([1.0, 0.001]))[:, None] ** 2).sqrt()  # fmt: skip
        plan = make_plan(PATH, "ddim", torch.linspace(1, 0.001, steps + 1, dtype=torch.float64))
        tuned = DistilledSolver().fit(problem, plan)
        assert problem.spent == 64 * 11 * steps
        for one, known in ((plan, before), (tuned, after)):
            error = (problem.run(one, start) - start * std[1] / std[0]).square().sum(1).mean().sqrt()
            assert float(error) == pytest.approx(known, rel=0.08)


@pytest.mark.parametrize(("base", "path"), [("ddim", Flow()), ("heun", PATH), ("dpm-solver++", PATH)])
def test_a_row_misses_nothing_along_its_direction(base, path):
    problem = Problem(tanh(path), 5, samples=16)
    tuner = DistilledSolver(base, pieces=4, reweighted=0)
    plan, start = tuner.untuned(problem), problem.starts(16, part=1)
    tuned = tuner(problem)
    pushes = torch.tensor(tuned.source["pushes"], dtype=torch.float64)
    # The last row: a small change of its number along q does not bring it nearer to the teacher's end.
    ends = torch.cat([plan.ask_times[1:], plan.times[-1:]])
    grid = torch.cat([plan.times[:1], ends]).unique().flip(0)
    end = taught(problem, "ddim", grid, start, 4)[-1]

    def off(change):
        other = pushes.clone()
        other[-1] += change
        return float((problem.run(pushed(plan, other), start) - end).square().sum())

    assert off(0) < off(0.01)
    assert off(0) < off(-0.01)
    assert abs(off(0.01) - off(-0.01)) < 1e-3 * (off(0.01) - off(0))


def test_a_teacher_that_is_the_student_leaves_it_as_it_is():
    tuned = DistilledSolver(pieces=1)(Problem(tanh(), 4, samples=8))
    assert torch.tensor(tuned.source["pushes"]).abs().max() < 1e-9


def test_it_gains_on_noises_that_it_never_saw():
    denoiser = mixtures(PATH, 8, 2)[0][0]
    start, ends = Problem(denoiser, 5).pairs(32, part=0)
    for evaluations in (5, 10):
        problem, tuner = Problem(denoiser, evaluations, samples=32), DistilledSolver()
        plan, before = tuner(problem), tuner.untuned(problem)
        assert plan.evaluations == before.evaluations == evaluations
        assert problem.error(plan, start, ends) < problem.error(before, start, ends) / 1.5


@pytest.mark.parametrize("which", [1, 2])
def test_the_median_gains_where_modes_lie_apart_only_if_samples_gone_astray_count_less(which):
    problem = Problem(mixtures(PATH, 8, 2)[which][0], 8, samples=32)
    start, ends = problem.pairs(64, part=0)
    before = problem.error(DistilledSolver().untuned(problem), start, ends)
    assert problem.error(DistilledSolver()(problem), start, ends) < before / 1.5
    assert problem.error(DistilledSolver(reweighted=0)(problem), start, ends) > before


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="reweighted must be"):
        DistilledSolver(reweighted=-1)
    with pytest.raises(ArgumentError, match="reads must be"):
        DistilledSolver(reads="v")
    with pytest.raises(ArgumentError, match="draws no noise and asks once a row"):
        DistilledSolver("ddpm")(Problem(tanh(), 4))
