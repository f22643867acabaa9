"""A denoiser that sees only some of the numbers of its state: x̂₀ = E[x₀ | m·x_t, m], of all of x₀.

Such a denoiser is what can be learnt from data of which no sample was ever seen whole (Daras et al. 2023).
"""

from typing import Any

import torch
from torch import Tensor

from fewstep.denoisers.base import Denoiser


class Masked(Denoiser):
    """A denoiser with a condition `mask`, zeros and ones of x's shape; without it everything is seen.

    Args:
        inner: a denoiser that is told the mask as its condition `mask`, and answers from m·x_t.
    """

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.path, inner.shape, inner.predicts, inner.null, inner.limits)
        self.net, self._inner = getattr(inner, "net", None), inner

    def told(self, t: Tensor) -> Tensor:
        return self._inner.told(t)

    def basis(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._inner.basis(t)

    def raw(self, x: Tensor, told: Tensor, mask: Tensor | None = None, **cond: Any) -> Tensor:
        """The network's answer; what it is shown of x is m·x."""
        seen = torch.ones_like(x) if mask is None else mask.to(x).expand_as(x)
        return self._inner.raw(x * seen, told, mask=seen, **cond)
