"""USF: constant choices are the known solvers, derivatives are exact, the search gains, stops, goes on, counts."""

from functools import cache

import pytest
import torch

import fewstep
from fewstep import VE, VP, Cosine, Flow, make_plan, sample, tune
from fewstep.analysis import quadrature_errors
from fewstep.errors import ArgumentError
from fewstep.solvers import solver_named
from fewstep.tuning.problem import Problem
from fewstep.tuning.random_mixtures import mixtures
from fewstep.tuning.solver_search import CONSTANT, SolverSearch, constant, plan_at, space
from fewstep.tuning.unified_sampling import SCALES, Choice, derivative, scaled, unified_plan


@cache
def world(path):
    """Twenty overlapping modes in 64 dimensions, with noises and their ends; made once a path."""
    return mixtures(path, 8, 24)[1]


@pytest.mark.parametrize("path", [VP(), VE(), Flow(), Cosine()], ids=lambda p: p.kind)
@pytest.mark.parametrize(
    ("name", "parameters", "choice"),
    [
        ("ddim", {}, Choice(order=1)),
        ("ddim", {}, Choice(order=1, prediction="noise")),
        ("dpm-solver++", {}, Choice()),
        ("unipc", {}, Choice(corrected=True)),
        ("unipc", {"variant": "bh1"}, Choice(scale="bh1", corrected=True)),
        ("unipc", {"variant": "bh1", "form": "noise"}, Choice(scale="bh1", corrected=True, prediction="noise")),
        ("unipc", {"predictor": 3, "corrector": 3, "form": "noise"}, Choice(3, "noise", corrected=True)),
        ("unipc", {"predictor": 3, "corrector": 0, "variant": "vary"}, Choice(3, scale="none")),
        ("unipc", {"predictor": 4, "corrector": 4, "variant": "vary"}, Choice(4, scale="none", corrected=True)),
    ],
)
def test_constant_choices_are_known_solvers(path, name, parameters, choice):
    def net(x, t):
        return torch.tanh(x)

    denoiser = fewstep.wrap(net, path, "x0", shape=(4,))
    times = make_plan(path, "ddim", "logsnr", 7).times
    start = path.sigma(1.0) * torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plans = [solver_named(name, **parameters)(path, times), unified_plan(path, times, [choice] * 7)]
    ends = [sample(denoiser, start=start, plan=plan).x for plan in plans]
    assert torch.allclose(*ends, rtol=1e-10, atol=1e-10)


def test_derivatives_of_polynomials_are_exact():
    points = [-0.3, -0.7, 0.4]
    for i, want in ((1, 2.0), (2, 6.0), (3, 24.0)):
        # f = 2u + 3u² + 4u³
        values = [2 * u + 3 * u**2 + 4 * u**3 for u in points]
        assert sum(a * v for a, v in zip(derivative(i, points), values, strict=True)) == pytest.approx(want)
    assert derivative(1, [-0.5]) == pytest.approx([-2.0])


def test_a_full_step_is_exact_where_the_answer_is_a_polynomial():
    grid = VP().t_of_lam(torch.linspace(-2, 2, 9, dtype=torch.float64))
    plan = unified_plan(VP(), grid, [Choice(4, scale="none")] * 8)
    assert float(quadrature_errors(plan, lambda u: 1 + u - u**2 + u**3 / 2)[3:].abs().max()) < 1e-10
    low = unified_plan(VP(), grid, [Choice(3, scheme="low", scale="none")] * 8)
    assert float(quadrature_errors(low, lambda u: 1 + u)[2:].abs().max()) < 1e-10
    assert float(quadrature_errors(low, lambda u: u**2)[2:].abs().max()) > 1e-4


@pytest.mark.parametrize("scale", SCALES)
def test_scales_tend_to_one_linearly(scale):
    off = [abs(scaled(scale, h) - 1) for h in (0.02, 0.01)]
    if scale != "none":
        assert off[0] / off[1] == pytest.approx(2, rel=0.05)
        assert scaled(scale, -0.01) - 1 == pytest.approx(1 - scaled(scale, 0.01), rel=0.05)
    assert off[1] < 0.02


def test_the_first_places_are_the_constant_choices():
    for choice in CONSTANT:
        place = constant(choice, 6)
        assert set(place) == set(space(6))
        plan = plan_at(VP(), place, 6)
        same = unified_plan(VP(), plan.times, [choice] * 6)
        assert (plan.evaluations, plan.times[0], plan.times[-1]) == (6, 1, 0)
        if choice == CONSTANT[0]:
            assert plan.M.same(same.M)
    lam = VP().lam(plan_at(VP(), constant(Choice(), 6), 6).times[1:-1])
    assert torch.allclose(lam.diff(), lam.diff()[:1])


@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
def test_choices_found_beat_the_best_constant_one(path):
    denoiser, start, ends = world(path)
    plan = tune(denoiser, 5, method=SolverSearch(trials=60), samples=24, settle=False)
    problem = Problem(denoiser, 5)
    constants = [problem.error(plan_at(path, constant(choice, 5), 5), start, ends) for choice in CONSTANT]
    about = plan.source["tuned"]
    assert problem.error(plan, start, ends) < 0.9 * min(constants)
    assert about["after"] < 0.7 * about["before"]
    assert about["spent"] == 20 * 5 * (6 + 12 + 24)
    assert about["untuned"] == "unipc, logsnr"


def test_a_search_that_was_stopped_goes_on_the_same(tmp_path):
    denoiser, tuner = world(VP())[0], SolverSearch(trials=45)
    whole = tune(denoiser, 4, method=tuner, samples=8)
    file = tmp_path / "s.safetensors"

    def die(line):
        if line.startswith("stage 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(denoiser, 4, method=tuner, samples=8, checkpoint=file, tell=die)
    again = tune(denoiser, 4, method=tuner, samples=8, checkpoint=file)
    assert again == whole
    assert again.source["tuned"]["history"] == whole.source["tuned"]["history"]


def test_a_budget_ends_the_search_and_bad_arguments_are_refused():
    denoiser = world(VP())[0]
    about = tune(denoiser, 4, method=SolverSearch(), samples=8, budget=200).source["tuned"]
    assert 150 < about["spent"] <= 200
    for options, message in (({"order": 5}, "order must"), ({"scale": "x"}, "scale must"), ({"scheme": 1}, "scheme")):
        with pytest.raises(ArgumentError, match=message):
            Choice(**options)
    with pytest.raises(ArgumentError, match="trials must"):
        SolverSearch(3)
    with pytest.raises(ArgumentError, match="3 steps need as many choices"):
        unified_plan(VP(), torch.linspace(1, 0, 4).double(), [Choice()])
