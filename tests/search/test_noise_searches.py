"""Random, zero-order and path search: order statistics, the sphere's pole, branches that keep the law, ranks."""

import math

import pytest
import torch

from fewstep import VE, VP, sample
from fewstep.errors import ArgumentError, NumericalError
from fewstep.search import PathSearch, RankEnsemble, Reward, ZeroOrderSearch
from fewstep.search.random_search import RandomSearch
from fewstep.search.search_over_paths import raised
from fewstep.search.verifiers import mean_ranks
from fewstep.search.zero_order_search import neighbours
from fewstep.worlds import Gaussian, GaussianMixture

D = 16
WORLD = Gaussian(torch.zeros(D), 0.5 * torch.eye(D))
MODEL = WORLD.denoiser(VP())


def first(x):
    return x[:, 0]


def run(search, n=1, seed=0, first=0, steps=6, **options):
    return sample(MODEL, n, search=search, steps=steps, seed=seed, first=first, dtype=torch.float64, **options)


def test_the_best_of_n_follows_the_order_statistics():
    plain = sample(MODEL, 1000, steps=6, dtype=torch.float64).x[:, 0]
    for n, expected, spread in ((4, 1.0294, 0.4917), (10, 1.5388, 0.3443), (20, 1.8675, 0.2757)):
        out = run(RandomSearch(first, n), 800)
        assert float(out.rewards.mean()) == pytest.approx(expected * float(plain.std()), abs=0.08)
        assert float(out.rewards.var() / plain.var()) == pytest.approx(spread, abs=0.09)  # winners are more alike
        assert torch.equal(out.rewards, out.scores.max(1).values)
        assert (out.stats.evaluations, out.stats.rewards) == (6 * n, n)
    plain = sample(MODEL, 3, steps=6, dtype=torch.float64).x
    assert torch.equal(run(RandomSearch(first, 1), 3).x, plain)
    still = run(RandomSearch(lambda x: torch.ones(len(x)), 4), 3).x
    assert torch.allclose(still, plain)


def test_neighbours_stand_on_the_sphere_at_their_angle():
    generator = torch.Generator().manual_seed(0)
    pivot, drawn = torch.randn(3, 1, 2, 8, generator=generator), torch.randn(3, 5, 2, 8, generator=generator)
    near = neighbours(pivot, drawn, 0.95)
    n, p = near.flatten(2), pivot.flatten(2)
    assert torch.allclose(n.norm(dim=2), p.norm(dim=2).expand(3, 5), rtol=1e-5)
    apart = (n - p).norm(dim=2) / p.norm(dim=2)
    assert torch.allclose(apart, torch.full((3, 5), math.sqrt(2 * 0.05)), rtol=1e-4)


def test_zero_order_search_walks_to_the_pole():
    start = run(RandomSearch(first, 1), 20)
    scale = float(sample(MODEL, 1000, steps=6, dtype=torch.float64).x[:, 0].std())
    scores = [run(ZeroOrderSearch(first, 6, rounds), 20).rewards for rounds in (1, 5, 60)]
    assert bool((scores[0] >= start.rewards).all())
    assert bool((scores[1] >= scores[0]).all())
    pole = scale * math.sqrt(D)
    assert 0.8 * pole < float(scores[2].mean()) < 1.1 * pole
    equal_cost = run(RandomSearch(first, 361), 20).rewards.mean()
    assert float(scores[2].mean()) > float(equal_cost) + 0.3
    assert run(ZeroOrderSearch(first, 6, 5)).stats.evaluations == 6 * 31


