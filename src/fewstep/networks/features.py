"""What a trained classifier sees in pictures: its penultimate features and its class probabilities.

features(x) ∈ ℝᵈ for a Fréchet distance that needs no download;      classify(x) = softmax(W·features(x) + b)
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.errors import ArgumentError, WeightsError, unknown
from fewstep.networks import weights

ASSETS, SUFFIX = Path(__file__).parent.parent / "assets", "-classifier"
BATCH = 256


@dataclass(frozen=True)
class Features:
    """A classifier as a function of pictures, run in batches of 256 without gradients.

    Args:
        network: a `Classifier` in evaluation mode, on `device`.
        shape: (channels, height, width) of its pictures.
        device: where it runs; the answers stay there.
    """

    network: nn.Module
    shape: tuple[int, ...]
    device: torch.device | str = "cpu"

    def __call__(self, x: Tensor) -> Tensor:
        """The penultimate features (n, d) of pictures.

        Args:
            x: floating point (n, channels, height, width) in [−1, 1], n ≥ 1.

        Raises:
            ArgumentError: x is not of that shape and kind.
        """
        network: Any = self.network
        return self._batches(network.features, x)

    def classify(self, x: Tensor) -> Tensor:
        """The probabilities (n, classes) of the classes of pictures.

        Args:
            x: floating point (n, channels, height, width) in [−1, 1], n ≥ 1.

        Raises:
            ArgumentError: x is not of that shape and kind.
        """
        return self._batches(self.network, x).softmax(1)

    def _batches(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.shape or x.ndim != 4 or len(x) == 0 or not x.is_floating_point():
            raise ArgumentError(
                f"x must be floating-point pictures in [−1, 1] of shape (n, {', '.join(map(str, self.shape))}), n ≥ 1; "
                f"got {x.dtype} of shape {tuple(x.shape)}"
            )
        with torch.no_grad():
            return torch.cat([function(part.to(self.device, torch.float32)) for part in x.split(BATCH)])


def load_features(name: str | Path, device: torch.device | str = "cpu") -> Features:
    """The features of a shipped classifier, or of a classifier that `fewstep train` wrote.

    Args:
        name: "mnist", "cifar10", or the path of a safetensors file.
        device: where it runs.

    Raises:
        ArgumentError: no classifier of that name; the nearest are offered.
        WeightsError: the file is not a whole classifier of ours.
    """
    shipped = sorted(p.stem.removesuffix(SUFFIX) for p in ASSETS.glob(f"*{SUFFIX}.safetensors"))
    file = ASSETS / f"{name}{SUFFIX}.safetensors" if str(name) in shipped else Path(name)
    if not file.is_file() and file.suffix != ".safetensors":
        raise unknown("classifier", str(name), shipped)
    network, config = weights.read(file)
    if config["network"]["kind"] != "classifier" or "shape" not in config:
        raise WeightsError(f"{file} holds no classifier with its shape, but a {config['network']['kind']}")
    return Features(network.to(device), tuple(config["shape"]), device)
