"""Composed densities: what summed scores sample, what MCMC at every level reaches, and mixtures, which need neither."""

import pytest
import torch

from fewstep import VP, Cosine, make_plan, sample
from fewstep.guidance import AnnealedMCMC, Composition
from fewstep.worlds import Gaussian, GaussianMixture

DOUBLE = {"dtype": torch.float64}


def mixture(**more):
    means = torch.tensor([[-1.5, 0.5, 1], [0.5, -1, 0], [2, 1, -1]], dtype=torch.float64)
    return GaussianMixture([0.6, 0.39, 0.01], means, torch.tensor([[0.2], [0.1], [0.4]]), **more)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def end_variance(experts, solver, steps=400, n=1):
    """The variance at λ = 6 of samples begun as N(0, 1) at λ = −6: the slope squared of the map, or of n samples."""
    path = Cosine()
    first, *rest = [(w, Gaussian(torch.zeros(8), v).denoiser(path)) for w, v in experts]
    plan = make_plan(path, solver, path.t_of_lam(torch.linspace(-6, 6, steps, dtype=torch.float64)))
    start = randn(n, 8) if n > 1 else torch.ones(1, 8, dtype=torch.float64)
    x = sample(first[1], start=start, plan=plan, guides=[Composition(tuple(rest), first[0])]).x
    return float(x.square().mean())


def test_summed_scores_miss_the_product_by_the_known_amounts():
    """Experts N(0, 0.3) and N(0, 0.5): the product has 0.1875, with a prior N(0, 1) divided out 0.2308."""
    assert end_variance([(1, 0.3), (1, 0.5)], "ddim", 1600) < 1e-5
    assert end_variance([(1, 0.3), (1, 0.5), (-1, 1.0)], "ddim", 1600) == pytest.approx(0.15, abs=0.002)
    assert end_variance([(1, 0.3), (1, 0.5)], "ddpm", 400, n=4000) == pytest.approx(0.1266, rel=0.08)


def log_normal(variance):
    def log_prob(x, t):
        total = VP().alpha(t) ** 2 * variance + VP().sigma(t) ** 2
        return -0.5 * x.square().flatten(1).sum(1) / total

    return log_prob


@pytest.mark.parametrize("kind", ["ula", "mala", "u-hmc", "hmc"])
def test_mcmc_at_every_level_reaches_the_product(kind):
    """The last walked level has its own precision k, which ula meets up to the known bias and the others without."""
    variances, size = (0.3, 0.5), 0.2
    first, second = (Gaussian(torch.zeros(8), v).denoiser(VP()) for v in variances)
    composed = Composition(((1.0, second),), log_probs=tuple(log_normal(v) for v in variances))
    lams = torch.tensor([-2, -1, 0, 0.2], dtype=torch.float64)
    plan = make_plan(VP(), "ddpm", VP().t_of_lam(lams))
    walk = AnnealedMCMC(composed, kind, rounds=20, size=size)
    got = float(sample(first, start=randn(1000, 8), plan=plan, guides=[composed, walk]).x.var())
    t = plan.times[-1]
    alpha, sigma = float(VP().alpha(t)), float(VP().sigma(t))
    k = sum(1 / (alpha**2 * v + sigma**2) for v in variances)
    eta = size * sigma**2
    biased = 1 / (k * (1 - eta * k / 2))
    # Leapfrogs keep a Gaussian's shadow energy, of variance 1/(k·(1 − h²k/4)): ula's with h² = 2η.
    want = 1 / k if kind in ("mala", "hmc") else biased
    assert got == pytest.approx(want, rel=0.05)
    assert abs(biased * k - 1) > 0.09
    plain = float(sample(first, start=randn(1000, 8), plan=plan, guides=[composed]).x.var())
    assert abs(plain * k - 1) > 0.1


@pytest.mark.parametrize(
    ("kind", "weights", "variances", "target"),
    [
        ("hmc", (1, 1, -1), (0.3, 0.5, 1.0), 0.2308), ("mala", (1.3, -0.3), (0.3, 0.5), 0.2679),
        ("hmc", (2.0,), (0.5,), 0.25),
    ],
    ids=["prior divided out", "negation", "power"],
)  # fmt: skip
def test_mcmc_reaches_quotients_negations_and_powers(kind, weights, variances, target):
    """Each level's own precision Σ wᵢ/(α²vᵢ + σ²), which comes to the target's without noise; reversal misses it."""
    assert 1 / sum(w / v for w, v in zip(weights, variances, strict=True)) == pytest.approx(target, abs=5e-5)
    first, *rest = (Gaussian(torch.zeros(8), v).denoiser(VP()) for v in variances)
    logs = [log_normal(v) for v in variances]
    composed = Composition(tuple(zip(weights[1:], rest, strict=True)), float(weights[0]), log_probs=logs)
    plan = make_plan(VP(), "ddpm", VP().t_of_lam(torch.linspace(-2, 1.6, 10, dtype=torch.float64)))
    walk = AnnealedMCMC(composed, kind, rounds=8, size=0.7, leapfrogs=3)
    got, plain = (
        float(sample(first, start=randn(500, 8), plan=plan, guides=g).x.var()) for g in ([composed, walk], [composed])
    )
    alpha, sigma = float(VP().alpha(plan.times[-1])), float(VP().sigma(plan.times[-1]))
    k = sum(w / (alpha**2 * v + sigma**2) for w, v in zip(weights, variances, strict=True))
    assert got * k == pytest.approx(1, abs=0.06)
    assert abs(plain * k - 1) > 0.1


def test_each_sample_is_walked_at_its_own_times():
    """One that is not yet below the limit, and one that has come to the end, stay as they are; the third is walked."""
    den, walk = Gaussian(torch.zeros(4), 0.3).denoiser(VP()), AnnealedMCMC(rounds=2, size=0.2, below=0.5)
    grids = torch.tensor([[0.9, 0.6], [0.2, 0.0], [0.6, 0.4]], dtype=torch.float64)
    start = randn(3, 4)

    def end(rows, guides):
        plan = make_plan(VP(), "ddim", grids[rows].T[..., None])
        return sample(den, start=start[rows], first=rows[0], plan=plan, guides=guides).x

    both, plain = end([0, 1, 2], [walk]), end([0, 1, 2], [])
    assert torch.equal(both[:2], plain[:2])
    assert torch.allclose(both[2:], end([2], [walk]), atol=1e-12)
    assert (both[2] - plain[2]).abs().max() > 0.05


def test_a_composed_mixture_is_the_mixture():
    whole, world = mixture(), mixture(component_labels=[0, 1, 2])
    parts = world.denoiser(VP())

    def density(label):
        return lambda x, t: world.log_density(x, VP(), t, label)

    composed = Composition(
        ((0.39, {"label": 1}), (0.01, {"label": 2})), 0.6, "mixture", [density(0), density(1), density(2)]
    )
    got = sample(parts, 16, steps=6, cond={"label": 0}, guides=[composed], **DOUBLE)
    assert torch.allclose(got.x, sample(whole.denoiser(VP()), 16, steps=6, **DOUBLE).x, atol=1e-9)
    assert got.stats.evaluations == 18
