"""The fit is least squares without reweighting, the least sum of distances with it, and strays do not decide it."""

import pytest
import torch

from fewstep.tuning.robust_fit import fitted


def drawn(n=12, d=5, k=2):
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(n, d, k, dtype=torch.float64, generator=generator)
    return vectors, torch.randn(n, d, dtype=torch.float64, generator=generator)


def test_without_reweighting_it_is_least_squares():
    vectors, missing = drawn()
    want = torch.linalg.lstsq(vectors.flatten(0, 1), missing.flatten()[:, None]).solution[:, 0]
    assert torch.allclose(fitted(vectors, missing, 0, ridge=0.0), want, rtol=1e-10)
    assert torch.allclose(fitted(vectors, missing, 0), want, rtol=1e-4)


def test_with_it_no_small_change_lessens_the_sum_of_distances():
    vectors, missing = drawn()
    found = fitted(vectors, missing, 200, ridge=0.0)

    def distances(c):
        return float((missing - vectors @ c).norm(dim=1).sum())

    for change in torch.eye(2, dtype=torch.float64) * 1e-3:
        assert distances(found) < min(distances(found + change), distances(found - change))
    assert distances(found) < distances(fitted(vectors, missing, 0, ridge=0.0))


def test_a_noise_that_went_astray_does_not_decide():
    vectors, _ = drawn()
    true = torch.tensor([0.7, -0.3], dtype=torch.float64)
    missing = vectors @ true
    missing[0] += 100.0
    assert (fitted(vectors, missing, 0) - true).abs().max() > 0.5
    assert (fitted(vectors, missing, 20) - true).abs().max() < 1e-2


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e9])
def test_the_size_of_a_vector_does_not_matter(size):
    vectors, missing = drawn()
    scale = torch.tensor([size, 1.0], dtype=torch.float64)
    assert torch.allclose(fitted(vectors * scale, missing, 5) * scale, fitted(vectors, missing, 5), rtol=1e-9)


def test_a_vector_of_zeros_has_no_weight_and_nothing_missing_no_fit():
    vectors, missing = drawn()
    vectors[..., 1] = 0.0
    alone = fitted(vectors[..., :1], missing, 5)
    both = fitted(vectors, missing, 5)
    assert both[1] == 0
    assert torch.allclose(both[:1], alone, rtol=1e-5)
    assert (fitted(vectors, torch.zeros_like(missing), 5) == 0).all()
