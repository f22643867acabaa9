"""One Gaussian: the world on which every sampler's error is known in closed form."""

import torch
from torch import Tensor

from fewstep.worlds.mixture import GaussianMixture


def Gaussian(mean: Tensor, covariance: Tensor | float) -> GaussianMixture:
    """The world x₀ ~ N(mean, covariance).

    Args:
        mean: of the shape of one sample.
        covariance: one variance for all, a variance each (of mean's shape), or a matrix (d, d).
    """
    c = torch.as_tensor(covariance, dtype=torch.float64)
    if c.shape == (mean.numel(), mean.numel()) and c.shape != mean.shape:
        return GaussianMixture.full([1.0], mean[None], c[None])
    return GaussianMixture([1.0], mean[None], c.expand(mean.shape).reshape(1, -1) if c.ndim else c.reshape(1, 1))
