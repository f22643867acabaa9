"""Free multistep plans are the known ones at known weights, tuners gain on what they never saw, tables travel."""

import math

import pytest
import torch

import fewstep
from fewstep import VE, VP, Flow, make_plan, sample, tune
from fewstep.analysis import gaussian_w2
from fewstep.errors import ArgumentError, NumericalError, PlanError
from fewstep.plan import Plan
from fewstep.solvers.free_multistep import free_multistep, table_of
from fewstep.solvers.tuned import auto_plan, nearest_table, read_tables, shipped_tables, write_tables
from fewstep.tuning.descent import Parameters, Spectral, Trajectory, Worlds, mixtures
from fewstep.tuning.problem import Problem


@pytest.mark.parametrize("path", [VP(), VE(), Flow()], ids=lambda p: p.kind)
def test_known_weights_give_known_plans(path):
    grid = make_plan(path, "ddim", "logsnr", 5).times
    assert free_multistep(path, grid, torch.zeros(5, 3, dtype=torch.float64)).M.same(make_plan(path, "ddim", grid).M)
    like = Parameters.like_two_m(path, 5, depth=2)
    two_m, mine = make_plan(path, "dpm-solver++", "logsnr", 5), like.found()
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    denoiser = fewstep.wrap(lambda x, t: torch.tanh(x), path, "x0", shape=(4,))
    first = path.sigma(1.0) * x
    ends = [sample(denoiser, start=first, plan=p).x for p in (two_m, mine)]
    assert torch.allclose(*ends, rtol=1e-8, atol=1e-9)


def test_weights_that_reach_before_the_first_answer_do_nothing():
    times = make_plan(VP(), "ddim", "logsnr", 4).times
    weights = torch.full((4, 3), 0.1, dtype=torch.float64)
    other = weights.clone()
    other[0], other[1, 1:], other[2, 2] = 7.0, 7.0, 7.0
    assert free_multistep(VP(), times, weights) == free_multistep(VP(), times, other)
    with pytest.raises(ArgumentError, match="4 steps need weights"):
        free_multistep(VP(), times, weights[:3])


def test_the_error_has_the_gradient_of_nodes_and_weights():
    parameters = Parameters.like_two_m(VP(), 4)
    c = torch.tensor([0.01, 0.2, 1.0], dtype=torch.float64)

    def w2(gaps, weights):
        parameters.gaps, parameters.weights = gaps, weights
        return gaussian_w2(parameters.plan(), c)

    gaps, weights = (v.detach().clone().requires_grad_() for v in (parameters.gaps, parameters.weights))
    assert torch.autograd.gradcheck(w2, (gaps, weights), atol=1e-5)


def test_spectral_tuning_gains_what_it_promises():
    spectrum = torch.logspace(-3, 0, 20, dtype=torch.float64)
    denoiser = fewstep.worlds.Gaussian(torch.zeros(20, dtype=torch.float64), spectrum).denoiser(VP())
    plan = tune(denoiser, 5, method=Spectral(rounds=120), data=spectrum)
    about = plan.source["tuned"]
    assert about["after"] < about["before"] / 5
    assert about["spent"] == 0
    assert (
        float(gaussian_w2(plan, spectrum)) < float(gaussian_w2(make_plan(VP(), "dpm-solver++", steps=5), spectrum)) / 5
    )


def test_tuning_on_worlds_gains_on_others():
    denoiser = mixtures(VP(), 8, 2)[1][0]
    plan = tune(denoiser, 5, method=Worlds(rounds=40, samples=16), samples=16)
    assert plan.source["tuned"]["after"] < plan.source["tuned"]["before"] / 3
    assert "before (dpm-solver++, logsnr)" in str(tune.report(plan))
    assert tune.report(plan)._repr_png_().startswith(b"\x89PNG")
    assert Plan.load is not None
    assert table_of(plan).plan(VP()).evaluations == 5


def test_trajectory_tuning_counts_what_it_spends_and_keeps_its_budget():
    denoiser = fewstep.wrap(lambda x, t: 0.5 * torch.tanh(2 * x), VP(), "x0", shape=(6,))
    plan = tune(denoiser, 4, method=Trajectory(rounds=200, batch=8), samples=16, budget=16 * 200 + 8 * 4 * 10)
    about = plan.source["tuned"]
    assert about["spent"] == 16 * 199 + 8 * 4 * 11 or about["spent"] == 16 * 200 + 8 * 4 * 10 or about["spent"] < 4000
    assert plan.evaluations == 4
    with pytest.raises(ArgumentError, match="samples must be at least 16"):
        tune(denoiser, 4, method="trajectory", samples=4)


def test_a_loss_that_is_not_finite_is_refused():
    with pytest.raises(NumericalError, match="not finite"):
        Parameters.like_two_m(VP(), 3).descend(lambda plan: plan.times.sum() * math.nan, 3, 0.1)


@pytest.mark.parametrize("path", [VP(), VE(), Flow()], ids=lambda p: p.kind)
def test_shipped_tables_beat_two_m_on_mixtures_that_no_tuning_saw(path):
    for evaluations in (5, 8):
        tuned, plain = auto_plan(path, evaluations), make_plan(path, "dpm-solver++", evaluations=evaluations)
        assert tuned.evaluations == evaluations
        for denoiser, start, ends in mixtures(path, 6, 24):
            problem = Problem(denoiser, evaluations)
            assert problem.error(tuned, start, ends) < problem.error(plain, start, ends) / 3


def test_auto_chooses_the_nearest_and_says_so():
    assert make_plan(VP(), "auto", evaluations=7).evaluations == 6
    assert make_plan(VP(), "auto", steps=5).source["tuned"]["evaluations"] == 5
    assert "tuned" in str(make_plan(VP(), "auto", steps=5).source)
    assert make_plan(VP(), "auto", evaluations=40).source["solver"] == "unipc"
    assert make_plan(fewstep.Cosine(), "auto", evaluations=2).source["solver"] == "unipc"
    assert sample(fewstep.wrap(lambda x, t: x, VP(), "x0", shape=(2,)), 1, solver="auto", evaluations=5).x.shape == (
        1,
        2,
    )
    with pytest.raises(ArgumentError, match="its own grid"):
        make_plan(VP(), "auto", "karras", 5)


def test_tables_go_through_their_file(tmp_path):
    write_tables(tmp_path / "t.json", shipped_tables())
    assert read_tables(tmp_path / "t.json") == shipped_tables()
    (tmp_path / "bad.json").write_text('[{"first": 1}]')
    with pytest.raises(PlanError, match="tuned tables"):
        read_tables(tmp_path / "bad.json")
    assert nearest_table(VP(beta_min=1e-4, beta_max=1.0), 5) is None


def test_bad_arguments_are_refused():
    denoiser = fewstep.wrap(lambda x, t: x, VP(), "x0", shape=(2,))
    for message, options in {
        "unknown tuning method 'spectrl'; did you mean 'spectral'": {"method": "spectrl"},
        "evaluations must be": {"evaluations": 1},
        "budget must be": {"budget": 0},
        "data must be a spectrum": {"method": "spectral", "data": torch.zeros(5, 3)},
    }.items():
        with pytest.raises(ArgumentError, match=message):
            tune(denoiser, **{"evaluations": 4, **options})
    with pytest.raises(ArgumentError, match="fewstep denoiser"):
        tune(lambda x: x, 4)
    with pytest.raises(ArgumentError, match="was not tuned"):
        tune.report(make_plan(VP(), steps=3))
    with pytest.raises(ArgumentError, match="only a plan of free_multistep"):
        table_of(make_plan(VP(), "heun", steps=3))
