"""Fitting a mixture of low-rank Gaussians to data: probabilistic principal components within each class, by EM.

    r_nk ∝ w_k N(x_n; μ_k, C_k),   μ_k, Σ_k = weighted mean and covariance,   C_k = U diag(e) Uᵀ + v I

with U the leading eigenvectors of Σ_k, v the mean of its other eigenvalues and e what the leading ones have beyond v
(Tipping and Bishop, Mixtures of probabilistic principal component analysers, 1999).
"""

from pathlib import Path as FilePath

import torch
from torch import Tensor

from fewstep.errors import ArgumentError, WeightsError
from fewstep.networks.weights import read_tensors, write_tensors
from fewstep.paths import VP
from fewstep.worlds.mixture import GaussianMixture

FORMAT = "fewstep-world"


def fit_low_rank(
    data: Tensor, labels: Tensor, *, components: int = 2, rank: int = 24, rounds: int = 12, seed: int = 0
) -> GaussianMixture:
    """The mixture of low-rank Gaussians that EM fits to labelled data, each class by itself.

    Args:
        data: (n, *shape), in [−1, 1].
        labels: int64 (n,) from 0.
        components: components a class, at least 1.
        rank: the columns of each basis, less than the numbers in a sample.
        rounds: rounds of EM.
        seed: of the first guess.

    Raises:
        ArgumentError: a class has fewer samples than components · (rank + 1), or rank is too large.
    """
    flat = data.reshape(len(data), -1).float()
    if len(labels) != len(data) or not 0 < rank < flat.shape[1]:
        raise ArgumentError(f"rank must be 1 … {flat.shape[1] - 1}, and each sample have a label; got rank={rank}")
    generator = torch.Generator().manual_seed(seed)
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    names: list[int] = []
    counts: list[Tensor] = []
    for label in range(int(labels.max()) + 1):
        mine = flat[labels == label]
        if len(mine) < components * (rank + 1):
            raise ArgumentError(f"class {label} has {len(mine)} samples, too few for {components} of rank {rank}")
        share = torch.nn.functional.one_hot(_nearest(mine, components, generator), components).double()
        for _ in range(rounds if components > 1 else 1):
            fitted = [_principal(mine, share[:, k].float(), rank) for k in range(components)]
            world = _mixture(fitted, share.sum(0) / len(mine), (flat.shape[1],))
            share = world.component_posterior(mine, VP(), 0.0)
        parts += fitted
        names += [label] * components
        counts.append(share.sum(0))
    return _mixture(parts, torch.cat(counts), tuple(data.shape[1:]), names)


def _nearest(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The number of the nearest of `count` centres, after ten rounds of k-means."""
    centres = x[torch.randperm(len(x), generator=generator)[:count]]
    for _ in range(10):
        nearest = torch.cdist(x, centres).argmin(-1)
        centres = torch.stack([x[nearest == k].mean(0) if (nearest == k).any() else centres[k] for k in range(count)])
    return nearest


def _principal(x: Tensor, share: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(mean, v, U, e) of the weighted samples."""
    mean = (share @ x) / share.sum()
    centred = (x - mean) * (share / share.sum()).sqrt()[:, None]
    with torch.random.fork_rng(devices=[]):  # svd_lowrank draws its first guess from the global generator
        torch.manual_seed(0)
        _, singular, vectors = torch.svd_lowrank(centred, q=min(rank + 12, *centred.shape), niter=8)
    values, u = singular[:rank].double().square(), torch.linalg.qr(vectors[:, :rank].double()).Q
    v = ((centred.double().square().sum() - values.sum()) / (len(mean) - rank)).clamp_min(0)
    return mean.double(), v[None], u, (values - v).clamp_min(0)


def _mixture(
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]], weights: Tensor, shape: tuple[int, ...],
    names: list[int] | None = None,
) -> GaussianMixture:  # fmt: skip
    mean, v, u, e = (torch.stack(column) for column in zip(*parts, strict=True))
    return GaussianMixture(weights, mean.reshape(-1, *shape), v, u, e, component_labels=names)


def write_world(path: str | FilePath, world: GaussianMixture, metadata: dict[str, object]) -> None:
    """Write a mixture as safetensors: bases and means in half precision, the rest whole; JSON data beside them."""
    tensors = {
        "weights": world.weights, "variance": world.variance, "spread": world.spread,
        "means": world.means.half(), "basis": world.basis.half(),
    }  # fmt: skip
    if world.component_labels is not None:
        tensors["component_labels"] = world.component_labels
    write_tensors(path, tensors, {"format": FORMAT, "version": 1, "shape": list(world.shape), **metadata})


def read_world(path: str | FilePath) -> GaussianMixture:
    """The mixture in a file that `write_world` made; its bases are made orthonormal again.

    Raises:
        WeightsError: the file is not a whole world of ours.
    """
    tensors, config = read_tensors(path, FORMAT)
    try:
        basis = torch.linalg.qr(tensors["basis"].double())
        # QR may flip a column; a basis has no sign.
        return GaussianMixture(
            tensors["weights"], tensors["means"].double().reshape(-1, *config["shape"]), tensors["variance"], basis.Q,
            tensors["spread"], tensors.get("component_labels"),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: the world in it is incomplete or does not fit together ({error})") from error
