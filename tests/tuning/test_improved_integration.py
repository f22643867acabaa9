"""IIA: a fit is the least-squares one, the table is the run that was fitted, weights of 0 are the solver, it gains."""

from functools import cache

import pytest
import torch

from fewstep import VE, VP, Flow, make_plan, sample, tune
from fewstep.errors import ArgumentError
from fewstep.tuning.improved_integration import ImprovedIntegration, finer
from fewstep.tuning.problem import Problem
from fewstep.tuning.random_mixtures import mixtures
from fewstep.tuning.single import tuner_named
from fewstep.tuning.teacher import taught


@cache
def world(path):
    """Twenty overlapping modes in 64 dimensions; made once a path, as the flow that comes with it takes its time."""
    return mixtures(path, 8, 1)[1][0]


NAMES = ["iia-ddim", "iia-ddim-guided", "iia-dpm-solver", "iia-edm", "biia-edm"]


def problem(path=None, evaluations=5, samples=12):
    return Problem(world(path or VP()), evaluations, samples=samples)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_zero_are_the_solver(name, monkeypatch):
    monkeypatch.setattr(ImprovedIntegration, "_fit", lambda self, walk, vectors, missing: [0.0] * len(vectors))
    given, tuner = problem(), tuner_named(name)
    plain, same = tuner.untuned(given), tuner(given)
    assert (plain.M.same(same.M), plain.B.same(same.B)) == (True, True) or "heun" in str(plain.source)
    start = given.starts(4, part=3)
    assert torch.allclose(given.run(plain, start), given.run(same, start), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("towards", ["step", "flow"])
def test_the_second_step_of_ddim_is_the_printed_least_squares(towards):
    """[<q0,q0> <q0,q1>; <q0,q1> <q1,q1>] φ = <q, r>, and x′ = DDIM(x) + φ0·q0 + φ1·q1."""
    given, path = problem(), VP()
    plan = tuner_named("iia-ddim", towards=towards, reweighted=0)(given)
    den, t, start = given.denoiser, plan.times, given.starts(12, part=1)
    x1 = sample(den, start=start, plan=make_plan(path, "ddim", t[:2])).x
    m0, m1 = (den(x, s) for x, s in ((start, t[0]), (x1, t[1])))
    e0, e1 = ((x - path.alpha(s) * m) / path.sigma(s) for x, s, m in ((start, t[0], m0), (x1, t[1], m1)))
    q = torch.stack([(m1 - m0).flatten(), (e1 - e0).flatten()], 1)
    ends = [sample(den, start=x1, plan=make_plan(path, "ddim", s)).x for s in (finer(path, t[1], t[2], 10), t[1:3])]
    if towards == "flow":
        ends[0] = taught(given, "ddim", t, start, 10)[2]
    phi = torch.linalg.lstsq(q, (ends[0] - ends[1]).flatten()[:, None]).solution[:, 0]
    want = ends[1].flatten() + q @ phi
    part = sample(den, start=start, plan=plan, keep="trajectory").trajectory[2]
    assert float((part.flatten() - want).norm() / want.norm()) < 1e-6
    assert float((ends[0].flatten() - want).norm()) < 0.85 * float((ends[0] - ends[1]).norm())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path", [VE(), Flow()], ids=lambda p: p.kind)
def test_it_gains_on_noises_not_seen(name, path):
    about = tune(world(path), 5, method=name, samples=24, settle=False).source["tuned"]
    assert about["after"] < (0.97 if name == "iia-ddim-guided" else 0.85) * about["before"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("evaluations", [4, 8])
def test_towards_the_flow_it_gains_where_the_published_fit_may_lose(name, evaluations):
    given, tuner = problem(evaluations=evaluations, samples=24), tuner_named(name)
    start, ends = given.pairs(64, part=0)
    before = given.error(tuner.untuned(given), start, ends)
    assert given.error(tuner(given), start, ends) < before
    if name == "iia-dpm-solver" and evaluations == 4:
        published = tuner_named(name, towards="step", reweighted=0)(problem(evaluations=evaluations, samples=24))
        assert given.error(published, start, ends) > 1.3 * before


def test_only_the_rule_of_differences_stays_on_the_path():
    for name in NAMES:
        assert bool(tuner_named(name)(problem()).deviates) is (name not in ("iia-ddim", "iia-dpm-solver"))


def test_the_first_row_and_heuns_last_are_not_fitted():
    for name in ("iia-ddim", "iia-edm"):
        given = problem()
        plain, tuned = tuner_named(name).untuned(given), tuner_named(name)(given)
        row = 0 if name == "iia-ddim" else plain.steps - 1
        keys = [[(n, s, float(v)) for n, s, v in list(p)[row].writes[0]] for p in (plain, tuned)]
        assert keys[0] == keys[1]


def test_finer_times_are_even_in_the_seventh_root():
    t = finer(VE(), torch.tensor(1.0).double(), torch.tensor(0.0).double(), 4)
    assert torch.allclose(t, torch.linspace(1, 0, 5).double() ** 7)
    t = finer(Flow(), torch.tensor(1.0).double(), torch.tensor(0.5).double(), 5)
    assert torch.allclose(t, torch.linspace(1, 0.5, 6).double())


def test_what_is_spent_is_known_and_a_kill_changes_nothing(tmp_path):
    denoiser = world(VP())
    for name, towards in (("iia-ddim", "flow"), ("iia-edm", "flow"), ("iia-ddim", "step"), ("iia-edm", "step")):
        tuner = tuner_named(name, parts=3, towards=towards)
        whole = tune(denoiser, 5, method=tuner, samples=8, settle=False)
        least = tuner.least(Problem(denoiser, 5, samples=8))
        assert 0.5 * least < whole.source["tuned"]["spent"] <= least

        def die(line):
            if line.startswith(("fitting step 3", "fitting step 4")):
                raise KeyboardInterrupt

        file = tmp_path / f"{name}-{towards}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            tune(denoiser, 5, method=tuner, samples=8, checkpoint=file, tell=die, settle=False)
        again = tune(denoiser, 5, method=tuner, samples=8, checkpoint=file, settle=False)
        assert again == whole
        assert again.source["tuned"]["spent"] == whole.source["tuned"]["spent"]


def test_bad_arguments_are_refused():
    for options, message in (
        ({"rule": "best"}, "rule must"),
        ({"parts": 1}, "parts must"),
        ({"towards": "data"}, "towards must"),
        ({"reweighted": -1}, "reweighted must"),
        ({"rule": "basic"}, "is for solver 'heun'"),
    ):
        with pytest.raises(ArgumentError, match=message):
            ImprovedIntegration(**options)
    for solver in ("heun", "ddpm"):
        with pytest.raises(ArgumentError, match="needs a deterministic solver"):
            ImprovedIntegration(solver)(problem())
