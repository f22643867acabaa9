"""A denoiser whose network runs as `torch.compile` makes it.

The network is compiled where it is first asked, once a denoiser and shape; all steps and all later runs use it.  Our
own part of a step is a fused combination a register and gains nothing.
"""

from typing import Any

import torch
from torch import Tensor

from fewstep.denoisers.around import Around
from fewstep.denoisers.base import Denoiser


class Compiled(Around):
    """The same denoiser, its network compiled; made by `compiled`."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner)
        self._raw = torch.compile(inner.raw)

    def raw(self, x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        return self._raw(x, told, **cond)


def compiled(denoiser: Denoiser) -> Denoiser:
    """The denoiser with its network compiled; the same object for the same denoiser."""
    if isinstance(denoiser, Compiled):
        return denoiser
    kept = denoiser.__dict__.get("_compiled")
    if kept is None:
        kept = denoiser.__dict__["_compiled"] = Compiled(denoiser)
    return kept
