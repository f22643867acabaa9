"""Classifier-free guidance: the conditional answer, pushed away from the unconditional one.

x̂₀′ = x̂₀ + (w − 1)·(x̂₀(c) − x̂₀(∅))
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, Guide


@method(name="cfg", papers=[], family="guidance", arxiv="2207.12598")
@dataclass(frozen=True)
class CFG(Guide):
    """Classifier-free guidance (Ho & Salimans 2022), both answers in one batch.

    Args:
        scale: w; 1 leaves the answer as it is and 0 is the unconditional answer, as everybody counts it.
        null: the conditions that stand for none; the denoiser's own unless given.
    """

    level: ClassVar[str] = "network"
    scale: float = 2.0
    null: Mapping[str, Any] | None = None

    def branches(self, ask: Ask, cond: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        if self.scale == 1:
            return []
        null = ask.denoiser.null if self.null is None else self.null
        known = {k: v for k, v in null.items() if k in cond}
        if not known:
            raise ArgumentError(f"CFG needs a null for one of the conditions {sorted(cond)}; it has {sorted(null)}")
        return [{**cond, **known}]

    def mix(self, ask: Ask, x0: Tensor, main: Tensor, others: list[Tensor], state: Any) -> tuple[Tensor, Any]:
        return (x0, state) if not others else (x0 + (self.scale - 1) * (main - others[0]), state)
