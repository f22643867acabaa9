"""The squared maximum mean discrepancy of two sets of samples, without bias (Gretton et al. 2012, lemma 6).

    MMD² = Σ_{i≠j} k(a_i, a_j)/(n(n−1)) + Σ_{i≠j} k(b_i, b_j)/(m(m−1)) − 2·Σ_{ij} k(a_i, b_j)/(nm).

a, b: samples (n, d) and (m, d); k: a mean of Gaussians exp(−‖x − y‖²/(2h²)) over bandwidths h, or the polynomial
(x·y/d + 1)³, with which the features of an Inception network give the kernel Inception distance (Bińkowski et al.
2018).  Its mean is 0 where both distributions are the same, so a single figure may be negative.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fewstep.errors import ArgumentError, unknown
from fewstep.metrics.samples import blocks, row_pair, squared_distances

# The bandwidths, for the median distance: from far finer to far coarser, as no single one sees every difference.
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
# Samples of each set whose distances tell the median; their pairs, 16 MiB at most, are held at once.
MEDIAN_SAMPLES = 1000


def _median_distance(a: Tensor, b: Tensor) -> float:
    """The median distance of two different samples of both sets together, from evenly spaced rows of larger sets."""
    thinned = torch.cat([x[:: math.ceil(len(x) / MEDIAN_SAMPLES)] for x in (a, b)])
    median = float(torch.pdist(thinned).median())
    if median == 0:
        raise ArgumentError("bandwidths must be given where more than half of the samples are the same")
    return median


def _gaussian(a: Tensor, b: Tensor, bandwidths: Sequence[float] | None) -> Callable[[Tensor, Tensor], Tensor]:
    """The kernel as a function of (n, d) and (m, d) that gives (n, m)."""
    if bandwidths is None:
        median = _median_distance(a, b)
        bandwidths = [factor * median for factor in FACTORS]
    listed = isinstance(bandwidths, Sequence) and len(bandwidths) > 0
    if not listed or not all(0 < h < math.inf for h in bandwidths):
        raise ArgumentError(f"bandwidths must be a sequence of positive numbers, at least one, got {bandwidths!r}")
    rates = [-0.5 / float(h) ** 2 for h in bandwidths]

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        squared = squared_distances(x, y)
        total = torch.zeros_like(squared)
        for rate in rates:
            total += (squared * rate).exp_()
        return total / len(rates)

    return kernel


def _polynomial(x: Tensor, y: Tensor) -> Tensor:
    """(x·y/d + 1)³ of every pair of (n, d) and (m, d)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mean_within(x: Tensor, kernel: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The mean of the kernel over pairs of two different samples."""
    total = x.new_zeros(())
    for part in blocks(len(x), len(x)):
        values = kernel(x[part], x)
        values.diagonal(part.start).zero_()
        total += values.sum()
    return total / (len(x) * (len(x) - 1))


def _mean_between(x: Tensor, y: Tensor, kernel: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The mean of the kernel over all pairs of a sample of x and one of y."""
    total = x.new_zeros(())
    for part in blocks(len(x), len(y)):
        total += kernel(x[part], y).sum()
    return total / (len(x) * len(y))


def mmd(a: Tensor, b: Tensor, kernel: str = "gaussian", bandwidths: Sequence[float] | None = None) -> Tensor:
    """The unbiased squared maximum mean discrepancy (Gretton et al. 2012), a float64 scalar.

    Args:
        a: samples (n, …), n at least 2.
        b: samples (m, …), m at least 2.
        kernel: "gaussian", or "polynomial", (x·y/d + 1)³.
        bandwidths: of the Gaussian kernel, in units of the samples, each above 0; the kernel is the mean over them.
            None takes ¼, ½, 1, 2 and 4 times the median distance of both sets together (of at most 1,000 evenly
            spaced samples of each).

    Raises:
        ArgumentError: NaN or infinity, fewer than 2 samples, differing dimensions or devices, an unknown kernel, bad
            bandwidths, or bandwidths for the polynomial kernel.
    """
    left, right = row_pair(("a", "b"), a, b)
    if kernel == "gaussian":
        centre = torch.cat([left, right]).mean(0)
        left, right = left - centre, right - centre
        of_pairs = _gaussian(left, right, bandwidths)
    elif kernel == "polynomial":
        if bandwidths is not None:
            raise ArgumentError("bandwidths must be None with kernel='polynomial', which has none")
        of_pairs = _polynomial
    else:
        raise unknown("kernel", kernel, ["gaussian", "polynomial"])
    within = _mean_within(left, of_pairs) + _mean_within(right, of_pairs)
    return within - 2 * _mean_between(left, right, of_pairs)
