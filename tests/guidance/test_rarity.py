"""Minority scores on a world of which every density is known, and the levels of noise that the authors take."""

import pytest
import torch
from scipy.stats import spearmanr

from fewstep import VP, Cosine, sample
from fewstep.guidance import MinorityGuidance, minority_score
from fewstep.worlds import GaussianMixture


def world():
    """Weights 0.9, 0.09 and 0.01 in ten dimensions."""
    means = 1.2 * torch.randn(3, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return GaussianMixture([0.9, 0.09, 0.01], means, torch.full((3, 1), 0.05), component_labels=[0, 1, 2])


def test_the_score_ranks_samples_as_their_density_does():
    """By the rank correlation with −log p, best at little noise; with next to none the score is how the noise fell."""
    exact = world()
    x = exact.sample(600, seed=5)
    rarity = -exact.log_density(x, VP(), 1e-3)
    by_time = {
        t: float(spearmanr(minority_score(exact.denoiser(VP()), x, t, draws=8), rarity)[0]) for t in (0.02, 0.3, 0.6)
    }
    assert by_time[0.3] > 0.85
    assert 0.5 < by_time[0.6] < by_time[0.3]
    assert by_time[0.02] < by_time[0.6]


@pytest.mark.parametrize("t", [0.3, 0.6])
def test_the_score_is_that_of_the_noise_times_the_square_of_the_noise_ratio(t):
    """ℓ = (σ²/α²)·E‖ε̂ − ε‖²/D, the same draws."""
    den, x, told = world().denoiser(VP()), world().sample(5), torch.tensor(t, dtype=torch.float64)
    alpha, sigma = VP().alpha(told), VP().sigma(told)
    generator, wanted = torch.Generator().manual_seed(0), 0.0
    for _ in range(3):
        noise = torch.randn(10, generator=generator, dtype=torch.float64)
        noisy = alpha * x + sigma * noise
        wrong = (noisy - alpha * den(noisy, t)) / sigma - noise
        wanted = wanted + (sigma / alpha) ** 2 * wrong.square().mean(1) / 3
    assert torch.allclose(minority_score(den, x, t, draws=3), wanted, rtol=1e-9)


def test_the_authors_levels_of_noise():
    """λ of step 60 of 100 on the linear path, where the score is taken, and of 0.8 on two paths for the self-guided."""
    assert float(VP().lam(0.6)) == pytest.approx(-1.82, abs=0.03)
    assert float(VP().lam(0.8)) == pytest.approx(-3.25, abs=0.04)
    assert float(Cosine().lam(0.8)) == pytest.approx(-1.13, abs=0.01)


def test_the_scale_sharpens_the_class():
    """Beyond w = 1 samples of the guided class lie farther from the others than its own do."""
    exact = world()

    def classifier(x, t):
        return exact.component_posterior(x, VP(), t).clamp_min(1e-30).log()

    shares = []
    for scale in (0.0, 0.5, 1.0):
        x = sample(
            exact.denoiser(VP()), 200, steps=20, dtype=torch.float64, guides=[MinorityGuidance(classifier, -1, scale)]
        ).x
        shares.append(float(exact.component_posterior(x, VP(), 0.05)[:, 2].mean()))
    assert shares[0] < 0.05
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.95
