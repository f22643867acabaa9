"""What a guide may do: change what the denoiser says, or move the state after a step.

A guide's memory is a value that the run carries; it never sees the solver, and a solver never sees it.  Guides work at
four levels, in this order: condition (what the network is told), network (several raw answers mixed, asked as one
batch), answer (x̂₀ itself) and state (x after a step).
"""

from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fewstep.denoisers import Denoiser
from fewstep.paths import Path

LEVELS = ("condition", "network", "answer", "state")


@dataclass(frozen=True)
class Ask:
    """What a guide sees of a question to the network.

    Args:
        x: the state that is asked, (batch, *shape).
        t, t_next: its time and the time after the step, float64 on the host.
        index, of: the number of the step and how many there are.
        denoiser: whose path, shape and null conditions they are.
        noise: noise(slot) → a keyed draw of x's shape, the same whatever the batch.
    """

    x: Tensor
    t: Tensor
    t_next: Tensor
    index: int
    of: int
    denoiser: Denoiser
    noise: Callable[[int], Tensor]

    @property
    def path(self) -> Path:
        """The path on which x lies."""
        return self.denoiser.path


class Guide(ABC):
    """Changes what the denoiser says; every hook defaults to doing nothing."""

    level: ClassVar[str]
    needs_grad: ClassVar[bool] = False
    keeps: ClassVar[str] = "x"
    couples: ClassVar[bool] = False

    def init(self, denoiser: Denoiser, batch: int) -> Any:
        """The memory that a run starts with; None for a guide without one."""
        return None

    def condition(self, ask: Ask, cond: Mapping[str, Any], state: Any) -> tuple[Mapping[str, Any], Any]:
        """Level condition: what the network is told instead."""
        return cond, state

    def branches(self, ask: Ask, cond: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Level network: the conditions of the further answers that `mix` needs, asked in the same batch."""
        return []

    def mix(self, ask: Ask, x0: Tensor, main: Tensor, others: list[Tensor], state: Any) -> tuple[Tensor, Any]:
        """Level network: x̂₀′ from x̂₀ so far, the plain answer and the further answers."""
        return x0, state

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Level answer: x̂₀′; with keeps = "eps" the noise part stays and x moves with x̂₀ instead."""
        return x0, state

    def move(self, ask: Ask, x: Tensor, state: Any) -> tuple[Tensor, Any, bool]:
        """Level state: x′ after a step, and whether it jumped, so that a multistep plan begins its history anew."""
        return x, state, False
