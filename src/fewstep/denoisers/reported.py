"""A model whose every question to the network is reported, for progress and for stopping."""

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor

from fewstep.denoisers.base import Denoiser


def reported(denoiser: Denoiser, seen: Callable[[int], None]) -> Denoiser:
    """A copy of a model, which others may be using, that calls seen(rows) before it asks its network.

    Args:
        denoiser: the model.
        seen: called with the number of rows of every question; what it raises ends the run.
    """
    mine, raw = copy.copy(denoiser), denoiser.raw

    def told(x: Tensor, *rest: Any, **named: Any) -> Tensor:
        seen(len(x))
        return raw(x, *rest, **named)

    mine.raw = told  # type: ignore[method-assign]
    return mine
