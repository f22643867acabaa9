"""A small CNN that names the class of a picture; its penultimate features serve Fréchet distances and precision.

features(x) = mean over places of the last stage's output,      net(x) = W·features(x) + b
"""

from typing import Any

from torch import Tensor, nn


def _conv(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width_in, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.SiLU())


class Residual(nn.Module):
    """x + two convolutions of the same width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(width, width), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Classifier(nn.Module):
    """A residual CNN of three stages, each at half the side of the one before: net(x) → logits.

    Args:
        channels: the channels of the picture.
        classes: the number of classes.
        width: the channels of the first stage; the next have 2 and 4 times as many.
    """

    def __init__(self, channels: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"kind": "classifier", "channels": channels, "classes": classes, "width": width}
        self.body = nn.Sequential(
            _conv(channels, width), nn.MaxPool2d(2),
            _conv(width, 2 * width), Residual(2 * width), nn.MaxPool2d(2),
            _conv(2 * width, 4 * width), Residual(4 * width),
        )  # fmt: skip
        self.head = nn.Linear(4 * width, classes)

    def features(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) in [−1, 1] → (batch, 4·width), the penultimate features."""
        return self.body(x).mean((2, 3))

    def forward(self, x: Tensor, time: Tensor | None = None, label: Tensor | None = None) -> Tensor:
        """x (batch, channels, height, width) in [−1, 1] → logits (batch, classes); time and label are not looked at."""
        return self.head(self.features(x))
