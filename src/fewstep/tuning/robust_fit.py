"""Least distances: a fit over noises in which a few that went astray do not decide.

    c = argmin Σ_n ‖r_n − Σ_k c_k v_nk‖

is found by least squares, again and again, each noise weighed by 1/‖what the last fit left of it‖.  At few steps some
samples end in another mode than the flow's, far off whatever a step does; they are most of a sum of squares, and what
is best for them is not what is best for the others.
"""

import torch
from torch import Tensor

# A share of the mean of the diagonal that is added to it: vectors may be nearly parallel.
RIDGE = 1e-6
# A noise counts at most as if a thousandth of the median were left of it.
LEAST = 1e-3


def fitted(vectors: Tensor, missing: Tensor, reweighted: int, ridge: float = RIDGE) -> Tensor:
    """The weights c of the vectors.

    Args:
        vectors: v, float64 (n, d, k).
        missing: r, float64 (n, d).
        reweighted: rounds of reweighting; 0 is plain least squares.
        ridge: what is added to the diagonal, of vectors of length 1, as a share of its mean; at least 0.

    Returns:
        float64 (k,); 0 for a vector that is 0.
    """
    length = vectors.flatten(0, 1).norm(dim=0)
    unit = vectors / torch.where(length > 0, length, 1.0)
    weights = torch.ones(len(missing), dtype=torch.float64)
    found = torch.zeros(unit.shape[-1], dtype=torch.float64)
    for _ in range(reweighted + 1):
        normal = torch.einsum("ndk,n,ndl->kl", unit, weights, unit)
        extra = (ridge * normal.diagonal().mean()).clamp_min(1e-300)
        wanted = torch.einsum("ndk,n,nd->k", unit, weights, missing)
        found = torch.linalg.solve(normal + extra * torch.eye(len(normal), dtype=torch.float64), wanted)
        left = (missing - unit @ found).norm(dim=1)
        weights = 1 / left.clamp_min(LEAST * float(left.median()) + 1e-300)
        weights = weights / weights.mean()
    return torch.where(length > 0, found / torch.where(length > 0, length, 1.0), 0.0)
