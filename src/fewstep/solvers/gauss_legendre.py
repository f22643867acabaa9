"""Gauss–Legendre quadrature: ∫₋₁¹ f(u) du = Σ_j w_j f(u_j), exact for polynomials of a degree below 2·count."""

from functools import cache

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor


@cache
def gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """The nodes u and the weights w, float64 (count,) each.

    Args:
        count: how many, at least 1.
    """
    with torch.inference_mode(False):  # what is kept must serve runs with gradients too
        nodes, weights = (torch.from_numpy(values) for values in leggauss(count))
        return nodes, weights
