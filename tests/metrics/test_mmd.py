"""The maximum mean discrepancy against its closed form on Gaussians and a double loop, and its lack of bias."""

import math

import numpy as np
import pytest
import torch

from fewstep.metrics import mmd


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(a, b, kernel):
    def mean(x, y, same):
        return np.mean([kernel(p, q) for i, p in enumerate(x) for j, q in enumerate(y) if not (same and i == j)])

    a, b = a.flatten(1).numpy(), b.flatten(1).numpy()
    return mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)


def gaussian(bandwidths):
    return lambda x, y: np.mean([math.exp(-((x - y) ** 2).sum() / (2 * h * h)) for h in bandwidths])


def polynomial(x, y):
    return (x @ y / len(x) + 1) ** 3


@pytest.mark.parametrize("block", [2**22, 20])
def test_equals_a_double_loop(block, monkeypatch):
    monkeypatch.setattr("fewstep.metrics.samples.BLOCK", block)
    a, b = normal(0, 9, 2, 2), 0.5 + 2 * normal(1, 7, 2, 2)
    widths = [0.7, 2.5]
    assert float(mmd(a, b, bandwidths=widths)) == pytest.approx(by_loops(a, b, gaussian(widths)), rel=1e-11)
    assert float(mmd(a, b, "polynomial")) == pytest.approx(by_loops(a, b, polynomial), rel=1e-11)


def test_bandwidths_are_multiples_of_the_median_distance():
    a, b = 4 + normal(2, 8, 3), 5 * normal(3, 6, 3)  # 91 pairs, of which one is the middle
    both = torch.cat([a, b]).numpy()
    distances = [np.linalg.norm(both[i] - both[j]) for i in range(14) for j in range(i)]
    widths = [factor * np.median(distances) for factor in (0.25, 0.5, 1, 2, 4)]
    expected = by_loops(a, b, gaussian(widths))
    assert float(mmd(a, b)) == pytest.approx(expected, rel=1e-11)
    assert float(mmd(b[torch.randperm(6)], a.flip(0))) == pytest.approx(expected, rel=1e-11)


def test_median_of_large_sets_is_of_evenly_spaced_samples(monkeypatch):
    monkeypatch.setattr("fewstep.metrics.kernel_discrepancy.MEDIAN_SAMPLES", 4)
    a, b = normal(4, 10, 2), 3 * normal(5, 4, 2)
    median = float(torch.pdist(torch.cat([a[[0, 3, 6, 9]], b])).median())
    widths = [factor * median for factor in (0.25, 0.5, 1, 2, 4)]
    assert float(mmd(a, b)) == pytest.approx(by_loops(a, b, gaussian(widths)), rel=1e-11)


def test_gaussian_kernel_does_not_see_a_shift_of_both():
    a, b = normal(9, 20, 3), 0.5 + normal(10, 25, 3)
    assert float(mmd(a + 1e6, b + 1e6)) == pytest.approx(float(mmd(a, b)), rel=1e-7)


def test_gaussian_kernel_on_gaussians():
    """E k(x, y) = hᵈ det(S + h²I)^{−½} exp(−½ δᵀ(S + h²I)⁻¹δ) for x − y ~ N(δ, S)."""
    factor = torch.tensor([[1.0, 0.0], [0.8, 0.5]]).double()
    shift, width = torch.tensor([0.6, -0.3]).double(), 1.3
    cov_a, cov_b = torch.eye(2).double(), factor @ factor.T

    def expected(delta, cov):
        spread = cov + width**2 * torch.eye(2)
        return float(width**2 * torch.det(spread) ** -0.5 * torch.exp(-0.5 * delta @ torch.linalg.solve(spread, delta)))

    exact = expected(0 * shift, 2 * cov_a) + expected(0 * shift, 2 * cov_b) - 2 * expected(shift, cov_a + cov_b)
    a, b = normal(6, 4000, 2), shift + normal(7, 3000, 2) @ factor.T
    assert exact > 0.03
    assert float(mmd(a, b, bandwidths=[width])) == pytest.approx(exact, abs=0.003)


@pytest.mark.parametrize("kernel", ["gaussian", "polynomial"])
def test_mean_is_zero_for_one_distribution(kernel):
    """With the diagonal in, the mean would lie more than a hundred standard errors above."""
    widths = [1.0] if kernel == "gaussian" else None
    draws = normal(8, 1500, 2, 6, 3)
    values = torch.stack([mmd(a, b, kernel, widths) for a, b in draws])
    error = float(values.std() / math.sqrt(len(values)))
    assert abs(float(values.mean())) < 3 * error
    assert 0.3 < float((values < 0).double().mean()) < 0.7
