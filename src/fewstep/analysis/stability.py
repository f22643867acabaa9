"""Where on the real axis a linear multistep method is stable.

On the test equation y′ = μy with step h, z = hμ, the method Σ_j a_j y_{n+j} = h Σ_j b_j y′_{n+j} is stable where all
roots of ρ(ζ) − z·σ(ζ) lie in the unit disc, ρ = Σ a_j ζ^j and σ = Σ b_j ζ^j.  A root leaves the disc only where z is on
the locus z(θ) = ρ(e^{iθ})/σ(e^{iθ}); the boundary is its first crossing of the negative real axis beyond which some
root is outside.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq

from fewstep.errors import ArgumentError

ANGLES = np.linspace(1e-6, np.pi, 4001)


def stability_boundary(a: Sequence[float], b: Sequence[float]) -> float:
    """The largest r such that the method is stable for every real z in (−r, 0); 0 where there is none.

    Args:
        a: a_0 … a_k of the method, the newest state's last; at least two, a_k not 0, their sum 0.
        b: b_0 … b_k, of the same length.

    Raises:
        ArgumentError: the two do not make a consistent method.
    """
    left, right = (np.asarray(v, dtype=np.float64)[::-1] for v in (a, b))
    if left.shape != right.shape or left.ndim != 1 or len(left) < 2 or left[0] == 0 or abs(left.sum()) > 1e-9:
        raise ArgumentError(f"a and b must be of one length of at least 2, a_k not 0 and Σa = 0; got {a} and {b}")

    def locus(angle: float) -> complex:
        point = np.exp(1j * angle)
        return complex(np.polyval(left, point) / np.polyval(right, point))

    def stable(z: float) -> bool:
        return bool(np.abs(np.roots(left - z * right)).max() <= 1 + 1e-9)

    found = [locus(np.pi).real]
    imaginary = [locus(angle).imag for angle in ANGLES[:-1]]
    for i in range(len(imaginary) - 1):
        if imaginary[i] * imaginary[i + 1] < 0:
            crossing = locus(brentq(lambda angle: locus(angle).imag, ANGLES[i], ANGLES[i + 1], xtol=1e-14))
            if abs(crossing.imag) < 1e-6:  # a pole changes its sign, too
                found.append(crossing.real)
    edges = [0.0, *sorted(-z for z in found if np.isfinite(z) and z < -1e-9)]
    for edge, beyond in zip(edges, [*edges[1:], 2 * edges[-1] + 1], strict=True):
        if not stable(-(edge + beyond) / 2):
            return float(edge)
    return float("inf")


def momentum_method(weights: Sequence[float], damping: float) -> tuple[list[float], list[float]]:
    """(a, b) of a method with momentum, as `stability_boundary` takes them.

    y_{n+1} = y_n + h·v_n with v_n = (1 − β)v_{n−1} + β Σ_j w_j y′_{n−j}: heavy ball with the Adams–Bashforth weights,
    GHVB with its own constants c, as a filter and a weighted sum may be exchanged.

    Args:
        weights: w, the newest derivative's first.
        damping: β in (0, 1].
    """
    k = max(len(weights), 2)
    a = [0.0] * (k - 2) + [1 - damping, damping - 2, 1.0]
    b = [0.0] * (k - len(weights)) + [damping * float(w) for w in reversed(list(weights))] + [0.0]
    return a, b
