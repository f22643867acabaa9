"""The straight path of rectified flow and flow matching (Liu et al. 2023, Lipman et al. 2023): α = 1 − t, σ = t.

λ(t) = log(1 − t) − log t,      α′ = −1,  σ′ = 1,      flow = ε − x₀.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.checking import checked
from fewstep.paths.base import Path, as_time


@checked
@dataclass(frozen=True)
class Flow(Path):
    """The straight path from data to noise: α = 1 − t, σ = t."""

    kind: ClassVar[str] = "flow"

    def alpha(self, t: Tensor | float) -> Tensor:
        return 1 - as_time(t)

    def sigma(self, t: Tensor | float) -> Tensor:
        return as_time(t).clone()

    def lam(self, t: Tensor | float) -> Tensor:
        t = as_time(t)
        return torch.log1p(-t) - t.log()

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        return torch.sigmoid(-as_time(lam))

    def d_alpha(self, t: Tensor | float) -> Tensor:
        return -torch.ones_like(as_time(t))

    def d_sigma(self, t: Tensor | float) -> Tensor:
        return torch.ones_like(as_time(t))
