"""The Wasserstein distance W2 of two sets of samples: exact, and sliced by random directions.

    W2² = min over matchings π of (1/n)·Σ ‖a_i − b_π(i)‖²,      SW2² = mean over directions θ of W2²(θ·a, θ·b).

a, b: samples (n, d) and (m, d); θ: uniform on the unit sphere.  On a line the best matching is that of the quantiles,

    W2² = ∫₀¹ (Q_a(u) − Q_b(u))² du,

whose integrand is constant between neighbouring levels i/n and j/m.  All are in the units of the samples.
"""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.metrics.samples import blocks, integer, row_pair, squared_distances


def _quantile_coupling(n: int, m: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The pieces of [0, 1] on which both quantiles are constant: order statistics of a and b, and the piece's length.

    Levels are counted in whole parts of 1/(nm), so that a level of both sets is one level and not nearly one.
    """
    ends = torch.cat([torch.arange(1, n + 1, device=device) * m, torch.arange(1, m + 1, device=device) * n]).unique()
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    return starts // m, starts // n, (ends - starts).double() / (n * m)


def sliced_w2(a: Tensor, b: Tensor, projections: int = 256, seed: int = 0) -> Tensor:
    """The sliced Wasserstein distance of order 2 (Bonneel et al. 2015), a float64 scalar.

    Args:
        a: samples (n, …), n at least 2.
        b: samples (m, …), m at least 2, any other number than n too.
        projections: the number of random directions, at least 1.
        seed: of the directions, in [0, 2⁶⁴); the same seed and d give the same directions on every device.

    Raises:
        ArgumentError: NaN or infinity, fewer than 2 samples, differing dimensions or devices, an integer out of range.
    """
    left, right = row_pair(("a", "b"), a, b)
    count = integer("projections", projections, 1)
    stream = torch.Generator().manual_seed(integer("seed", seed, 0, 2**64 - 1))
    directions = torch.randn(count, left.shape[1], generator=stream, dtype=torch.float64)
    directions = (directions / directions.norm(dim=1, keepdim=True)).to(left.device)
    of_a, of_b, lengths = _quantile_coupling(len(left), len(right), left.device)
    total = left.new_zeros(())
    for part in blocks(count, len(left) + len(right)):
        along_a = (directions[part] @ left.T).sort(1).values
        along_b = (directions[part] @ right.T).sort(1).values
        total += ((along_a[:, of_a] - along_b[:, of_b]).square() @ lengths).sum()
    return (total / count).sqrt()


def w2(a: Tensor, b: Tensor) -> Tensor:
    """The exact Wasserstein distance of order 2 of two sets of equal size, a float64 scalar.

    It is found by optimal assignment on the host: n² memory and up to n³ time, meant for n up to about 2,000.

    Args:
        a: samples (n, …), n at least 2.
        b: samples (n, …).

    Raises:
        ArgumentError: NaN or infinity, fewer than 2 samples, differing numbers, dimensions or devices.
    """
    left, right = row_pair(("a", "b"), a, b)
    if len(left) != len(right):
        raise ArgumentError(f"a and b must have the same number of samples, got {len(left)} and {len(right)}")
    centre = right.mean(0)
    costs = squared_distances(left - centre, right - centre)
    _, matched = linear_sum_assignment(costs.cpu().numpy())
    pairs = right[torch.as_tensor(matched, device=right.device)]
    return (left - pairs).square().sum(1).mean().sqrt()
