"""Denoising MCMC: a move by hand, what the chain leaves invariant, levels exact and learnt, rows, counts, refusals."""

import math

import pytest
import torch

from fewstep import VE, VP, sample, wrap
from fewstep.errors import ArgumentError
from fewstep.loops import loop_named
from fewstep.loops.denoising_mcmc import DenoisingMCMC, _Chain
from fewstep.loops.noise_levels import ExactLevels, spread_levels, train_levels
from fewstep.metrics import sliced_w2
from fewstep.noise import KeyedNoise
from fewstep.session import prepare
from fewstep.worlds import GaussianMixture

MEANS = torch.tensor([[-0.6, 0.5], [0.8, -0.1]], dtype=torch.float64)
LEVELS = spread_levels(0.3, 3.0, 12)


def world():
    return GaussianMixture([0.3, 0.7], MEANS, torch.tensor([[0.0625, 0.1], [0.16, 0.05]]))


def chain_of(n, path=None, **fields):
    loop = DenoisingMCMC(ExactLevels(world(), LEVELS), **{"start_steps": 2, "warm_up": 0, **fields})
    denoiser = world().denoiser(path or VE())
    return _Chain(loop, prepare(denoiser, n, plan=loop.opening(denoiser.path), dtype=torch.float64))


@pytest.mark.parametrize("path", [VE(), VP()], ids=lambda p: p.kind)
def test_a_move_by_hand_on_any_path(path):
    chain = chain_of(3, path, eta=0.09)
    chain.y = torch.tensor([[0.4, -1.0], [2.0, 0.3], [0.0, 0.1]], dtype=torch.float64)
    chain.k = torch.tensor([0, 6, 11])
    before, rho = chain.y, LEVELS[chain.k][:, None]
    noise = chain.session.noise.step(0, 0.0, 0.0)
    chain.move()
    x0 = torch.cat([world().denoise(y[None], VE(10.0), float(r) / 10) for y, r in zip(before, rho, strict=True)])
    want = before + 0.045 * (x0 - before) / rho**2 + 0.3 * noise
    assert torch.allclose(chain.y, want, rtol=1e-9, atol=1e-9)


def test_the_chain_leaves_levels_uniform_and_each_levels_own_law():
    chain, counts, power = chain_of(1500, eta=0.01), torch.zeros(12), torch.zeros(12)
    x = world().sample(1500, seed=3)
    chain.k = torch.randint(12, (1500,), generator=torch.Generator().manual_seed(0))
    chain.y = x + LEVELS[chain.k][:, None] * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    for move in range(60):
        chain.move()
        if move >= 30:
            counts += torch.bincount(chain.k, minlength=12)
            power.index_add_(0, chain.k, (chain.y - world().mean).square().sum(1).float())
    share = counts / counts.sum()
    assert torch.allclose(share, torch.full((12,), 1 / 12), atol=0.02)
    want = world().covariance.trace() + 2 * LEVELS**2
    assert torch.allclose((power / counts).double(), want, rtol=0.15)
    greedy = chain_of(1500, eta=0.01, likeliest=True)
    greedy.y, greedy.k = chain.y, chain.k
    for _ in range(20):
        greedy.move()
    assert (torch.bincount(greedy.k, minlength=12) / 1500 - 1 / 12).abs().max() > 0.1


def test_the_lowest_visited_level_is_kept_with_its_state():
    chain, same = chain_of(20, eta=0.2), chain_of(20, eta=0.2)
    for c in (chain, same):
        c.start()
    y, rho = chain.lowest_of(6)
    states, levels = [same.y], [same.k]
    for _ in range(6):
        same.move()
        states.append(same.y)
        levels.append(same.k)
    lowest = torch.stack(levels).min(0).values
    assert torch.equal(rho, LEVELS[lowest])
    at = torch.tensor([[int(k[i]) for k in levels].index(int(lowest[i])) for i in range(20)])
    assert torch.equal(y, torch.stack(states)[at, torch.arange(20)])
    assert torch.equal(chain.y, same.y)


@pytest.mark.parametrize("solver", ["heun", "ddpm"])
def test_any_sample_can_be_made_again_alone(solver):
    loop = DenoisingMCMC(
        ExactLevels(world(), LEVELS), eta=0.3, moves=2, outputs=3, warm_up=2, start_steps=3, solver=solver, steps=2
    )
    den = world().denoiser(VE())
    whole = loop(den, 8, seed=1, dtype=torch.float64)
    for i in (0, 4, 7):
        alone = loop(den, 1, seed=1, first=i, dtype=torch.float64)
        assert torch.allclose(whole.x[i : i + 1], alone.x, rtol=1e-8, atol=1e-8)
        assert alone.stats.ratios == (whole.stats.ratios[i],)
    assert not torch.allclose(whole.x[3], whole.x[4])
    start = den.path.alpha(whole.plan.times[0]) * 0 + whole.plan.times[0]
    assert torch.allclose(den.path.sigma(start)[:, 0], torch.tensor(whole.stats.ratios, dtype=torch.float64))


