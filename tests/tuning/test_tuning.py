"""Free multistep plans are the known ones at known weights, tuners gain on what they never saw, tables travel."""

import math
import time

import pytest
import torch

import fewstep
from fewstep import VE, VP, Flow, make_plan, sample, tune
from fewstep.analysis import gaussian_w2
from fewstep.errors import ArgumentError, NumericalError, PlanError
from fewstep.plan import Plan
from fewstep.solvers.free_multistep import Table, free_multistep, table_of
from fewstep.solvers.tuned import auto_plan, nearest_table, read_tables, shipped_tables, write_tables
from fewstep.tuning.descent import LANDING, Parameters, Spectral, Trajectory, Worlds
from fewstep.tuning.problem import Problem
from fewstep.tuning.random_mixtures import fine_mixtures, mixtures
from fewstep.worlds import Gaussian


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


def free_plan(path, seed=0):
    """Any numbers of a free plan of four steps."""
    generator = torch.Generator().manual_seed(seed)
    weights, scales = (torch.rand(*s, dtype=torch.float64, generator=generator) for s in ((4, 3), (3, 2)))
    times = make_plan(path, "ddim", "logsnr", 4).times
    return times, weights, 0.8 + 0.4 * scales, path.t_of_lam(torch.tensor(-2.5, dtype=torch.float64))


@pytest.mark.parametrize("path", [VP(), VE(), Flow()], ids=lambda p: p.kind)
def test_scales_and_the_first_told_time_are_the_printed_ones(path):
    """x′ = a·(σ′/σ)·x + (α′ − α·σ′/σ)·Σ w_j m_j with Σ w_j = b, and a = b = 1 in the last step."""
    times, weights, scales, told = free_plan(path)
    plan = free_multistep(path, times, weights, scales=scales, told=told)
    x = path.sigma(1.0) * torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    denoiser = fewstep.wrap(lambda x, t: torch.sin(x) + t.reshape(-1, 1), path, "x0", shape=(5,))
    want, answers = x, []
    for i in range(4):
        answers.insert(0, denoiser(want, told if i == 0 else times[i]))
        a, b = (1.0, 1.0) if i == 3 else scales[i]
        keep = path.sigma(times[i + 1]) / path.sigma(times[i])
        ahead = (b - weights[i, :i].sum()) * answers[0] + sum(weights[i, j] * answers[j + 1] for j in range(i))
        want = a * keep * want + (path.alpha(times[i + 1]) - path.alpha(times[i]) * keep) * ahead
    assert torch.allclose(sample(denoiser, start=x, plan=plan).x, want, rtol=1e-9, atol=1e-9)
    point = fewstep.wrap(lambda x, t: torch.full_like(x, 0.7), path, "x0", shape=(5,))
    assert torch.allclose(sample(point, start=x, plan=plan).x, torch.full_like(x, 0.7), atol=1e-9)


@pytest.mark.parametrize("path", [VP(), VE(), Flow()], ids=lambda p: p.kind)
def test_a_table_is_the_plan(path):
    times, weights, scales, told = free_plan(path)
    plan = free_multistep(path, times, weights, scales=scales, told=told)
    table = table_of(plan)
    again = table.plan(path)
    assert torch.allclose(torch.tensor(table.scales, dtype=torch.float64), scales)
    assert all(torch.allclose(getattr(plan, k).value, getattr(again, k).value, atol=1e-9) for k in "MB")
    assert torch.allclose(again.ask_times, plan.ask_times)
    landing = table_of(free_multistep(path, times, weights))
    assert (landing.scales, landing.told, landing.plan(path).deviates) == ((), None, "")


def test_a_table_travels_to_another_path_that_begins_at_the_same_level():
    """In x/√(α² + σ²) at equal λ the flow is the same on every path."""
    vp, ve = VP(), VE(sigma_max=float(torch.exp(-VP().lam(1.0))))
    times, weights, scales, told = free_plan(vp)
    with_told = table_of(free_multistep(vp, times, weights, scales=scales, told=told))
    # Told another level than its own, the network expects a state of another size on VE.
    assert (with_told.suits(vp, 0.1), with_told.suits(VP.from_betas("linear"), 0.1)) == (True, True)
    assert not with_told.suits(ve, 0.1)
    table = table_of(free_multistep(vp, times, weights, scales=scales))
    assert table.suits(ve, 0.1)
    world = fewstep.worlds.Gaussian(torch.zeros(3, dtype=torch.float64), torch.tensor([0.1, 0.5, 2.0]).double())
    noise = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ends = [
        sample(world.denoiser(path), start=float(path.sigma(1.0)) * noise, plan=table.plan(path)).x for path in (vp, ve)
    ]
    assert torch.allclose(*ends, rtol=1e-6, atol=1e-6)


