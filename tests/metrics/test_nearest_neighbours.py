"""Precision, recall, density and coverage on sets made by hand, against loops, and their means on one distribution."""

import math

import numpy as np
import pytest
import torch

from fewstep.metrics import density_coverage, precision_recall


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numbers(pair):
    return tuple(float(value) for value in pair)


def by_loops(real, fake, k):
    """(precision, recall, density, coverage) from the definitions, without matrices."""

    def radius(x, i):
        return sorted(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i)[k - 1]

    real, fake = real.numpy(), fake.numpy()
    in_real = np.array([[np.linalg.norm(y - x) <= radius(real, i) for y in fake] for i, x in enumerate(real)])
    in_fake = np.array([[np.linalg.norm(y - x) <= radius(fake, j) for x in real] for j, y in enumerate(fake)])
    return in_real.any(0).mean(), in_fake.any(0).mean(), in_real.sum() / (k * len(fake)), in_real.any(1).mean()


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("block", [2**22, 50])
def test_equal_loops(k, block, monkeypatch):
    monkeypatch.setattr("fewstep.metrics.samples.BLOCK", block)
    real, fake = normal(0, 30, 3), 0.7 + 0.8 * normal(1, 23, 3)
    expected = by_loops(real, fake, k)
    assert numbers(precision_recall(real, fake, k)) == pytest.approx(expected[:2], abs=1e-15)
    assert numbers(density_coverage(real, fake, k)) == pytest.approx(expected[2:], abs=1e-15)
    assert len(set(expected)) == 4
    assert max(expected[0], expected[1], expected[3]) <= 1 > min(expected) > 0


def test_by_hand():
    real = torch.tensor([0.0, 1.0, 3.0, 10.0])  # nearest other: 1, 1, 2, 7
    fake = torch.tensor([0.5, 5.0, 17.5])  # nearest other: 4.5, 4.5, 12.5
    # Balls of reals: [−1, 1], [0, 2], [1, 5], [3, 17]; of fakes: [−4, 5], [0.5, 9.5], [5, 30].
    assert numbers(precision_recall(real, fake, k=1)) == pytest.approx((2 / 3, 1.0))
    assert numbers(density_coverage(real, fake, k=1)) == pytest.approx((4 / 3, 1.0))
    # Second nearest, of reals: 3, 2, 3, 9: [−3, 3], [−1, 3], [0, 6], [1, 19].
    assert numbers(density_coverage(real, fake, k=2)) == pytest.approx((6 / 6, 1.0))


def test_precision_and_recall_change_places():
    real, fake = normal(2, 40, 2), 0.2 * normal(3, 60, 2)
    precision, recall = numbers(precision_recall(real, fake))
    assert precision > 0.95 > 0.5 > recall
    assert numbers(precision_recall(fake, real)) == (recall, precision)
    assert numbers(precision_recall(real[torch.randperm(40)], fake.flip(0))) == (precision, recall)
    assert numbers(density_coverage(real.flip(0), fake)) == numbers(density_coverage(real, fake.flip(0)))


def test_far_sets_and_the_same_set():
    real = normal(4, 50, 4)
    assert numbers(precision_recall(real, real + 100)) == (0, 0)
    assert numbers(density_coverage(real, real + 100)) == (0, 0)
    assert numbers(precision_recall(real, real.flip(0))) == (1, 1)
    # Each closed ball holds its centre and k others, the one on its edge included.
    assert numbers(density_coverage(real, real.flip(0), k=5)) == pytest.approx((6 / 5, 1))


@pytest.mark.parametrize("away", [0.0, 1e4])
def test_edges_hold_however_far_from_the_origin(away, monkeypatch):
    """Twins have balls of radius 0, which hold their copies although distances are rounded."""
    monkeypatch.setattr("fewstep.metrics.samples.BLOCK", 70)
    real = (away + normal(5, 20, 64)).repeat(2, 1)
    assert numbers(precision_recall(real, real[:20].repeat(3, 1), k=1)) == (1, 1)
    assert numbers(density_coverage(real, real[:20], k=1)) == (2, 1)


def test_a_shift_of_both_changes_nothing():
    real, fake = normal(6, 40, 16), 1.2 * normal(7, 40, 16)
    for metric in (precision_recall, density_coverage):
        near = numbers(metric(real, fake))
        assert 0.1 < min(near) <= max(near) < 1
        assert numbers(metric(real + 1e6, fake + 1e6)) == near


def test_means_where_both_are_one_distribution():
    n, m, k = 20, 15, 3
    values = torch.tensor(
        [numbers(density_coverage(normal(100 + i, n, 2), normal(9000 + i, m, 2), k)) for i in range(800)]
    )
    coverage = 1 - math.prod((n - i) / (n + m - i) for i in range(1, k + 1))
    error = values.std(0) / math.sqrt(len(values))
    assert abs(float(values[:, 0].mean()) - 1) < 3 * float(error[0])
    assert abs(float(values[:, 1].mean()) - coverage) < 3 * float(error[1])
