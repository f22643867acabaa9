"""The Fréchet distance: squared Wasserstein distance of two Gaussians with the moments of two sets of samples.

    D² = ‖μ_a − μ_b‖² + tr(A + B − 2(AB)^{1/2}),      tr (AB)^{1/2} = ‖F_a F_bᵀ‖_* where A = F_aᵀF_a, B = F_bᵀF_b.

μ: means (d,); A, B: covariances (d, d), with n − 1 in the denominator for samples; F: any factor of a covariance, here
the triangle of the centred samples, so that no root of a rounded eigenvalue is taken; ‖·‖_*: sum of singular values.
D² ≥ 0, in squared units of the features.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.metrics.samples import finite, row_pair, same_place

# Samples a call of `features`: a network's activations of all samples at once would not fit in memory.
BATCH = 256
# How far given covariances may be from symmetric and from non-negative, for their size: float32 moments pass.
TOLERANCE = 1e-5


def _distance(mean_a: Tensor, factor_a: Tensor, mean_b: Tensor, factor_b: Tensor) -> Tensor:
    """D² from means (d,) and factors (any, d); rounding below zero is cut off."""
    cross = torch.linalg.svdvals(factor_a @ factor_b.T).sum()
    spread = factor_a.square().sum() + factor_b.square().sum() - 2 * cross
    return ((mean_a - mean_b).square().sum() + spread).clamp(min=0)


def _described(name: str, samples: Tensor, features: Callable[[Tensor], Tensor]) -> Tensor:
    """The features (n, d) of samples (n, …), asked in batches without gradient."""
    if not isinstance(samples, Tensor) or samples.ndim == 0 or len(samples) < 2:
        raise ArgumentError(f"{name} must be a tensor (n, …) with n at least 2")
    if not callable(features):
        raise ArgumentError(f"features must be a function of a batch, got {features!r}")
    with torch.no_grad():
        told = [features(batch) for batch in samples.split(BATCH)]
    for batch, answer in zip(samples.split(BATCH), told, strict=True):
        if not isinstance(answer, Tensor) or answer.ndim != 2 or len(answer) != len(batch):
            got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise ArgumentError(f"features must answer a batch of {len(batch)} with ({len(batch)}, d), got {got}")
    if len({answer.shape[1] for answer in told}) > 1:
        raise ArgumentError("features must answer every batch with the same d")
    return torch.cat(told)


def _moments(samples: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (d,) of samples (n, d) and a factor (min(n, d), d) of their covariance."""
    mean = samples.mean(0)
    triangle = torch.linalg.qr(samples - mean, mode="r").R
    return mean, triangle / (len(samples) - 1) ** 0.5


def _factor(name: str, cov: Tensor) -> Tensor:
    """A factor (d, d) of a covariance (d, d)."""
    size = cov.abs().max()
    if bool((cov - cov.T).abs().max() > TOLERANCE * size):
        raise ArgumentError(f"{name} must be symmetric")
    values, vectors = torch.linalg.eigh((cov + cov.T) / 2)
    if bool(values[0] < -TOLERANCE * size):
        raise ArgumentError(f"{name} must be positive semi-definite, got the eigenvalue {float(values[0]):.3g}")
    return values.clamp(min=0).sqrt()[:, None] * vectors.T


def frechet_distance(a: Tensor, b: Tensor, features: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """The squared Fréchet distance of two sets of samples (Heusel et al. 2017, 1706.08500), a float64 scalar.

    Two finite sets of one distribution are a positive distance apart, so the figure is biased, as a rule upwards, and
    the more so the smaller n: compare only figures of the same n.  With n ≤ d the covariance is singular and this bias
    is large.

    Args:
        a: samples (n, …), n at least 2.
        b: samples (m, …), m at least 2.
        features: turns a batch (k, …), k at most 256, into features (k, d), each row by itself; None flattens.

    Raises:
        ArgumentError: NaN or infinity, fewer than 2 samples, differing dimensions or devices, misshapen features.
    """
    if features is not None:
        a, b = _described("a", a, features), _described("b", b, features)
    left, right = row_pair(("a", "b"), a, b)
    return _distance(*_moments(left), *_moments(right))


def gaussian_frechet(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> Tensor:
    """The squared Wasserstein distance of two Gaussians (Dowson and Landau 1982), a float64 scalar.

    Args:
        mean_a: mean (d,).
        cov_a: covariance (d, d), symmetric and positive semi-definite; singular is allowed.
        mean_b: mean (d,).
        cov_b: covariance (d, d).

    Raises:
        ArgumentError: NaN or infinity, shapes or devices that do not match, not a covariance.
    """
    given = {"mean_a": mean_a, "cov_a": cov_a, "mean_b": mean_b, "cov_b": cov_b}
    values = {name: finite(name, value) for name, value in given.items()}
    dim = values["mean_a"].numel()
    for name, value in values.items():
        shape = (dim,) if name.startswith("mean") else (dim, dim)
        if dim == 0 or value.shape != shape:
            raise ArgumentError(f"{name} must have shape {shape} beside mean_a, got {tuple(value.shape)}")
        same_place(("mean_a", name), values["mean_a"], value)
    factor_a, factor_b = _factor("cov_a", values["cov_a"]), _factor("cov_b", values["cov_b"])
    return _distance(values["mean_a"], factor_a, values["mean_b"], factor_b)
