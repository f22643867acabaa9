"""The sampler that diffusion bridges had before DBIM: steps in part stochastic, in part not (Zhou et al. 2024).

On the bridge of a base path with drift f and noise rate g, with s the score of x and h that of the arrival at y,

    dx = (f·x − g²(s − h)) dt + g dW,      or without noise      dx = (f·x − g²(s/2 − h)) dt,

each step of Karras' grid with exponent 7 is one of Euler–Maruyama over the share `churn`, then one of Heun without
noise over the rest; the last step is Euler's.
"""

from itertools import pairwise

import torch
from torch import Tensor

from fewstep.denoisers import Bridged
from fewstep.paths import DiffusionBridge


def hybrid_grid(steps: int) -> list[float]:
    """Its times, with 0 at the end."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    ends = [t ** (1 / 7) for t in (1 - 1e-4, 1e-4)]
    return [*((ends[0] + ramp * (ends[1] - ends[0])) ** 7).tolist(), 0.0]


def evaluations(steps: int) -> int:
    """What its steps cost: three each, the last two."""
    return 3 * steps - 1


def hybrid_heun(den: Bridged, y: Tensor, steps: int, seed: int = 0, churn: float = 0.33) -> Tensor:
    """Samples of x₀ given y, begun at y.

    Args:
        den: a restoration model on a diffusion bridge.
        y: the degraded pictures, (batch, *shape).
        steps: how many steps, at least 2.
        seed: of the noise.
        churn: the share of a step that is stochastic.
    """
    path = den.path
    assert isinstance(path, DiffusionBridge)
    base = path.base
    ratio = float(base.sigma(1.0) / base.alpha(1.0)) ** 2

    def slope(x: Tensor, t: float, share: float) -> Tensor:
        a, b, c = (float(curve(t)) for curve in (path.alpha, path.shift, path.sigma))
        x0 = den(x - b * y, t, y=y)
        score = (a * x0 + b * y - x) / c**2
        alpha = float(base.alpha(t))
        left = alpha**2 * (ratio - float(base.sigma(t) / alpha) ** 2)
        arrival = (alpha / float(base.alpha(1.0)) * y - x) / left
        return float(base.drift(t)) * x - float(base.diffusion(t)) ** 2 * (share * score - arrival)

    x, generator = y, torch.Generator().manual_seed(seed)
    for now, then in pairwise(hybrid_grid(steps)):
        middle = (then - now) * churn + now
        noise = torch.randn(y.shape, dtype=y.dtype, generator=generator)
        rate = float(base.diffusion(now)) * (now - middle) ** 0.5
        x = x + (middle - now) * slope(x, now, 1.0) + rate * noise
        first = slope(x, middle, 0.5)
        guess = x + (then - middle) * first
        if then > 0:
            guess = x + (then - middle) * 0.5 * (first + slope(guess, then, 0.5))
        x = guess
    return x
