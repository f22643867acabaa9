"""One change of basis between what networks predict.

Each prediction y is a combination of the data and the noise, and so is the state x:

    x0 = 1·x₀ + 0·ε        eps = 0·x₀ + 1·ε        v = −σ·x₀ + α·ε
    flow = α′·x₀ + σ′·ε    score = 0·x₀ − ε/σ      x = α·x₀ + σ·ε

With rows (α, σ) and (p, q) the 2×2 system is solved once:

    x₀ = (q·x − σ·y)/(αq − σp),      ε = (α·y − p·x)/(αq − σp).
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from fewstep.errors import unknown
from fewstep.paths.base import Path

Prediction = Literal["x0", "eps", "v", "flow", "score"]
PREDICTIONS: tuple[str, ...] = get_args(Prediction)


def _row(path: Path, t: Tensor | float, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """(p, q, s) with s·y = p·x₀ + q·ε; s keeps rows finite where y itself is not (score, and flow at σ′ = ∞)."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    one, zero = torch.ones_like(alpha), torch.zeros_like(alpha)
    if kind == "x0":
        return one, zero, one
    if kind == "eps":
        return zero, one, one
    if kind == "v":
        return -sigma, alpha, one
    if kind == "score":
        return zero, one, -sigma
    if kind == "flow":
        p, q = path.d_alpha(t), path.d_sigma(t)
        largest = torch.maximum(p.abs(), q.abs())
        endless = torch.isinf(largest)
        scale = torch.where(endless, zero, 1 / largest)
        return p * scale, torch.where(endless, one, q * scale), scale
    raise unknown("prediction", kind, PREDICTIONS)


def change_of_basis(path: Path, t: Tensor | float, source: str, target: str) -> tuple[Tensor, Tensor]:
    """The pair (A, C) with target = A·x + C·source at time t.

    Args:
        path: the path on which x lies.
        t: times in [0, 1], any shape.
        source: the prediction at hand, one of "x0", "eps", "v", "flow", "score".
        target: the prediction wanted, one of the same.

    Returns:
        Two float64 tensors of t's shape.  They are not finite where the source does not tell the target: eps at α = 0
        (the state holds no data), x0 to eps at σ = 0 (the state holds no noise).
    """
    p, q, scale = _row(path, t, source)
    if source == target:
        return torch.zeros_like(p), torch.ones_like(p)
    to_p, to_q, to_scale = _row(path, t, target)
    alpha, sigma = path.alpha(t), path.sigma(t)
    determinant = (alpha * q - sigma * p) * to_scale
    return (to_p * q - to_q * p) / determinant, (to_q * alpha - to_p * sigma) * scale / determinant
