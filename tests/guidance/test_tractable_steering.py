"""The latent tree against enumeration of all pictures, and steering by it against the exact posterior."""

import itertools
import math

import pytest
import torch

from fewstep import VP, make_plan, sample, wrap
from fewstep.errors import ArgumentError
from fewstep.guidance.latent_tree import IMPOSSIBLE, LatentTree, certain, chow_liu, fit_latent_tree
from fewstep.guidance.tractable_steering import TractableSteering, to_levels

PARENTS = (2, -1, 1, 2)  # parents may stand after their children
STATES, LEVELS = 2, 3
PICTURES = torch.tensor(list(itertools.product(range(LEVELS), repeat=4)))


def tiny(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def logs(*shape):
        return (2 * torch.randn(*shape, generator=generator, dtype=torch.float64)).log_softmax(-1)

    return LatentTree(PARENTS, logs(STATES), logs(4, STATES, STATES), logs(4, STATES, LEVELS))


def probabilities(tree):
    """p of every picture, by the definition: a sum over all latents."""
    root, edges, leaves = tree.root.exp(), tree.edges.exp(), tree.leaves.exp()
    found = torch.zeros(len(PICTURES), dtype=torch.float64)
    for z in itertools.product(range(STATES), repeat=4):
        p = root[z[1]] * math.prod(float(edges[i, z[PARENTS[i]], z[i]]) for i in (0, 2, 3))
        for n, x in enumerate(PICTURES.tolist()):
            found[n] += p * math.prod(float(leaves[i, z[i], x[i]]) for i in range(4))
    return found


def test_it_is_the_distribution_and_its_marginals_are_exact():
    tree, p = tiny(), probabilities(tiny())
    assert float(p.sum()) == pytest.approx(1)
    assert torch.allclose(tree.log_evidence(certain(PICTURES, LEVELS, torch.float64)), p.log(), atol=1e-12)
    generator = torch.Generator().manual_seed(1)
    evidence = 3 * torch.randn(5, 4, LEVELS, generator=generator, dtype=torch.float64)
    evidence[2, 1] = torch.tensor([IMPOSSIBLE, 0.0, IMPOSSIBLE])
    weights = p * evidence[:, torch.arange(4), PICTURES].sum(-1).exp()
    assert torch.allclose(tree.log_evidence(evidence), weights.sum(1).log(), atol=1e-10)
    seen = torch.nn.functional.one_hot(PICTURES, LEVELS).double()
    want = torch.einsum("bn,ndv->bdv", weights / weights.sum(1, keepdim=True), seen)
    assert torch.allclose(tree.marginals(evidence), want, atol=1e-10)
    assert torch.allclose(want[2, 1], torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), atol=1e-12)


def drawn(tree, n, seed=3):
    pick = torch.multinomial(probabilities(tree), n, True, generator=torch.Generator().manual_seed(seed))
    return PICTURES[pick]


def test_em_never_falls_and_comes_to_the_data():
    truth = tiny(4)
    pixels = drawn(truth, 2000)
    start = tiny(5)
    likelihoods, tree = [], start
    for _ in range(40):
        tree, before = tree.improved(pixels, pseudocount=0.0, chunk=700)
        likelihoods.append(before)
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(likelihoods))
    assert likelihoods[-1] > likelihoods[0] + 0.1
    best = float(probabilities(truth).log()[(pixels[:, None] == PICTURES).all(-1).int().argmax(1)].mean())
    assert likelihoods[-1] == pytest.approx(best, abs=0.02)
    for part in (tree.root, tree.leaves, tree.edges[[0, 2, 3]]):
        assert torch.allclose(part.exp().sum(-1), torch.ones((), dtype=torch.float64))
    # One step from one state's responsibilities by hand: the root's new weight is the mean posterior of its latent.
    z_root = 0
    only = LatentTree(PARENTS, torch.tensor([0.0, IMPOSSIBLE], dtype=torch.float64), start.edges, start.leaves)
    joint = only.log_evidence(certain(pixels, LEVELS, torch.float64)) + start.root[z_root]
    posterior = (joint - start.log_evidence(certain(pixels, LEVELS, torch.float64))).exp().mean()
    assert float(start.improved(pixels, 0.0)[0].root[z_root].exp()) == pytest.approx(float(posterior), abs=1e-9)


def test_the_tree_of_most_information_is_found():
    generator = torch.Generator().manual_seed(0)
    chain = [torch.randint(3, (4000,), generator=generator)]
    for _ in range(4):
        new = torch.randint(3, (4000,), generator=generator)
        chain.append(torch.where(torch.rand(4000, generator=generator) < 0.7, chain[-1], new))
    order = [3, 0, 4, 1, 2]  # pixel k is place order[k] of the chain
    parents = chow_liu(torch.stack(chain, 1)[:, order], 3)
    pairs = {frozenset((order[k], order[p])) for k, p in enumerate(parents) if p >= 0}
    assert pairs == {frozenset((i, i + 1)) for i in range(4)}
    assert parents[0] == -1
    fitted = fit_latent_tree(torch.stack(chain, 1)[:, order], 3, states=3, rounds=10)
    alone = -sum(float((c.bincount() / 4000 * (c.bincount() / 4000).log()).sum()) for c in chain)
    assert float(fitted.log_evidence(certain(torch.stack(chain, 1)[:, order], 3)).mean()) > -alone + 0.8


