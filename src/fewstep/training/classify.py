"""Training of a classifier: the mean over a batch of −Σ_c q_c·log softmax(net(x))_c.

    q     1 − s at the label and s/classes added to every class, s the label smoothing
    x     a picture in [−1, 1], moved by up to `shift` pixels each way (its border reflected), perhaps mirrored

SGD with Nesterov momentum 0.9; the rate falls linearly to 0. `trainer` takes the steps.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.errors import ArgumentError
from fewstep.networks.features import Features
from fewstep.training.config import ClassifierConfig
from fewstep.training.trainer import Trainer, answer, first_draws


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
        test: images and labels that are only looked at when the run is done.
    """

    config: ClassifierConfig
    images: Tensor
    labels: Tensor
    test: tuple[Tensor, Tensor] | None = None

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


def train_classifier(
    config: ClassifierConfig,
    images: Tensor,
    labels: Tensor,
    out: str | Path,
    classes: list[str],
    test: tuple[Tensor, Tensor] | None = None,
    every: int = 200,
    device: str = "cpu",
) -> Path:
    """Train a classifier and write it as a model of ours, with its accuracy where there are test images.

    Args:
        config: the run.
        images: uint8 (images, channels, height, width), the sides above `config.shift`.
        labels: int64 (images,), each in 0 … classes − 1.
        out: a folder; `checkpoint.pt` there is resumed from, `model.safetensors` is the result.
        classes: the names of the classes.
        test: test images of the same shape and their labels.
        every: steps between lines of progress.
        device: "cpu", "cuda", "mps".

    Raises:
        ArgumentError: the data does not fit the network or the test data, or the checkpoint is of another run.
        WeightsError: the checkpoint cannot be read.
        NumericalError: the loss is not finite.
        KeyboardInterrupt: the process was asked to stop.
    """
    if config.shift >= min(images.shape[2:]):
        raise ArgumentError(f"shift must be less than the sides {tuple(images.shape[2:])}, got {config.shift}")
    if test is not None and (test[0].shape[1:] != images.shape[1:] or not 0 < len(test[0]) == len(test[1])):
        have, want = tuple(test[0].shape), tuple(images.shape[1:])
        raise ArgumentError(f"test needs labelled images of shape {want}, got {have} with {len(test[1])} labels")
    return Trainer(Classifying(config, images, labels, test), Path(out), classes, device).run(every)
