"""Resampling: which particles go on, so that particle i has k·w_i children on average.

    multinomial    k independent draws                         variance of a count k·w(1 − w)
    residual       ⌊k·w_i⌋ children for sure, the rest multinomial
    systematic     one uniform u, the points (u + j)/k         counts ⌊k·w⌋ or ⌈k·w⌉
    ssp            counts ⌊k·w⌋ or ⌈k·w⌉, fractions paired      the same, and consistent in every order of the particles

w: (runs, k), at least 0 with sum 1; u: (runs, k), uniform on (0, 1); ancestors: int64 (runs, k), numbers of particles.
A particle of weight 0 has no children under any rule.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Rule = Callable[[Tensor, Tensor], Tensor]


def _pick(weights: Tensor, points: Tensor) -> Tensor:
    """For each point in (0, 1) the particle in whose piece of the cumulated weights it lies."""
    ends = weights.cumsum(-1)
    found = torch.searchsorted(ends, (points * ends[..., -1:]).contiguous(), right=True)
    last = (weights > 0).long().cumsum(-1).argmax(-1, keepdim=True)
    return torch.minimum(found, last)


def _with_counts(counts: Tensor) -> Tensor:
    """Ancestors in rising order, particle i counts_i times."""
    places = torch.arange(counts.shape[-1], device=counts.device).expand_as(counts).contiguous()
    return torch.searchsorted(counts.cumsum(-1), places, right=True)


def multinomial(weights: Tensor, uniforms: Tensor) -> Tensor:
    """k independent draws."""
    return _pick(weights, uniforms)


def systematic(weights: Tensor, uniforms: Tensor) -> Tensor:
    """One uniform number, the first of each run, and k points at equal distances."""
    k = weights.shape[-1]
    return _pick(weights, (uniforms[..., :1] + torch.arange(k, device=weights.device)) / k)


def residual(weights: Tensor, uniforms: Tensor) -> Tensor:
    """⌊k·w_i⌋ children of particle i, and what is missing drawn from the fractions that are left."""
    k = weights.shape[-1]
    wanted = _near_whole(k * weights)
    sure = wanted.floor()
    ends, places = sure.cumsum(-1), torch.arange(k, device=weights.device, dtype=weights.dtype).expand_as(weights)
    certain = torch.searchsorted(ends, places.contiguous(), right=True).clamp_max(k - 1)
    left = wanted - sure
    none = ends[..., -1:] >= k
    drawn = _pick(torch.where(none, torch.ones_like(left), left), uniforms)
    return torch.where(places < ends[..., -1:], certain, drawn)


def ssp(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Srinivasan's sampling process (Gerber, Chopin and Whiteley 2019).

    One particle at a time, its fraction b meets the fraction a that is still open.  For s = a + b < 1 one of them takes
    all of s, the open one with probability a/s; for s ≥ 1 one becomes 1, the open one with probability
    (1 − b)/(2 − s), and the other keeps s − 1.
    """
    k = weights.shape[-1]
    wanted = _near_whole(k * weights)
    counts, fractions = wanted.floor(), wanted - wanted.floor()
    owner, a = torch.zeros_like(counts[..., :1], dtype=torch.long), fractions[..., :1].clone()
    for j in range(1, k):
        b, u = fractions[..., j : j + 1], uniforms[..., j : j + 1]
        s = a + b
        low = s < 1
        stays = u < torch.where(low, a / s.clamp_min(1e-300), 1 - (1 - b) / (2 - s).clamp_min(1e-300))
        # Of the pair the one that does not stay open is settled, at 0 below and at 1 above.
        here = torch.full_like(owner, j)
        counts.scatter_add_(-1, torch.where(stays, here, owner), (~low).to(counts))
        owner, a = torch.where(stays, owner, here), torch.where(low, s, s - 1)
    counts.scatter_add_(-1, owner, a.round())
    return _with_counts(counts.long())


def _near_whole(values: Tensor) -> Tensor:
    """Values that rounding left a hair beside a whole number, put on it."""
    whole = values.round()
    return torch.where((values - whole).abs() < 1e-9, whole, values)


RULES: dict[str, Rule] = {"multinomial": multinomial, "residual": residual, "ssp": ssp, "systematic": systematic}