def test_branches_follow_the_forward_kernel():
    path, x = VP(), torch.full((2, 1), 0.7, dtype=torch.float64)
    t, u = torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    drawn = torch.randn(40000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    up = raised(path, t, u, x, 20000, drawn)
    ratio = float(path.alpha(u) / path.alpha(t))
    assert float(up.mean()) == pytest.approx(ratio * 0.7, abs=0.01)
    assert float(up.var()) == pytest.approx(float(path.sigma(u) ** 2) - ratio**2 * float(path.sigma(t) ** 2), rel=0.03)


def test_paths_keep_the_law_without_a_verdict_and_find_more_with_one():
    search = PathSearch(lambda x: torch.zeros(len(x)), 1, 2, back=2, forward=4)
    still = run(search, 400, steps=40).x
    plain = sample(MODEL, 400, solver="ddim", steps=40, dtype=torch.float64).x
    assert float(still.var()) == pytest.approx(float(plain.var()), rel=0.06)
    means = [float(run(PathSearch(first, 2, m, back=2, forward=4), 100, steps=16).rewards.mean()) for m in (1, 4, 16)]
    assert means[0] + 0.2 < means[1] < means[2] - 0.2


def test_the_cost_of_paths_is_counted():
    """8 steps, 2 down; then rounds of 1 up and 3 down from 2, 4 and 6, two of them looked at by one evaluation."""
    out = run(PathSearch(first, 2, 3, first=2, back=1, forward=3), steps=8)
    assert out.stats.evaluations == 2 * 2 + 6 * (3 + 1) + 6 * (3 + 1) + 6 * 3
    assert out.stats.rewards == 6 * 3


@pytest.mark.parametrize("search", [RandomSearch(first, 3), ZeroOrderSearch(first, 3, 2), PathSearch(first, 2, 2)])
def test_a_run_is_the_same_alone(search):
    whole = run(search, 3, seed=4, steps=8)
    alone = run(search, 1, seed=4, first=1, steps=8)
    assert torch.allclose(whole.x[1:2], alone.x)
    assert torch.allclose(whole.rewards, whole.x[:, 0], atol=1e-9)


def test_ranks_do_not_know_scales():
    scores = torch.tensor([[[3.0, 1.0, 2.0]], [[100.0, 300.0, 100.0]]])
    assert mean_ranks(scores).tolist() == [[1.25, 1.0, 0.75]]
    out = run(RandomSearch(RankEnsemble((first, lambda x: 1000 * first(x))), 6), 4)
    assert torch.equal(out.x, run(RandomSearch(first, 6), 4).x)
    assert out.stats.rewards == 12


def test_a_class_is_found_and_its_spread_shrinks():
    world = GaussianMixture([0.5, 0.5], torch.tensor([[-1.0], [1.0]]), torch.full((2, 1), 0.2))
    verdict = Reward(lambda x: world.component_posterior(x, VE(20.0), 1e-6)[:, 1].log().clamp_min(-50))
    found = [
        sample(world.denoiser(VE(20.0)), 400, search=RandomSearch(verdict, n), steps=12, dtype=torch.float64).x[:, 0]
        for n in (1, 8)
    ]
    right = [x[x > 0] for x in found]
    assert len(right[0]) / 400 < 0.6 < 0.98 < len(right[1]) / 400
    assert float(right[1].var()) < 0.7 * float(right[0].var())


def test_bad_input_is_refused():
    for made in (
        lambda: RandomSearch(first, 0), lambda: ZeroOrderSearch(first, 0), lambda: ZeroOrderSearch(first, cosine=1.0),
        lambda: PathSearch(first, back=3, forward=3), lambda: PathSearch(first, branches=0), lambda: RankEnsemble(()),
    ):  # fmt: skip
        with pytest.raises(ArgumentError):
            made()
    for search, options, says in (
        (RandomSearch(first), {"solver": "ddpm"}, "deterministic"),
        (RandomSearch(first), {"start": torch.zeros(1, D)}, "takes no start"),
        (PathSearch(first), {"solver": "dpm-solver++"}, "remembers nothing"),
        (PathSearch(first, first=9), {}, "first must lie"),
        (RandomSearch("best"), {}, "callable"),
    ):
        with pytest.raises(ArgumentError, match=says):
            sample(MODEL, 1, search=search, steps=6, **options)
    with pytest.raises(ArgumentError, match="no evaluations"):
        sample(MODEL, 1, search=PathSearch(first), evaluations=60)
    with pytest.raises(NumericalError, match="not finite"):
        run(ZeroOrderSearch(lambda x: x[:, 0] * torch.nan))