def test_the_error_has_the_gradient_of_all_that_is_free():
    parameters = Parameters.like_two_m(VP(), 4).freed()
    c = torch.tensor([0.01, 0.2, 1.0], dtype=torch.float64)

    def w2(gaps, weights, scales, below):
        parameters.gaps, parameters.weights, parameters.scales, parameters.below = gaps, weights, scales, below
        return gaussian_w2(parameters.plan(), c)

    free = [v.detach().clone().requires_grad_() for v in parameters.free]
    assert torch.autograd.gradcheck(w2, free, atol=1e-5)


def test_spectral_tuning_gains_what_it_promises():
    spectrum = torch.logspace(-3, 0, 20, dtype=torch.float64)
    denoiser = fewstep.worlds.Gaussian(torch.zeros(20, dtype=torch.float64), spectrum).denoiser(VP())
    plan = tune(denoiser, 5, method=Spectral(rounds=40), data=spectrum, settle=False)
    about = plan.source["tuned"]
    assert about["after"] < about["before"] / 5
    assert about["spent"] == 0
    assert (
        float(gaussian_w2(plan, spectrum)) < float(gaussian_w2(make_plan(VP(), "dpm-solver++", steps=5), spectrum)) / 5
    )


def test_tuning_on_worlds_gains_on_others():
    denoiser = mixtures(VP(), 8, 2)[1][0]
    plan = tune(denoiser, 5, method=Worlds(rounds=24, samples=16), samples=16)
    assert plan.source["tuned"]["after"] < plan.source["tuned"]["before"] / 3
    assert "before (dpm-solver++, logsnr)" in str(tune.report(plan))
    assert tune.report(plan)._repr_png_().startswith(b"\x89PNG")
    assert Plan.load is not None
    assert table_of(plan).plan(VP()).evaluations == 5


@pytest.mark.parametrize(("evaluations", "lands"), [(LANDING - 1, False), (LANDING, True)])
def test_tables_for_any_model_leave_the_path_only_at_few_evaluations(evaluations, lands):
    plan = Worlds(rounds=8, samples=4)(Problem(mixtures(VP(), 8, 2)[1][0], evaluations))
    assert bool(plan.deviates) != lands
    table = table_of(plan)
    assert (table.told is None, all(one == (1.0, 1.0) for one in table.scales)) == (lands, lands)


def test_fine_mixtures_are_as_fine_as_they_say():
    for (denoiser, start, ends), (first, last, directions) in zip(
        fine_mixtures(VP(), 3, 2), ((1.0, 1e-3, 8), (10**1.5, 1e-3, 32)), strict=True
    ):
        assert start.shape == ends.shape == (2, 64)
        spread = denoiser.world.spread
        assert spread.shape[1] == directions
        assert ((spread[:, 0] / first >= 1) & (spread[:, 0] / first <= 1.3)).all()
        assert ((spread[:, -1] / last >= 1) & (spread[:, -1] / last <= 1.3)).all()


def test_a_table_serves_no_path_that_begins_after_its_first_node():
    table = Table(-5.0, (-4.6, 0.0), ((0.0,),) * 3, {})
    assert table.suits(VP(), reach=1.0)
    short = VP(beta_max=17.0)
    assert -4.6 < float(short.lam(1.0)) < -4.0
    assert not table.suits(short, reach=1.0)


def test_trajectory_tuning_counts_what_it_spends_and_keeps_its_budget():
    denoiser = fewstep.wrap(lambda x, t: 0.5 * torch.tanh(2 * x), VP(), "x0", shape=(6,))
    plan = tune(denoiser, 4, method=Trajectory(rounds=200), samples=8, budget=8 * 199 + 8 * 4 * 12)
    about = plan.source["tuned"]
    assert about["spent"] == 8 * 199 + 8 * 4 * 12
    assert about["settled"] == "not measured: the budget did not allow it"
    assert about["after"] < about["before"]
    assert plan.evaluations == 4
    with pytest.raises(ArgumentError, match="budget=1600 is too small: this method needs at least 1656"):
        tune(denoiser, 4, method="trajectory", samples=8, budget=1600)


