"""What the real pictures of a data set look like to its shipped classifier, so that no data set is needed to compare.

    μ = mean of features(x),      C = covariance of features(x)      over the 10,000 test pictures

and the features themselves of 1,000 of them, 100 a class, for metrics of nearest neighbours.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fewstep.errors import WeightsError, unknown
from fewstep.networks import weights

ASSETS, SUFFIX, FORMAT = Path(__file__).parent.parent / "assets", "-reference", "fewstep-reference"
SHAPES = ("mean", "covariance", "features", "labels")


@dataclass(frozen=True)
class Reference:
    """The features of real pictures.

    Args:
        mean: (d,), float64.
        covariance: (d, d), float64.
        features: (n, d), float32, of some of the pictures.
        labels: (n,), int64, their classes.
    """

    mean: Tensor
    covariance: Tensor
    features: Tensor
    labels: Tensor


def load_reference(name: str) -> Reference:
    """The features of the real test pictures of a data set, as `load_features(name)` sees them.

    Args:
        name: "mnist" or "cifar10".

    Raises:
        ArgumentError: no reference of that name; the nearest are offered.
        WeightsError: the file is not whole.
    """
    shipped = sorted(p.stem.removesuffix(SUFFIX) for p in ASSETS.glob(f"*{SUFFIX}.safetensors"))
    if name not in shipped:
        raise unknown("reference", name, shipped)
    return read_reference(ASSETS / f"{name}{SUFFIX}.safetensors")


def read_reference(path: str | Path) -> Reference:
    """The reference in a file that `write_reference` made.

    Raises:
        WeightsError: it is not a whole file of that kind.
    """
    tensors, _ = weights.read_tensors(path, FORMAT)
    if sorted(tensors) != sorted(SHAPES):
        raise WeightsError(f"{path} must hold {', '.join(SHAPES)}, it holds {', '.join(sorted(tensors))}")
    mean, covariance, features, labels = (tensors[k] for k in SHAPES)
    size = mean.numel()
    if mean.shape != (size,) or covariance.shape != (size, size) or features.shape != (len(labels), size):
        raise WeightsError(f"{path}: the shapes of {', '.join(SHAPES)} do not fit together")
    return Reference(mean.double(), covariance.double(), features.float(), labels.long())


def write_reference(path: str | Path, features: Tensor, labels: Tensor, kept: int = 100) -> Reference:
    """Write the moments of all features (n, d), and the first `kept` of each class themselves, at half precision."""
    chosen = torch.cat([(labels == k).nonzero().flatten()[:kept] for k in labels.unique()])
    tensors = {
        "mean": features.double().mean(0).float(), "covariance": torch.cov(features.double().T).float(),
        "features": features[chosen].half(), "labels": labels[chosen].to(torch.uint8),
    }  # fmt: skip
    weights.write_tensors(path, tensors, {"format": FORMAT, "version": weights.VERSION, "pictures": len(features)})
    return read_reference(path)
