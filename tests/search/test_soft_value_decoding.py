"""SVDD: the law of M candidates, the argmax that runs away, values learned, and what one candidate is."""

import importlib.util
from pathlib import Path

import pytest
import torch

from fewstep import VE, sample
from fewstep.errors import ArgumentError, NumericalError
from fewstep.search import TiltedMixture, fit_value
from fewstep.search.soft_value_decoding import SVDD
from fewstep.worlds import Gaussian, GaussianMixture

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
    most = sample(bench.DENOISER, 50, search=SVDD(bench.first, candidates=20, choice="argmax"), plan=bench.plan())
    assert bench.moments(most.x)[1] == pytest.approx(9.33, abs=0.3)
    near = SVDD(lambda x: -(x[:, 0] - 2).square(), candidates=20, choice="argmax")
    held = sample(bench.DENOISER, 50, search=near, plan=bench.plan())
    assert bench.moments(held.x)[1] == pytest.approx(2.0, abs=0.1)
    fewer = sample(bench.DENOISER, 50, search=SVDD(bench.first, candidates=5, choice="argmax"), plan=bench.plan())
    assert bench.moments(fewer.x)[1] < bench.moments(most.x)[1] - 1


def test_values_from_means_are_exact_for_a_linear_reward_on_one_gaussian():
    """They differ from V by a number that all candidates share, so that the same ones are chosen."""
    one = GaussianMixture([1.0], torch.tensor([[0.5]]), torch.tensor([[0.3]]))
    tilt, plan = TiltedMixture(one, torch.ones(1)), bench.plan(40)
    exact = SVDD(bench.first, candidates=4, value=lambda x, t: tilt.value(bench.PATH, x, t))
    out = [
        sample(one.denoiser(bench.PATH), 20, search=s, plan=plan, dtype=torch.float64).x
        for s in (exact, SVDD(bench.first, candidates=4))
    ]
    assert torch.allclose(*out, atol=1e-9)


def test_chains_resampled_without_a_ratio_get_the_reward_at_every_step():
    """With one candidate SVDD-R tilts a Gaussian chain by the sum of its values: the mean moves by their covariance."""
    den = Gaussian(torch.zeros(1), 0.25 * torch.eye(1)).denoiser(VE(1.0))
    common = {"solver": "ddpm", "steps": 4, "dtype": torch.float64}
    way = sample(den, 40000, keep="trajectory", seed=1, **common).trajectory
    states = torch.stack([x[:, 0] for x in way])
    shift = float(torch.cov(torch.stack([states[-1], states.sum(0)]))[0, 1])
    search = SVDD(bench.first, candidates=1, chains=20000, value=lambda x, t: x[:, 0])
    out = sample(den, 1, search=search, **common)
    assert float(out.particles.mean()) == pytest.approx(shift, rel=0.06)
    assert shift > 2 * float(states[-1].var())
    # Values of nothing before the end leave one importance resampling, which is the tilt.
    search = SVDD(bench.first, candidates=1, chains=20000, value=lambda x, t: 0 * x[:, 0])
    assert bench.moments(sample(bench.DENOISER, 1, search=search, plan=bench.plan(60)).particles) == pytest.approx(
        bench.EXACT, abs=0.07
    )


def test_the_printed_chains_run_away_the_more_the_further():
    """The reference, of very many chains, is a mean of 5.50 and a variance of .002 where the exact mean is 1.438."""
    search = {"candidates": 5, "value": bench.value}
    laws = {
        b: bench.moments(
            sample(bench.DENOISER, 1, search=SVDD(bench.first, chains=b, **search), plan=bench.plan()).particles
        )
        for b in (30, 3000)
    }
    assert laws[3000][2] < 0.02
    assert laws[3000][1] == pytest.approx(5.5, abs=1.0)
    assert laws[3000][1] > laws[30][1] + 0.8


def test_one_candidate_is_plain_sampling_and_a_run_is_the_same_alone():
    plan = bench.plan(20)
    plain = sample(bench.DENOISER, 3, plan=plan, seed=2)
    assert torch.equal(sample(bench.DENOISER, 3, search=SVDD(bench.first, candidates=1), plan=plan, seed=2).x, plain.x)
    search = SVDD(bench.first, candidates=4)
    whole = sample(bench.DENOISER, 3, search=search, plan=plan, seed=2)
    alone = sample(bench.DENOISER, 1, search=search, plan=plan, seed=2, first=1)
    assert torch.allclose(whole.x[1:2], alone.x, atol=1e-6)
    assert torch.equal(whole.rewards, whole.x[:, 0].double())
    chains = SVDD(bench.first, candidates=3, chains=4)
    whole = sample(bench.DENOISER, 3, search=chains, plan=plan, seed=2)
    alone = sample(bench.DENOISER, 1, search=chains, plan=plan, seed=2, first=1)
    assert torch.allclose(whole.particles[1:2], alone.particles, atol=1e-6)
    assert torch.equal(whole.scores, whole.particles[..., 0].double())
    assert torch.equal(whole.x, whole.particles[:, 0])
    assert (alone.stats.evaluations, alone.stats.rewards) == (12 * 21, 12 * 22)


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
    for bad in ({"candidates": 0}, {"chains": 0}, {"strength": -1}, {"choice": "most"}, {"value": 1}):
        with pytest.raises(ArgumentError):
            SVDD(bench.first, **bad)
    with pytest.raises(ArgumentError, match="one number a row"):
        sample(bench.DENOISER, 1, search=SVDD(lambda x: x), steps=4)
    with pytest.raises(ArgumentError, match="plan without noise"):
        sample(bench.DENOISER, 1, search=SVDD(bench.first), steps=4, solver="ddim")
    with pytest.raises(NumericalError, match="the value"):
        sample(bench.DENOISER, 1, search=SVDD(bench.first, value=lambda x, t: x[:, 0] * torch.nan), steps=4)
    for name, bad in (("loss", "plain"), ("batch", 0), ("rate", 0.0), ("strength", -1.0)):
        with pytest.raises(ArgumentError, match=name):
            fit_value(bench.DENOISER, bench.first, **{name: bad})
    with pytest.raises(ArgumentError, match="strength"):
        TiltedMixture(bench.WORLD, torch.ones(1), float("nan"))