def test_a_worlds_own_variances_are_the_spectrum_unless_one_is_given():
    variances = torch.tensor([2.0, 0.5, 0.01], dtype=torch.float64)
    problem = Problem(Gaussian(torch.zeros(3, dtype=torch.float64), variances).denoiser(VP()), 4)
    assert torch.allclose(problem.spectrum(), variances, rtol=0.15)
    assert problem.spent == 0
    other = Problem(fewstep.wrap(lambda x, t: x, VP(), "x0", shape=(3,)), 4)
    assert (other.spectrum().min(), len(other.spectrum())) == (1e-4, 48)
    with pytest.raises(ArgumentError, match="depth must be"):
        Spectral(depth=1)


@pytest.mark.parametrize("evaluations", [4, 6])
def test_spectral_gains_on_mixtures_of_their_own_variances(evaluations):
    for denoiser, start, ends in mixtures(VP(), 8, 32)[1:4:2]:
        problem = Problem(denoiser, evaluations)
        before = problem.error(Spectral().untuned(problem), start, ends)
        assert problem.error(Spectral(rounds=30)(problem), start, ends) < 0.85 * before


def test_the_level_told_first_is_free_only_where_states_have_the_size_of_noise():
    for path, free in ((VP(), True), (Flow(), True), (VE(), False)):
        parameters = Parameters.like_two_m(path, 4).freed().hearing(-2.5)
        assert (parameters.tells, len(parameters.free)) == (free, 3 + free)
        told = parameters.found().ask_times[0]
        assert float(path.lam(told)) == pytest.approx(-2.5 if free else float(path.lam(1.0)), abs=1e-6)


def test_trajectory_goes_two_ways_and_on_with_the_better():
    problem = Problem(fewstep.wrap(lambda x, t: 0.5 * torch.tanh(2 * x), Flow(), "x0", shape=(6,)), 4, samples=8)
    Trajectory(rounds=8)(problem)
    ways = [min(problem.state[name]["losses"]) for name in ("way 0", "way 1")]
    better = problem.state["the better way"]["losses"]
    assert better[0] == pytest.approx(min(ways))
    assert min(better) <= min(ways) < problem.state["way 0"]["losses"][0]


def test_a_loss_that_is_not_finite_is_refused():
    with pytest.raises(NumericalError, match="not finite"):
        Parameters.like_two_m(VP(), 3).descend(lambda plan: plan.times.sum() * math.nan, 3)


@pytest.mark.parametrize("path", [VP(), VE(), Flow(), VP.from_betas("scaled_linear")], ids=lambda p: p.kind)
def test_shipped_tables_beat_two_m_on_mixtures_that_no_tuning_saw(path):
    for evaluations in (5, 8):
        tuned, plain = auto_plan(path, evaluations), make_plan(path, "dpm-solver++", evaluations=evaluations)
        assert tuned.evaluations == evaluations
        assert tuned.source["tuned"]["path"] == path.kind
        for denoiser, start, ends in mixtures(path, 6, 24):
            problem = Problem(denoiser, evaluations)
            assert problem.error(tuned, start, ends) < problem.error(plain, start, ends) / 3


def test_auto_chooses_the_nearest_and_says_so():
    assert make_plan(VP(), "auto", evaluations=7).evaluations == 6
    assert "nearest=6 evaluations of the 7 asked for" in str(make_plan(VP(), "auto", evaluations=7))
    assert "nearest" not in str(make_plan(VP(), "auto", evaluations=6))
    assert make_plan(VP(), "auto", steps=5).source["tuned"]["evaluations"] == 5
    assert "tuned" in str(make_plan(VP(), "auto", steps=5).source)
    for table, others in ((10, (11, 13)), (15, (15, 19))):
        assert all(make_plan(VP(), "auto", evaluations=other).evaluations == table for other in others)
    for evaluations in (14, 20, 40):
        plan = make_plan(VP(), "auto", evaluations=evaluations)
        assert (plan.source["solver"], plan.evaluations) == ("unipc", evaluations)
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


def test_spectral_tuning_of_ten_steps_takes_seconds():
    """In time of one core, which other work on the machine does not change; two cores are no slower."""
    spectrum = torch.logspace(-3, 0, 30, dtype=torch.float64)
    problem = Problem(fewstep.worlds.Gaussian(0 * spectrum, spectrum).denoiser(VP()), 10, data=spectrum)
    began = time.process_time()
    plan = Spectral()(problem)
    assert time.process_time() - began < 10 * torch.get_num_threads()
    assert float(gaussian_w2(plan, spectrum)) < 1e-3 * problem.history[0][1]
