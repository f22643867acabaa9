"""Conjugate gradients for M x = b with M symmetric and not negative, every sample by itself.

    x ← x + a·p,   r ← r − a·M p,   p ← r + (‖r′‖²/‖r‖²)·p,      a = ‖r‖²/⟨p, M p⟩

After k iterations x − x_start lies in span{r, M r … M^{k−1} r} (the Krylov space of the first residual), and begun at
0 on M = AᵀA, b = Aᵀy it goes to A†y.
"""

from collections.abc import Callable

from torch import Tensor


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))


def solve_by_cg(
    matrix: Callable[[Tensor], Tensor], b: Tensor, start: Tensor, iterations: int = 100, tolerance: float = 1e-6
) -> Tensor:
    """x with M x = b, after a number of iterations.

    A sample whose residual has fallen below tolerance·‖b‖ stands still from then on, whatever the others do.

    Args:
        matrix: x → M x.
        b: (batch, …).
        start: where to begin, of b's shape.
        iterations: how many, at least 1.
        tolerance: of the residual, relative to b.
    """
    x, residual = start, b - matrix(start)
    direction, square = residual, _dot(residual, residual)
    enough = tolerance**2 * _dot(b, b)
    for _ in range(iterations):
        going = square > enough
        image = matrix(direction)
        curvature = _dot(direction, image)
        size = (square / curvature.masked_fill(curvature == 0, 1.0)).masked_fill(~going, 0.0)
        x, residual = x + size * direction, residual - size * image
        before, square = square, _dot(residual, residual)
        direction = residual + square / before.masked_fill(before == 0, 1.0) * direction
    return x
