"""A guide for a part of the run only, under the names that diffusers' guiders have for it.

Row i of n is guided where ⌊start·n⌋ ≤ i < ⌊stop·n⌋; at others the guide is as if it were not there, and asks nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fewstep.checking import checked
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, Branch, Guide


@checked
@dataclass(frozen=True)
class During(Guide):
    """Another guide, of any level, between two shares of the steps.

    Args:
        guide: the guide.
        start, stop: the shares of the plan's rows at which it begins and ends, 0 ≤ start ≤ stop ≤ 1.
        enabled: False leaves it out of the whole run.

    Raises:
        ArgumentError: not a guide, shares that are none, or enabled that is neither True nor False.
    """

    guide: Guide
    start: float = 0.0
    stop: float = 1.0
    enabled: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.guide, Guide):
            raise ArgumentError(f"guide must be a guide such as CFG(2.0), got {self.guide!r}")
        if not 0 <= self.start <= self.stop <= 1:
            raise ArgumentError(f"start and stop must be 0 <= start <= stop <= 1, got {self.start!r} and {self.stop!r}")
        # What it is at other guides' places, it is here.
        for name in ("level", "needs_grad", "keeps", "couples"):
            object.__setattr__(self, name, getattr(self.guide, name))

    def _now(self, ask: Ask) -> bool:
        return self.enabled and int(self.start * ask.of) <= ask.index < int(self.stop * ask.of)

    def init(self, denoiser: Denoiser, batch: int) -> Any:
        return self.guide.init(denoiser, batch)

    def needs_order(self) -> bool:
        return True

    def needs_one_question(self) -> bool:
        return self.guide.needs_one_question()

    def extra(self) -> int:
        return self.guide.extra() if self.enabled else 0

    def condition(self, ask: Ask, cond: Mapping[str, Any], state: Any) -> tuple[Mapping[str, Any], Any]:
        return self.guide.condition(ask, cond, state) if self._now(ask) else (cond, state)

    def branches(self, ask: Ask, cond: Mapping[str, Any], state: Any) -> list[Branch]:
        return self.guide.branches(ask, cond, state) if self._now(ask) else []

    def mix(self, ask: Ask, x0: Tensor, main: Tensor, others: list[Tensor], state: Any) -> tuple[Tensor, Any]:
        return self.guide.mix(ask, x0, main, others, state) if self._now(ask) else (x0, state)

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.guide.answer(ask, x0, state) if self._now(ask) else (x0, state)

    def move(self, ask: Ask, x: Tensor, state: Any) -> tuple[Tensor, Any, bool]:
        return self.guide.move(ask, x, state) if self._now(ask) else (x, state, False)
