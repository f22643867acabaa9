"""How well samples lie on the real ones and cover them, by balls that reach to the k-th nearest neighbour.

Around sample x of a set X stands the closed ball of radius r_k(x), its distance to the k-th nearest other sample of X.

    precision = share of fakes in a ball of a real,      recall = share of reals in a ball of a fake,
    density = (1/(kM))·Σ over fakes of the number of reals' balls that hold it,
    coverage = share of reals whose ball holds a fake.

Real: (N, d); fake: (M, d), samples or features of them.  All are in [0, 1] but density, which may pass 1.
"""

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.metrics.samples import blocks, integer, row_pair, squared_distances

# Squared distances are rounded; a sample on a ball's edge must count as in it however the blocks fall.
ROUNDING = 1e-12


def _reach(x: Tensor, k: int) -> Tensor:
    """The squared radius of the ball around each sample (n, d), rounding allowed for: (n,)."""
    nearest = []
    for part in blocks(len(x), len(x)):
        squared = squared_distances(x[part], x)
        squared.diagonal(part.start).fill_(torch.inf)
        nearest.append(squared.kthvalue(k, 1).values)
    radius = torch.cat(nearest)
    return radius + ROUNDING * (radius + x.square().sum(1))


def _checked(real: Tensor, fake: Tensor, k: int, needs_k: tuple[str, ...]) -> tuple[Tensor, Tensor, int]:
    """Both sets as rows around the origin, and k."""
    left, right = row_pair(("real", "fake"), real, fake)
    k = integer("k", k, 1)
    for name, rows in (("real", left), ("fake", right)):
        if name in needs_k and k >= len(rows):
            raise ArgumentError(f"k must be below the number of samples of {name}, {len(rows)}, got {k}")
    centre = left.mean(0)
    return left - centre, right - centre, k


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[Tensor, Tensor]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, 1904.06991), two float64 scalars in [0, 1].

    Args:
        real: samples or features (N, …), N above k.
        fake: samples or features (M, …), M above k.
        k: which nearest neighbour a ball reaches to, at least 1.

    Raises:
        ArgumentError: NaN or infinity, too few samples for k, differing dimensions or devices.
    """
    real, fake, k = _checked(real, fake, k, ("real", "fake"))
    reach_real, reach_fake = _reach(real, k), _reach(fake, k)
    precise = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    recalled = []
    for part in blocks(len(real), len(fake)):
        squared = squared_distances(real[part], fake)
        precise |= (squared <= reach_real[part, None]).any(0)
        recalled.append((squared <= reach_fake).any(1))
    return precise.double().mean(), torch.cat(recalled).double().mean()


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[Tensor, Tensor]:
    """Density and coverage (Naeem et al. 2020, 2002.09797), two float64 scalars.

    Where both distributions are the same, their means are 1 and 1 − Π_{i=1…k} (N − i)/(N + M − i).

    Args:
        real: samples or features (N, …), N above k.
        fake: samples or features (M, …), M at least 2.
        k: which nearest neighbour a ball reaches to, at least 1.

    Raises:
        ArgumentError: NaN or infinity, too few samples for k, differing dimensions or devices.
    """
    real, fake, k = _checked(real, fake, k, ("real",))
    reach = _reach(real, k)
    counts = []
    for part in blocks(len(real), len(fake)):
        counts.append((squared_distances(real[part], fake) <= reach[part, None]).sum(1))
    held = torch.cat(counts)
    return held.sum().double() / (k * len(fake)), (held > 0).double().mean()
