"""Classifier-free guidance: the conditional answer, pushed away from the unconditional one.

    x̂₀′ = x̂₀ + (w(t) − 1)·(x̂₀(c) − x̂₀(∅)),      w(t) = 1 outside the interval;

rescaled, the deviation over a sample's numbers goes back to that of the conditional answer:

    x̂₀″ = x̂₀′·(φ·std(x̂₀(c))/std(x̂₀′) + 1 − φ).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, Branch, Guide, coefficient
from fewstep.guidance.gradient import checked_interval, guided_times


def unconditional(ask: Ask, cond: Mapping[str, Any], null: Mapping[str, Any] | None, who: str) -> Mapping[str, Any]:
    """The conditions with the null in place of those that have one.

    Raises:
        ArgumentError: there is no null for any of the conditions.
    """
    null = ask.denoiser.null if null is None else null
    known = {k: v for k, v in null.items() if k in cond}
    if not known:
        told = f" {sorted(cond)}" if cond else ", and cond= gives none"
        has = f"the model has one for {sorted(null)}" if null else "the model has none: give null="
        raise ArgumentError(f"{who} needs a null for one of the conditions{told}; {has}")
    return {**cond, **known}


@method(name="cfg", papers=[], family="guidance", arxiv="2207.12598")
@dataclass(frozen=True)
class CFG(Guide):
    """Classifier-free guidance (Ho & Salimans 2022), both answers in one batch.

    Args:
        scale: w; 1 leaves the answer as it is and 0 is the unconditional answer, as everybody counts it; or a function
            of the time t in [0, 1] (a float64 tensor).
        null: the conditions that stand for none; the denoiser's own unless given.
        interval: (low, high), the times of guidance (Kynkäänniemi et al. 2024); at others the answer is as it is and
            costs one evaluation.
        rescale: φ in [0, 1], how much of the conditional answer's deviation is given back (Lin et al. 2023).

    Raises:
        ArgumentError: an interval that is not 0 ≤ low < high ≤ 1, or a rescale outside [0, 1].
    """

    level: ClassVar[str] = "network"
    scale: float | Callable[[Tensor], Tensor] = 2.0
    null: Mapping[str, Any] | None = None
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0

    def __post_init__(self) -> None:
        checked_interval(self.interval)
        if not 0 <= self.rescale <= 1:
            raise ArgumentError(f"rescale must be in [0, 1], got {self.rescale}")

    def extra(self) -> int:
        return int(self.scale != 1)

    def _push(self, ask: Ask) -> Tensor:
        """w(t) − 1, float64 of the time's shape."""
        scale = self.scale(ask.t) if callable(self.scale) else self.scale
        return torch.where(guided_times(ask, self.interval), torch.as_tensor(scale, dtype=torch.float64) - 1, 0.0)

    def branches(self, ask: Ask, cond: Mapping[str, Any], state: Any) -> list[Branch]:
        if self.scale == 1 or not bool(self._push(ask).any()):
            return []
        return [Branch(unconditional(ask, cond, self.null, "CFG"))]

    def mix(self, ask: Ask, x0: Tensor, main: Tensor, others: list[Tensor], state: Any) -> tuple[Tensor, Any]:
        if not others:
            return x0, state
        push = self._push(ask)
        guided = x0 + coefficient(push, x0) * (main - others[0])
        if self.rescale:
            ratio = _deviation(main) / _deviation(guided).clamp_min(torch.finfo(x0.dtype).tiny)
            scaled = guided * (self.rescale * ratio + 1 - self.rescale)
            guided = torch.where((push != 0).to(x0.device), scaled, guided)
        return guided, state


def _deviation(x: Tensor) -> Tensor:
    """The standard deviation over each sample's numbers, (batch, 1 …)."""
    return x.flatten(1).std(1).reshape(-1, *[1] * (x.ndim - 1))
