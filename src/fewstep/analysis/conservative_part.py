"""Any field on any density as a gradient and a gauge, from samples alone.

Among φ = Σ_k c_k·ψ_k the best gradient of a field ŝ is the one that least squares find,

    min over c of  E_p‖ŝ − ∇φ‖²,      so that for r = ŝ − ∇φ      E_p[r·∇ψ_k] = 0  for every k,

the weak form of ∇·(p·r) = 0: r is a gauge as far as the ψ_k can tell, and E‖ŝ‖² = E‖∇φ‖² + E‖r‖².  The ψ_k are the
numbers of x and their products, and cosines cos(w_k·x + b_k) of random directions and phases.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError


@dataclass(frozen=True, eq=False)
class FieldSplit:
    """A gradient ∇φ found for a field, and what the field holds beside it.

    Args:
        directions, phases: w (k, d) and b (k,) of the cosines.
        shares: c, of the linear, the quadratic and the cosine terms, one vector.
        field: ŝ itself.
    """

    directions: Tensor
    phases: Tensor
    shares: Tensor
    field: Callable[[Tensor], Tensor]

    def gradient(self, x: Tensor) -> Tensor:
        """∇φ, the shape of x."""
        return (_slopes(x.flatten(1).double(), self.directions, self.phases) @ self.shares).reshape(x.shape)

    def gauge(self, x: Tensor) -> Tensor:
        """r = ŝ − ∇φ, the shape of x."""
        return self.field(x).double() - self.gradient(x)


def _slopes(x: Tensor, directions: Tensor, phases: Tensor) -> Tensor:
    """∇ψ_k at every row, (batch, d, k)."""
    n, d = x.shape
    eye = torch.eye(d, dtype=x.dtype, device=x.device)
    first, second = torch.triu_indices(d, d, device=x.device)
    products = eye[:, first] * x[:, None, second] + eye[:, second] * x[:, None, first]
    waves = -(x @ directions.mT + phases).sin()[:, None] * directions.mT
    return torch.cat([eye.expand(n, d, d), products, waves], 2)


@method(
    name="field-split",
    papers=["On gauge freedom, conservativity and intrinsic dimensionality estimation in diffusion models"],
    arxiv="2402.03845", family="theory", summary="A learned score as a gradient and a gauge, from samples alone.",
)  # fmt: skip
def field_split(
    field: Callable[[Tensor], Tensor], x: Tensor, waves: int = 200, scale: float = 1.0, seed: int = 0
) -> FieldSplit:
    """Split a field into its gradient part and a gauge of the density that x was drawn from.

    Args:
        field: field(x) → the shape of x, such as a network's score at one time.
        x: samples of the density, (n, *shape) of a few dozen numbers at most; n·d well above the number of terms.
        waves: how many cosines; more resolve more and want more samples.
        scale: how fast they turn: the deviation of w, about one over the finest length of the density.
        seed: of the directions and phases.

    Raises:
        ArgumentError: a bad number, fewer equations than terms, or a field of another shape than x.
    """
    if not isinstance(waves, int) or isinstance(waves, bool) or waves < 0:
        raise ArgumentError(f"waves must be an integer of at least 0, got {waves!r}")
    if not scale > 0:
        raise ArgumentError(f"scale must be above 0, got {scale!r}")
    flat = x.flatten(1).double()
    n, d = flat.shape
    terms = d + d * (d + 1) // 2 + waves
    if n * d < 2 * terms:
        raise ArgumentError(f"{terms} terms need at least {-(-2 * terms // d)} samples of {d} numbers, got {n}")
    generator = torch.Generator().manual_seed(seed)
    directions = scale * torch.randn(waves, d, dtype=torch.float64, generator=generator)
    phases = 2 * torch.pi * torch.rand(waves, dtype=torch.float64, generator=generator)
    directions, phases = directions.to(x.device), phases.to(x.device)
    told = field(x).detach().double()
    if told.shape != x.shape:
        raise ArgumentError(f"field must give the shape of x, {tuple(x.shape)}, got {tuple(told.shape)}")
    slopes = _slopes(flat, directions, phases).flatten(0, 1)
    # Random waves are nearly dependent: without a ridge they run away where samples are few.
    normal = slopes.mT @ slopes / n
    ridge = 1e-3 * normal.diagonal().mean() * torch.eye(terms, dtype=torch.float64, device=x.device)
    shares = torch.linalg.solve(normal + ridge, slopes.mT @ told.flatten() / n)
    return FieldSplit(directions, phases, shares, field)
