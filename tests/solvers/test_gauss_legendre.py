"""A quadrature of n nodes is exact up to degree 2n − 1, and not beyond."""

import pytest
import torch

from fewstep.solvers.gauss_legendre import gauss_legendre


@pytest.mark.parametrize("count", [1, 2, 5])
def test_exact_up_to_its_degree(count):
    nodes, weights = gauss_legendre(count)
    for degree in range(2 * count + 1):
        got, want = float((weights * nodes**degree).sum()), (1 + (-1) ** degree) / (degree + 1)
        assert (abs(got - want) < 1e-14) == (degree < 2 * count)


def test_what_is_kept_serves_gradients_too():
    gauss_legendre.cache_clear()
    with torch.inference_mode():
        nodes, _ = gauss_legendre(3)
    assert not nodes.is_inference()
