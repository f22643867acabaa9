"""What the claims of guides on the shipped models are judged by: real digits, and a classifier that looks at them.

`digits.png` is a sheet of 1,000 test pictures of MNIST, 100 of each class in order, 50 a row.  Two sets that differ in
a guide alone begin from the same noises, and what stands after ± is the deviation over bootstraps of both together.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import fewstep
from fewstep.denoisers import Denoiser
from fewstep.guidance import Guide
from fewstep.metrics import frechet_distance
from fewstep.networks.features import Features, load_features

NONE = 10  # the label of the model that stands for no class


@cache
def model() -> Denoiser:
    """The shipped digits model."""
    return fewstep.load("mnist")


@cache
def judge() -> Features:
    """The shipped classifier of digits."""
    return load_features("mnist")


@cache
def digits() -> tuple[Tensor, Tensor]:
    """1,000 real digits in [−1, 1], (1000, 1, 28, 28), and their labels."""
    with Image.open(Path(__file__).with_name("digits.png")) as sheet:
        grey = torch.from_numpy(np.array(sheet)).float() / 127.5 - 1
    tiles = grey.reshape(20, 28, 50, 28).transpose(1, 2).reshape(1000, 1, 28, 28)
    return tiles, torch.arange(10).repeat_interleave(100)


@cache
def seen_digits() -> Tensor:
    """The features of the real digits, (1000, 48)."""
    return judge()(digits()[0])


def drawn(
    n: int, steps: int, guides: Sequence[Guide] = (), label: Any = None, solver: str = "ddim", **options: Any
) -> Tensor:
    """Digits of the shipped model, all classes in turn unless labels are given."""
    label = [i % 10 for i in range(n)] if label is None else label
    options = {"denoiser": model(), "cond": {"label": label}, "seed": 0, "solver": solver, **options}
    return fewstep.sample(n=n, steps=steps, guides=list(guides), **options).x


def distance(x: Tensor) -> Tensor:
    """The Fréchet distance of pictures, or of their features (n, 48), to the real digits."""
    return frechet_distance(judge()(x) if x.ndim == 4 else x, seen_digits())


def doubt(value: Callable[..., Tensor | float], *sets: Tensor, draws: int = 40) -> float:
    """The deviation of a value of sets of paired rows, over bootstraps that draw the same rows of each."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(len(sets[0]), (len(sets[0]),), generator=generator) for _ in range(draws)]
    return float(torch.tensor([float(value(*(s[r] for s in sets))) for r in rows]).std())


def gain(plain: Tensor, guided: Tensor) -> tuple[float, float]:
    """How much nearer the real digits the guided pictures are than the plain ones, and the doubt in it."""
    a, b = judge()(plain), judge()(guided)

    def nearer(a: Tensor, b: Tensor) -> Tensor:
        return distance(a) - distance(b)

    return float(nearer(a, b)), doubt(nearer, a, b)


def accuracy(x: Tensor, label: Sequence[int]) -> float:
    """The share of pictures that are read as the class that was asked for."""
    return float((judge().classify(x).argmax(1) == torch.as_tensor(label)).float().mean())