def test_no_draw_is_used_twice(monkeypatch):
    drawn, step = [], KeyedNoise.step

    def counting(self, index, lam, lam_next):
        if type(self) is KeyedNoise:
            drawn.append(index)
        return step(self, index, lam, lam_next)

    monkeypatch.setattr(KeyedNoise, "step", counting)
    fields = {"moves": 3, "warm_up": 2, "start_steps": 4, "solver": "ddpm", "steps": 3}
    DenoisingMCMC(ExactLevels(world(), LEVELS), eta=0.3, **fields)(world().denoiser(VE()), 1)
    assert len(drawn) == len(set(drawn)) == 3 + 1 + 1 + 2 * 5 + 2


def test_counts_are_the_networks_own():
    rows, inner = [], world().denoiser(VE())

    def net(x, t):
        rows.append(len(x))
        return inner(x, t[:, None])

    den = wrap(net, VE(), "x0", shape=(2,), time="t")
    loop = DenoisingMCMC(ExactLevels(world(), LEVELS), eta=0.3, moves=4, outputs=5, warm_up=3, start_steps=3, steps=2)
    out = loop(den, 10)
    # Heun: two evaluations a step and one for the last; chains 0 and 1.
    assert (out.stats.start_up, out.stats.each) == (5 + 3, 4 + 3)
    assert sum(rows) == 2 * (8 + 5 * 4) + 10 * 3
    assert out.stats.evaluations == math.ceil(sum(rows) / 10)


def test_samples_come_from_the_world():
    truth = world().sample(4000, seed=5)
    loop = DenoisingMCMC(ExactLevels(world(), spread_levels(0.3, 10, 60)), eta=0.05, moves=5, outputs=2, steps=4)
    x = loop(world().denoiser(VE()), 500).x.double()
    short = sample(world().denoiser(VE()), 500, solver="heun", grid="karras", evaluations=9).x.double()
    assert float(sliced_w2(x, truth)) < 0.15
    assert float(sliced_w2(x, truth)) < float(sliced_w2(short, truth))


def test_learnt_levels_are_nearly_as_good_as_exact_ones():
    ratios = spread_levels(0.1, 5.0, 20)
    data = GaussianMixture([0.5, 0.5], 0.5 * torch.randn(2, 16, generator=torch.Generator().manual_seed(0)).double(),
                           torch.full((2, 1), 0.02))  # fmt: skip
    learnt = train_levels(data.sample(4000, seed=1), ratios, steps=400)
    k = torch.arange(2000) % 20
    noise = torch.randn(2000, 16, generator=torch.Generator().manual_seed(2)).double()
    y = data.sample(2000, seed=3) + ratios[k][:, None] * noise
    losses = [
        float(torch.nn.functional.cross_entropy(levels(y).double(), k))
        for levels in (ExactLevels(data, ratios), learnt)
    ]
    assert losses[0] < losses[1] < losses[0] + 0.25
    again = train_levels(data.sample(4000, seed=1), ratios, steps=5)
    assert torch.equal(again(y), train_levels(data.sample(4000, seed=1), ratios, steps=5)(y))


def test_bad_arguments():
    for name, bad in (("eta", 0.0), ("moves", 0), ("outputs", 0), ("warm_up", -1), ("steps", 0), ("start_steps", 0)):
        with pytest.raises(ArgumentError, match=name):
            DenoisingMCMC(**{name: bad})
    with pytest.raises(ArgumentError, match="levels"):
        loop_named("dmcmc")(wrap(lambda x, t: x, VE(), "x0", shape=(2,)))
    with pytest.raises(ArgumentError, match="levels need"):
        spread_levels(1.0, 0.1)
    with pytest.raises(ArgumentError, match="steps"):
        train_levels(torch.zeros(3, 2), LEVELS, steps=0)
    with pytest.raises(ArgumentError, match="outputs=1"):
        DenoisingMCMC(outputs=2)(world().denoiser(VE()), start=torch.ones(2, 2))
    labelled = GaussianMixture([0.5, 0.5], MEANS, torch.full((2, 1), 0.1), component_labels=[0, 1])
    with pytest.raises(ArgumentError, match="label"):
        DenoisingMCMC(outputs=2)(labelled.denoiser(VE()), 2, cond={"label": [0, 1]})


def test_exact_levels_are_the_marginals_one_by_one(monkeypatch):
    labelled = GaussianMixture([0.5, 0.5], MEANS, torch.full((2, 1), 0.1), component_labels=[0, 1])
    monkeypatch.setattr("fewstep.loops.noise_levels.MOST_ROWS", 7)
    y, label = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double(), torch.tensor([0, 1, 2])
    got = ExactLevels(labelled, LEVELS)(y, label=label)
    want = torch.stack([labelled.log_density(y, VE(3.0), float(r) / 3, label) for r in LEVELS], 1)
    assert torch.allclose(got, want, rtol=1e-12)
