"""SVDD: the law of M candidates, the argmax that runs away, values learned, and what one candidate is."""

import importlib.util
from pathlib import Path

import pytest
import torch

from fewstep import sample
from fewstep.errors import ArgumentError, NumericalError
from fewstep.search import SVDD, fit_value

_spec = importlib.util.spec_from_file_location("bench", Path(__file__).with_name("bench.py"))
bench = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bench)


@pytest.mark.parametrize(("candidates", "reference"), [(2, (0.697, 0.68, 1.91)), (5, (0.848, 1.16, 1.21))])
def test_candidates_give_all_but_one_in_m_of_the_exact_drift(candidates, reference):
    """The references are those of the reverse equation with (1 − 1/M)·g²∇V on the same grid, to .01."""
    search = SVDD(bench.first, candidates=candidates, value=bench.value)
    out = sample(bench.DENOISER, 1200, search=search, plan=bench.plan(), dtype=torch.float64)
    assert bench.moments(out.x)[:2] == pytest.approx(reference[:2], abs=0.13)
    assert bench.moments(out.x)[0] == pytest.approx(reference[0], abs=0.045)
    assert (out.stats.evaluations, out.stats.rewards) == (candidates * 201, candidates)


def test_many_candidates_tend_to_the_tilt_and_argmax_runs_away():
    plan = bench.plan(100)
    drawn = sample(bench.DENOISER, 300, search=SVDD(bench.first, candidates=40), plan=plan, dtype=torch.float64)
    assert bench.moments(drawn.x)[:2] == pytest.approx(bench.EXACT[:2], abs=0.18)
    assert drawn.stats.rewards == 40 * 102
    most = sample(bench.DENOISER, 50, search=SVDD(bench.first, candidates=20, choice="argmax"), plan=plan)
    assert bench.moments(most.x)[1] > 5


def test_one_candidate_is_plain_sampling_and_a_run_is_the_same_alone():
    plan = bench.plan(20)
    plain = sample(bench.DENOISER, 3, plan=plan, seed=2)
    assert torch.equal(sample(bench.DENOISER, 3, search=SVDD(bench.first, candidates=1), plan=plan, seed=2).x, plain.x)
    search = SVDD(bench.first, candidates=4)
    whole = sample(bench.DENOISER, 3, search=search, plan=plan, seed=2)
    alone = sample(bench.DENOISER, 1, search=search, plan=plan, seed=2, first=1)
    assert torch.allclose(whole.x[1:2], alone.x, atol=1e-6)
    assert torch.equal(whole.rewards, whole.x[:, 0].double())


def test_learned_values_are_soft_values_and_squared_ones_are_means():
    x, t = torch.tensor([[-3.0], [0.0], [4.0]], dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    shared = {"plan": bench.plan(40), "trajectories": 3000, "iterations": 400, "batch": 512}
    soft = fit_value(bench.DENOISER, bench.first, **shared)
    assert torch.allclose(soft(x, t), bench.value(x, t), atol=0.3)
    mean = fit_value(bench.DENOISER, bench.first, loss="squared", **shared)
    assert torch.allclose(mean(x, t), bench.WORLD.denoise(x, bench.PATH, 0.5)[:, 0], atol=0.3)
    assert float((bench.value(x, t) - mean(x, t)).min()) > 0.4
    assert soft.losses[-1] < soft.losses[0]


def test_bad_input_is_refused():
    for bad in ({"candidates": 0}, {"strength": -1}, {"choice": "most"}, {"value": 1}):
        with pytest.raises(ArgumentError):
            SVDD(bench.first, **bad)
    with pytest.raises(ArgumentError, match="one number a row"):
        sample(bench.DENOISER, 1, search=SVDD(lambda x: x), steps=4)
    with pytest.raises(NumericalError, match="the value"):
        sample(bench.DENOISER, 1, search=SVDD(bench.first, value=lambda x, t: x[:, 0] * torch.nan), steps=4)
    with pytest.raises(ArgumentError, match="loss"):
        fit_value(bench.DENOISER, bench.first, loss="plain")
