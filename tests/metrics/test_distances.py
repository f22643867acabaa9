"""Fréchet and Wasserstein distances against closed forms, scipy's matrix root, enumeration and replication."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.stats import norm

from fewstep.metrics import frechet_distance, gaussian_frechet, sliced_w2, w2

MEAN_A, MEAN_B = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([0.0, 0.3, 0.5]).double()
FACTOR_A = torch.tensor([[1.0, 0, 0], [0.7, 0.4, 0], [-0.3, 0.2, 2.0]]).double()
FACTOR_B = torch.tensor([[0.5, 0, 0], [-1.1, 1.5, 0], [0.9, 0.1, 0.3]]).double()


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_sqrtm(mean_a, cov_a, mean_b, cov_b):
    """The distance as it is printed, with scipy's root of the product."""
    root = sqrtm(np.asarray(cov_a) @ np.asarray(cov_b)).real
    return float((mean_a - mean_b).square().sum() + torch.trace(cov_a) + torch.trace(cov_b)) - 2 * np.trace(root)


def moments(x):
    return x.mean(0), torch.cov(x.T)


def test_gaussian_frechet_equals_the_matrix_root():
    cov_a, cov_b = FACTOR_A @ FACTOR_A.T, FACTOR_B @ FACTOR_B.T
    expected = by_sqrtm(MEAN_A, cov_a, MEAN_B, cov_b)
    assert float(gaussian_frechet(MEAN_A, cov_a, MEAN_B, cov_b)) == pytest.approx(expected, rel=1e-12)
    assert float(gaussian_frechet(MEAN_B, cov_b, MEAN_A, cov_a)) == pytest.approx(expected, rel=1e-12)


def test_gaussian_frechet_where_covariances_commute():
    a, b = torch.tensor([4.0, 0.0, 1.0]), torch.tensor([9.0, 2.0, 0.0])
    shift = torch.tensor([3.0, 0.0, -4.0])
    expected = 25 + (2 - 3) ** 2 + 2 + 1
    assert float(gaussian_frechet(shift, a.diag(), 0 * shift, b.diag())) == pytest.approx(expected, rel=1e-12)
    assert float(gaussian_frechet(shift, a.diag(), shift, a.diag())) == pytest.approx(0, abs=1e-12)


def test_frechet_of_samples_of_known_gaussians():
    a, b = MEAN_A + normal(0, 100_000, 3) @ FACTOR_A.T, MEAN_B + normal(1, 50_000, 3) @ FACTOR_B.T
    expected = gaussian_frechet(MEAN_A, FACTOR_A @ FACTOR_A.T, MEAN_B, FACTOR_B @ FACTOR_B.T)
    assert float(frechet_distance(a, b)) == pytest.approx(float(expected), rel=0.01)


def test_frechet_of_samples_equals_the_matrix_root():
    a, b = 1 + normal(2, 30, 5) @ normal(3, 5, 5), normal(4, 41, 5)
    expected = by_sqrtm(*moments(a), *moments(b))
    assert float(frechet_distance(a, b)) == pytest.approx(expected, rel=1e-10)
    assert float(frechet_distance(b, a)) == pytest.approx(expected, rel=1e-10)
    assert float(frechet_distance(a[torch.randperm(30)], b)) == pytest.approx(expected, rel=1e-10)


def test_frechet_of_fewer_samples_than_dimensions():
    a, b = normal(5, 6, 40), normal(6, 4, 40)
    expected = gaussian_frechet(*moments(a), *moments(b))
    assert float(frechet_distance(a, b)) == pytest.approx(float(expected), rel=1e-6)
    # A line of three points and one at right angles to it: the roots' product is 0, the traces are left.
    line, across = torch.tensor([[-1.0, 0], [0, 0], [1, 0]]), torch.tensor([[0.0, -2], [0, 0], [0, 2]])
    assert float(frechet_distance(line, across)) == pytest.approx(1 + 4, rel=1e-12)


@pytest.mark.parametrize("shape", [(50, 3), (7, 30), (40, 2, 3, 3)])
def test_frechet_of_the_same_samples_is_zero(shape):
    a = normal(7, *shape)
    assert float(frechet_distance(a, a.flip(0))) == pytest.approx(0, abs=1e-11)
    shift = torch.full(shape[1:], 0.5, dtype=torch.float64)
    assert float(frechet_distance(a, a + shift)) == pytest.approx(0.25 * shift.numel(), rel=1e-10)


def test_frechet_is_biased_upwards_with_few_samples():
    few, many = (frechet_distance(normal(8, n, 16), normal(9, n, 16)) for n in (12, 400))
    assert float(few) > 5 > 1 > float(many) > 0


