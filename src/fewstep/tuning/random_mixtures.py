"""Random mixtures whose flow is exact: what plans are tuned on where no network is to be evaluated."""

from typing import Any

import torch
from torch import Tensor

from fewstep.paths import Path
from fewstep.worlds import GaussianMixture

World = tuple[Any, Tensor, Tensor]
DIMENSIONS = 64


def mixtures(path: Path, seed: int, samples: int) -> list[World]:
    """Random mixtures in 64 dimensions: (denoiser, starts, ends) each.

    Three have 20 modes, overlapping to separated; the fourth is like pictures: six modes whose variances fall from 100,
    along the first of 16 directions, to 0.03, since few directions of a picture hold nearly all of its variance.
    """
    three = [_mixture(path, seed * 1000 + i, samples, 20, apart, rank=4) for i, apart in enumerate((0.3, 0.6, 1.0))]
    return [*three, _mixture(path, seed * 1000 + 3, samples, 6, 0.5, rank=16, ends=(2, -1.3), floor=0.03)]


def fine_mixtures(path: Path, seed: int, samples: int) -> list[World]:
    """Two more, as fine as pictures are: variances from 1 and 30 down to 0.001 along 8 and 32 directions."""
    kinds = ((10, 8, (0, -3), 1e-4), (6, 32, (1.5, -3), 1e-3))
    return [
        _mixture(path, seed * 1000 + 100 + i, samples, modes, 0.5, rank=rank, ends=ends, floor=floor)
        for i, (modes, rank, ends, floor) in enumerate(kinds)
    ]


def _mixture(
    path: Path, seed: int, samples: int, modes: int, apart: float, *, rank: int, floor: float = 0.01,
    ends: tuple[float, float] | None = None,
) -> World:  # fmt: skip
    """One mixture: modes `apart` times a normal draw, variances to 0.3, or from ten to the power of the one end to the
    other, along `rank` directions of each, and `floor` along all others."""
    from fewstep.analysis.flow import exact_flow

    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    basis = torch.linalg.qr(normal(modes, DIMENSIONS, rank))[0]
    spread = 0.3 * torch.rand(modes, rank, dtype=torch.float64, generator=generator)
    if ends is not None:
        spread = (1 + spread) * torch.logspace(ends[0], ends[1], rank, dtype=torch.float64)
    weights = torch.rand(modes, dtype=torch.float64, generator=generator) + 0.2
    means = apart * normal(modes, DIMENSIONS)
    world = GaussianMixture(weights, means, torch.full((modes, 1), floor), basis, spread)
    start = normal(samples, DIMENSIONS) * path.sigma(1.0)
    return world.denoiser(path), start, exact_flow(world.denoiser(path), start, tolerance=1e-7)