def hidden_case(share, level=0.4):
    """(what steering says, the exact posterior mean, what the denoiser said, the state, known and mask)."""
    tree, path = tiny(), VP()
    den = wrap(lambda x, t: 0.3 * x, path, "x0", shape=(1, 2, 2))
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(3, 1, 2, 2, generator=generator, dtype=torch.float64)
    y, mask = torch.tensor([[[1.0, -1.0], [0.0, 0.0]]]), torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    plan = make_plan(path, "ddim", torch.tensor([level, 0.0], dtype=torch.float64))
    got = sample(den, start=x, plan=plan, guides=[TractableSteering(tree, y, mask, share)]).x
    t = torch.tensor(level, dtype=torch.float64)
    alpha, sigma = path.alpha(t), path.sigma(t)
    values = PICTURES.double() - 1
    fits = (values[:, 0] == 1) & (values[:, 1] == -1)
    off = (x.flatten(1)[:, None, 2:] - alpha * values[:, 2:]).square().sum(-1) / sigma**2
    weights = (probabilities(tree).log() - 0.5 * off).masked_fill(~fits, -math.inf).softmax(1)
    mean = weights @ values
    spread = weights @ values.square() - mean.square() + 1 / 12
    own = sigma**2 / (alpha**2 + sigma**2)
    return got.flatten(1), mean, spread, 0.3 * x.flatten(1), float(own)


def test_with_no_faith_in_the_denoiser_it_is_the_exact_posterior_mean():
    got, mean, *_ = hidden_case(0.0)
    assert torch.allclose(got, mean, atol=1e-7)
    assert torch.allclose(got[:, :2], torch.tensor([1.0, -1.0], dtype=torch.float64))


def test_the_mixture_is_by_precision_and_time():
    got, mean, spread, said, own = hidden_case(0.7)
    want = (0.7 * said / own + 0.3 * mean / spread) / (0.7 / own + 0.3 / spread)
    assert torch.allclose(got[:, 2:], want[:, 2:], atol=1e-7)
    published, *_ = hidden_case(lambda t: 0.8 + 0.2 * (-2 * t).exp())
    a = 0.8 + 0.2 * math.exp(-0.8)
    want = (a * said / own + (1 - a) * mean / spread) / (a / own + (1 - a) / spread)
    assert torch.allclose(published[:, 2:], want[:, 2:], atol=1e-7)


def test_levels_are_the_nearest():
    assert to_levels(torch.tensor([[-1.0, -0.6, -0.4, 0.9, 5.0]]), 5).tolist() == [[0, 1, 1, 4, 4]]


def test_bad_arguments_are_refused():
    tree, y = tiny(), torch.zeros(1, 2, 2)
    with pytest.raises(ArgumentError, match="share"):
        TractableSteering(tree, y, y, 1.5)
    with pytest.raises(ArgumentError, match="above"):
        TractableSteering(tree, y, y, above=-0.1)
    with pytest.raises(ArgumentError, match="LatentTree"):
        TractableSteering(None, y, y)
    small = wrap(lambda x, t: x, VP(), "x0", shape=(1, 2, 2))
    for values, mask, name in ((torch.zeros(3, 3), y, "y"), (y, torch.zeros(3), "mask")):
        with pytest.raises(ArgumentError, match=f"{name} must broadcast"):
            sample(small, 1, steps=2, guides=[TractableSteering(tree, values, mask)])
    den = wrap(lambda x, t: x, VP(), "x0", shape=(1, 3, 3))
    with pytest.raises(ArgumentError, match="4 numbers"):
        sample(den, 1, steps=2, guides=[TractableSteering(tree, y, y)])
    with pytest.raises(ArgumentError, match="one tree"):
        LatentTree((1, 0, -1, 2), tree.root, tree.edges, tree.leaves)
    with pytest.raises(ArgumentError, match="edges"):
        LatentTree((-1, 0), tree.root, tree.edges, tree.leaves)
    with pytest.raises(ArgumentError, match="evidence"):
        tree.log_evidence(torch.zeros(2, 3, LEVELS))
    with pytest.raises(ArgumentError, match="states"):
        fit_latent_tree(torch.zeros(3, 4, dtype=torch.long), 3, states=4)
    with pytest.raises(ArgumentError, match="in 0"):
        fit_latent_tree(torch.full((9, 4), 3), 3, states=2)