def test_frechet_asks_features_in_batches_without_gradient():
    weight = normal(10, 12, 4).requires_grad_()
    sizes = []

    def features(batch):
        sizes.append(len(batch))
        return (batch.flatten(1) @ weight.float()).tanh()

    a, b = normal(11, 600, 3, 2, 2).float(), 1.5 * normal(12, 300, 3, 2, 2).float()
    distance = frechet_distance(a, b, features)
    assert sizes == [256, 256, 88, 256, 44]
    assert not distance.requires_grad
    expected = by_sqrtm(*moments(features(a).detach().double()), *moments(features(b).detach().double()))
    assert float(distance) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("shift", "scale"), [(2.0, 1.0), (0.0, 3.0), (-1.0, 0.5)])
def test_sliced_w2_of_gaussians_on_a_line(shift, scale):
    def quantiles(n):
        return torch.from_numpy(norm.ppf((np.arange(n) + 0.5) / n))[:, None]

    distance = sliced_w2(quantiles(4000), shift + scale * quantiles(3001).flip(0), projections=3)
    assert float(distance) == pytest.approx(math.hypot(shift, scale - 1), rel=2e-3)


def test_sliced_w2_of_a_shift():
    a = normal(13, 200, 8)
    shift = torch.tensor([3.0, 0, 0, -4, 0, 0, 0, 0]).double()
    distance = sliced_w2(a, (a + shift).flip(0), projections=8000)
    assert float(distance) == pytest.approx(5 / math.sqrt(8), rel=0.015)


@pytest.mark.parametrize(("n", "m"), [(4, 6), (3, 5), (2, 8), (7, 6)])
def test_sliced_w2_of_unequal_numbers_equals_replication(n, m):
    a, b = normal(14, n, 3), 1 + 2 * normal(15, m, 3)
    whole = math.lcm(n, m)
    expected = sliced_w2(a.repeat_interleave(whole // n, 0), b.repeat_interleave(whole // m, 0))
    assert float(sliced_w2(a, b)) == pytest.approx(float(expected), rel=1e-12)
    assert float(sliced_w2(b, a)) == pytest.approx(float(expected), rel=1e-12)


def test_sliced_w2_by_hand():
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 5.0, 0.0])
    # Quantiles of a: 0 up to ½, 2 beyond; of b: 0 up to ⅓, 1 up to ⅔, 5 beyond.
    expected = (0 * 1 / 3 + 1 * 1 / 6 + 1 * 1 / 6 + 9 * 1 / 3) ** 0.5
    assert float(sliced_w2(a, b, projections=1)) == pytest.approx(expected, rel=1e-14)


def test_sliced_w2_depends_on_its_seed_alone(monkeypatch):
    a, b = normal(16, 50, 4), normal(17, 60, 4)
    first = float(sliced_w2(a, b, 32, seed=1))
    assert float(sliced_w2(a[torch.randperm(50)], b, 32, seed=1)) == pytest.approx(first, rel=1e-12)
    assert float(sliced_w2(a, b, 32, seed=2)) != pytest.approx(first, rel=1e-6)
    assert float(sliced_w2(a, a.flip(0))) == pytest.approx(0, abs=1e-15)
    monkeypatch.setattr("fewstep.metrics.samples.BLOCK", 330)
    assert float(sliced_w2(a, b, 32, seed=1)) == pytest.approx(first, rel=1e-12)


def test_sliced_w2_lies_below_w2():
    a, b = normal(18, 40, 3), normal(19, 40, 3) * 2
    assert 0 < float(sliced_w2(a, b)) < float(w2(a, b))
    line_a, line_b = a[:, :1], b[:, :1]
    assert float(sliced_w2(line_a, line_b)) == pytest.approx(float(w2(line_a, line_b)), rel=1e-12)


def test_w2_by_hand():
    a = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    b = torch.tensor([[1.0, 10], [0, 2], [10, 3]])
    assert float(w2(a, b)) == pytest.approx(math.sqrt((1 + 4 + 9) / 3), rel=1e-14)
    assert float(w2(b, a)) == pytest.approx(math.sqrt(14 / 3), rel=1e-14)
    assert float(w2(a + 1e6, a[[2, 0, 1]] + 1e6)) == 0


def test_w2_is_the_best_of_all_matchings():
    a, b = normal(20, 6, 3), normal(21, 6, 3)
    best = min(float((a - b[list(p)]).square().sum() / 6) for p in itertools.permutations(range(6)))
    assert float(w2(a, b)) == pytest.approx(math.sqrt(best), rel=1e-13)
    assert float(w2(a + 1e8, b + 1e8)) == pytest.approx(math.sqrt(best), rel=1e-6)
