"""Resampling without bias and with its own variance, weights in logs, noise of runs, and rows that go on."""

import math
from typing import NamedTuple

import pytest
import torch

from fewstep import VP, sample, wrap
from fewstep.noise import KeyedNoise
from fewstep.pictures import read_recipe
from fewstep.search import RandomSearch, Reject
from fewstep.search.particles import CollapseWarning, ParticleNoise, Weights, choose
from fewstep.search.resampling import RULES

SHARES = torch.tensor([0.37, 0.0, 0.11, 0.25, 0.02, 0.25], dtype=torch.float64)


def counts_of(rule, shares, runs=20000, seed=0):
    uniforms = torch.rand(runs, len(shares), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    ancestors = RULES[rule](shares.expand(runs, -1), uniforms)
    return torch.zeros(runs, len(shares), dtype=torch.float64).scatter_add_(1, ancestors, torch.ones_like(uniforms))


@pytest.mark.parametrize("rule", RULES)
def test_a_particle_has_as_many_children_on_average_as_its_weight_says(rule):
    counts, wanted = counts_of(rule, SHARES), 6 * SHARES
    assert torch.allclose(counts.sum(1), torch.full((20000,), 6.0, dtype=torch.float64))
    assert torch.allclose(counts.mean(0), wanted, atol=0.04)
    assert float(counts[:, 1].max()) == 0
    if rule in ("systematic", "ssp"):
        assert bool((counts >= wanted.floor()).all())
        assert bool((counts <= wanted.ceil()).all())
    if rule == "residual":
        assert bool((counts >= wanted.floor()).all())


def test_variances_stand_in_their_known_order():
    spread = {rule: counts_of(rule, SHARES).var(0) for rule in RULES}
    assert torch.allclose(spread["multinomial"], 6 * SHARES * (1 - SHARES), atol=0.06)
    fractions = 6 * SHARES - (6 * SHARES).floor()
    for rule in ("systematic", "ssp"):
        assert torch.allclose(spread[rule], fractions * (1 - fractions), atol=0.02)
    assert float(spread["residual"].sum()) < 0.7 * float(spread["multinomial"].sum())


@pytest.mark.parametrize("rule", ["residual", "ssp", "systematic"])
def test_equal_weights_lose_no_particle(rule):
    assert bool((counts_of(rule, torch.full((7,), 1 / 7, dtype=torch.float64), 50) == 1).all())


@pytest.mark.parametrize("rule", RULES)
def test_a_run_is_resampled_the_same_alone(rule):
    generator = torch.Generator().manual_seed(1)
    shares = torch.rand(5, 8, dtype=torch.float64, generator=generator).pow(3)
    shares, uniforms = shares / shares.sum(1, keepdim=True), torch.rand(5, 8, dtype=torch.float64, generator=generator)
    whole = RULES[rule](shares, uniforms)
    assert torch.equal(whole[3:4], RULES[rule](shares[3:4], uniforms[3:4]))


def test_weights_are_logs_and_keep_the_evidence():
    weights = Weights.even(2, 4, "cpu")
    weights.add(torch.tensor([800.0, 800.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]))
    assert weights.evidence.tolist() == pytest.approx([800 + math.log(0.5), 1.0])
    rows = weights.resample(RULES["systematic"], 1.0, torch.full((2, 4), 0.5, dtype=torch.float64))
    assert rows.tolist() == [0, 0, 1, 1, 4, 5, 6, 7]
    assert weights.effective[0].tolist() == pytest.approx([2.0, 4.0])
    assert weights.evidence.tolist() == pytest.approx([800 + math.log(0.5), 1.0])
    assert weights.shares[0].tolist() == pytest.approx([0.25] * 4)
    assert weights.origins[0].tolist() == [0, 0, 1, 1]
    lone = Weights.even(1, 4, "cpu")
    lone.add(torch.tensor([100.0, 0, 0, 0]))
    lone.note()
    with pytest.warns(CollapseWarning, match=r"effective sample size of 1.00 of 4"):
        lone.warn()


def test_weights_above_the_share_are_carried_over():
    weights = Weights.even(1, 4, "cpu")
    weights.add(torch.tensor([1.0, 0, 0, 0]))
    rows = weights.resample(RULES["multinomial"], 0.5, torch.rand(1, 4, dtype=torch.float64))
    assert rows.tolist() == [0, 1, 2, 3]
    assert weights.logs.tolist() == [[1.0, 0, 0, 0]]


def test_one_particle_draws_the_noise_of_plain_sampling():
    plain = KeyedNoise(3, [5, 6], (2,), torch.float32, "cpu")
    ours = ParticleNoise(3, [5, 6], 1, (2,), torch.float32, "cpu")
    assert torch.equal(ours.start(), plain.start())
    assert torch.equal(ours.step(4, 0, 0), plain.step(4, 0, 0))
    many = ParticleNoise(3, [5, 6], 3, (2,), torch.float32, "cpu")
    alone = ParticleNoise(3, [6], 3, (2,), torch.float32, "cpu")
    assert torch.equal(many.step(4, 0, 0)[3:], alone.step(4, 0, 0))
    assert torch.equal(many.uniforms(2, 3)[1:], alone.uniforms(2, 3))
    assert not torch.equal(ParticleNoise(3, [6], 3, (2,), torch.float32, "cpu", 5).step(4, 0, 0), alone.step(4, 0, 0))


def test_what_a_search_found_says_by_what_and_so_does_its_picture(tmp_path):
    den = wrap(lambda x, t: 0 * x, VP(), "x0", shape=(1, 4, 4))
    out = sample(den, 2, steps=3, search=RandomSearch(lambda x: x.mean((1, 2, 3)), 3))
    assert repr(out) == (
        "<Found 2 samples of (1, 4, 4) by RandomSearch(candidates=3), rewards 0 … 0; "
        "9 evaluations and 3 rewards a sample>"
    )
    out.save(str(tmp_path / "found.png"))
    assert read_recipe(str(tmp_path / "found.png"))["by"] == "RandomSearch(candidates=3)"
    kept = sample(den, 2, steps=3, reject=Reject(0.5, 2))
    kept.save(str(tmp_path / "kept.png"))
    assert read_recipe(str(tmp_path / "kept.png"))["by"] == "Reject(kept=0.5, window=2)"
    sample(den, 2, steps=3).save(str(tmp_path / "plain.png"))
    assert "by" not in read_recipe(str(tmp_path / "plain.png"))


def test_choices_are_uniform():
    u = ParticleNoise(0, range(4), 1, (1,), torch.float32, "cpu").uniforms(0, 5000).flatten().sort().values
    assert float((u - torch.linspace(0, 1, len(u), dtype=torch.float64)).abs().max()) < 0.015


class Pair(NamedTuple):
    a: torch.Tensor
    b: object


def test_what_belongs_to_a_row_goes_with_it():
    rows, x = torch.tensor([2, 2, 0]), torch.tensor([10.0, 11.0, 12.0])
    chosen = choose({"a": [x, None], "b": Pair(x, "kept"), "c": (torch.zeros(2), 3)}, rows)
    assert chosen["a"][0].tolist() == [12, 12, 10]
    assert chosen["b"].a.tolist() == [12, 12, 10]
    assert chosen["b"].b == "kept"
    assert len(chosen["c"][0]) == 2
