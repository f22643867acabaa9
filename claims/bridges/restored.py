"""The restorations that claims about bridges are measured on, with their exact posteriors."""

from functools import cache

import torch
from torch import Tensor

from fewstep import sample
from fewstep.metrics import sliced_w2
from fewstep.paths import Bridge, Path
from fewstep.plan import Plan
from fewstep.worlds import GaussianMixture

PICTURES, SAMPLES, SIZE, NOISE = 2, 5000, 16, 0.7


@cache
def signals() -> GaussianMixture:
    """Twelve unequal modes in 16 dimensions; few enough dimensions that samples tell distances apart."""
    generator = torch.Generator().manual_seed(0)
    means = 0.6 * torch.randn(12, SIZE, dtype=torch.float64, generator=generator)
    basis = torch.linalg.qr(torch.randn(12, SIZE, 3, dtype=torch.float64, generator=generator))[0]
    spread = 0.3 * torch.rand(12, 3, dtype=torch.float64, generator=generator)
    weights = torch.rand(12, dtype=torch.float64, generator=generator) + 0.2
    return GaussianMixture(weights, means, torch.full((12, 1), 0.01), basis, spread)


@cache
def restorations() -> list[tuple[Tensor, Tensor, GaussianMixture]]:
    """(x₀, y, the exact posterior of x₀ given y) of two of the signals, blurred and made noisy."""
    offsets = torch.arange(SIZE)
    near = (offsets[:, None] - offsets).abs()
    blur = torch.exp(-0.5 * (torch.minimum(near, SIZE - near) / 2.0) ** 2).double()
    blur = blur / blur.sum(1, keepdim=True)
    clean = signals().sample(PICTURES, seed=3)
    noise = torch.randn(PICTURES, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    seen = clean @ blur.mT + NOISE * noise
    return [(x, y, signals().posterior(blur, y, NOISE)) for x, y in zip(clean, seen, strict=True)]


def restored(plan: Plan, path: Path) -> tuple[float, float]:
    """What a plan makes of them: (sliced W2 to the posterior, RMSE of one sample to the clean x₀), both means.

    On a bridge a run begins at y with the path's noise, which is (1 − b)·y + c·ε for the sampler; elsewhere at noise.
    """
    distances, errors = [], []
    for i, (x0, y, posterior) in enumerate(restorations()):
        noise = torch.randn(SAMPLES, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(i))
        first = plan.times[0]
        begin = (1 - path.shift(first)) * y if isinstance(path, Bridge) else torch.zeros_like(y)
        x = sample(posterior.denoiser(path), start=begin + path.sigma(first) * noise, plan=plan).x
        distances.append(float(sliced_w2(x, posterior.sample(SAMPLES, seed=20 + i))))
        errors.append(float((x - x0).square().mean().sqrt()))
    return sum(distances) / PICTURES, sum(errors) / PICTURES
