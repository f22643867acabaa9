"""A data set itself as a distribution: each of its points with the same weight."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fewstep.worlds.mixture import GaussianMixture


def Empirical(points: Tensor, labels: Tensor | Sequence[int] | None = None) -> GaussianMixture:
    """The world whose samples are the points themselves: x̂₀ = Σ softmax(−|x − α·xᵢ|²/2σ²)ᵢ xᵢ.

    Args:
        points: (n, *shape).
        labels: the class of each point, (n,) from 0.
    """
    n = len(points)
    return GaussianMixture(torch.full((n,), 1.0 / n), points, torch.zeros(n, 1), component_labels=labels)
