"""What the searches look for on the shipped digits model: a class that it is not told, by a black-box classifier."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

import fewstep
from fewstep.denoisers import Denoiser
from fewstep.networks.features import Features, load_features

NONE = {"label": 10}  # the label that stands for no class


@cache
def model() -> Denoiser:
    """The shipped digits model."""
    return fewstep.load("mnist")


@cache
def classifier() -> Features:
    """The shipped classifier of digits."""
    return load_features("mnist")


def is_a(digit: int) -> Callable[[Tensor], Tensor]:
    """log p(digit | x), a reward in nats."""

    def reward(x: Tensor) -> Tensor:
        with torch.no_grad():
            return classifier().network(x.float()).log_softmax(1)[:, digit]

    return reward
