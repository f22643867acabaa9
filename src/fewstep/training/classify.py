"""Training of a classifier: the mean over a batch of −Σ_c q_c·log softmax(net(x))_c.

    q     1 − s at the label and s/classes added to every class, s the label smoothing
    x     a picture in [−1, 1], moved by up to `shift` pixels each way (its border reflected), perhaps mirrored

SGD with Nesterov momentum 0.9; the rate falls linearly to 0. `trainer` takes the steps.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.errors import ArgumentError
from fewstep.networks.features import Features
from fewstep.training.batch import answer, first_draws
from fewstep.training.config import ClassifierConfig


def shifted(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Each picture moved by up to `most` pixels down or up and right or left; what enters is its own reflection.

    Args:
        x: (batch, channels, height, width).
        most: at least 0, less than the sides.
        generator: draws the moves.
    """
    n, channels, height, width = x.shape
    down, right = torch.randint(2 * most + 1, (2, n, 1), generator=generator)
    rows, columns = down + torch.arange(height), right + torch.arange(width)
    padded = functional.pad(x, (most, most, most, most), mode="reflect")
    which, channel = torch.arange(n)[:, None, None, None], torch.arange(channels)[None, :, None, None]
    return padded[which, channel, rows[:, None, :, None], columns[:, None, None, :]]


@dataclass(frozen=True)
class Classifying:
    """The task of a classifier, see `trainer.Task`.

    Args:
        config: the run.
        images: uint8 (images, channels, height, width).
        labels: int64 (images,), each in 0 … classes − 1.
        test: images of the same shape and labels that are only looked at when the run is done.

    Raises:
        ArgumentError: the pictures are no larger than `config.shift`, or the test data does not fit them.
    """

    config: ClassifierConfig
    images: Tensor
    labels: Tensor
    test: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        images, test = self.images, self.test
        if self.config.shift >= min(images.shape[2:]):
            raise ArgumentError(f"shift must be less than the sides {tuple(images.shape[2:])}, got {self.config.shift}")
        if test is not None and (test[0].shape[1:] != images.shape[1:] or not 0 < len(test[0]) == len(test[1])):
            have, want = tuple(test[0].shape), tuple(images.shape[1:])
            raise ArgumentError(f"test needs labelled images of shape {want}, got {have} with {len(test[1])} labels")

    @property
    def ema(self) -> float:
        """No running mean: the statistics of batch normalisation would not be those of mean weights."""
        return 0.0

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """SGD with Nesterov momentum."""
        decay = self.config.weight_decay
        return torch.optim.SGD(network.parameters(), self.config.rate, 0.9, weight_decay=decay, nesterov=True)

    def rate(self, step: int) -> float:
        """A straight line down to 0 after the last step."""
        return self.config.rate * (1 - step / (self.config.images // self.config.batch))

    def loss(self, network: nn.Module, step: int, device: str) -> Tensor:
        """The smoothed cross-entropy on the batch of a step."""
        config = self.config
        generator, pick, x = first_draws(config, self.images, step)
        x = shifted(x, config.shift, generator).contiguous(memory_format=torch.channels_last)
        logits = answer(network, config.precision, device, x)
        return functional.cross_entropy(logits, self.labels[pick].to(device), label_smoothing=config.smoothing)

    def describe(self) -> dict[str, Any]:
        """Nothing beyond its shape and classes."""
        return {}

    def ships(self, network: nn.Module) -> nn.Module:
        """The network itself."""
        return network

    def judge(self, network: nn.Module, device: str) -> dict[str, Any]:
        """The share of the test images whose class it names."""
        if self.test is None:
            return {}
        images, labels = self.test
        read = Features(network.eval(), tuple(images.shape[1:]), device)
        named = torch.cat([read.classify(part.float() / 127.5 - 1).argmax(1).cpu() for part in images.split(2048)])
        accuracy = (named == labels).double().mean().item()
        print(f"accuracy {accuracy:.4f} on {len(labels)} test images", flush=True)
        return {"test_accuracy": accuracy, "test_images": len(labels)}
