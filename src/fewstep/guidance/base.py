"""What a guide may do: change what the denoiser says, or move the state after a step.

A guide's memory is a value that the run carries; it never sees the solver, and a solver never sees it.  Guides work at
four levels, in this order: condition (what the network is told), network (several raw answers mixed, asked as one
batch), answer (x̂₀ itself) and state (x after a step).
"""

from abc import ABC
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.paths import Path

LEVELS = ("condition", "network", "answer", "state")


def _nobody(x: Tensor, t: Tensor, cond: Mapping[str, Any], denoiser: Denoiser | None = None) -> Tensor:
    raise ArgumentError("this question belongs to no run, so nothing further can be asked")


@dataclass(frozen=True)
class Ask:
    """What a guide sees of a question to the network.

    Args:
        x: the state that is asked, (batch, *shape).
        t, t_next: its time and the time after the step, float64 on the host.
        index, of: the number of the plan's row and how many there are; a step of several stages is several rows.
        denoiser: whose path, shape and null conditions they are.
        noise: noise(slot) → a keyed draw of x's shape, the same whatever the batch; slots 0 … 63 are independent.
        again: again(x, t, cond, denoiser=None) → x̂₀ at another state or time, or of another denoiser; it is counted.
        cond: what the network is told: the run's conditions, as guides of level condition left them.
        x0: the last answer, for a guide that moves the state after a step; None where the step asked nothing.
        differentiated: whether the run itself is differentiated, so that a memory must keep its graph.
        begins: whether this is the first question of a step, and not one of its later stages.
    """

    x: Tensor
    t: Tensor
    t_next: Tensor
    index: int
    of: int
    denoiser: Denoiser
    noise: Callable[[int], Tensor]
    again: Callable[..., Tensor] = _nobody
    cond: Mapping[str, Any] = field(default_factory=dict)
    x0: Tensor | None = None
    differentiated: bool = False
    begins: bool = True

    @property
    def path(self) -> Path:
        """The path on which x lies."""
        return self.denoiser.path


@dataclass(frozen=True)
class Branch:
    """A further answer that a guide of level network asks in the same batch.

    Args:
        cond: what the network is told in it.
        within: within(rows) → a context in which the batch is asked, told which of its rows are the branch's.
        changes: whether that context changes the answer; if not, branches of the same conditions are asked once.
    """

    cond: Mapping[str, Any]
    within: Callable[[slice], AbstractContextManager[Any]] | None = None
    changes: bool = False

    def same(self, other: "Branch") -> bool:
        """Whether one answer serves both."""
        if self.changes or other.changes or self.cond.keys() != other.cond.keys():
            return False
        return all(value is other.cond[key] for key, value in self.cond.items())


def coefficient(value: Tensor, like: Tensor) -> float | Tensor:
    """A float64 coefficient of the host as it multiplies `like`: a number where there is one for all."""
    return float(value) if value.ndim == 0 else value.to(like.device, like.dtype)


def squares(x: Tensor) -> Tensor:
    """‖x‖² of each sample, (batch, 1 …); in half precision, which ends at 65,504, as float32."""
    flat = x.flatten(1)
    flat = flat.float() if flat.dtype.itemsize < 4 else flat
    return flat.square().sum(1).reshape(-1, *[1] * (x.ndim - 1))


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

    def needs_order(self) -> bool:
        """Whether its answers depend on the questions before, on the number of the step or on where the step ends.

        A loop that asks out of the order of a run's steps refuses such a guide.
        """
        return False

    def needs_one_question(self) -> bool:
        """Whether every step must ask once, so that a solver of several stages is refused."""
        return False

    def extra(self) -> int:
        """The most evaluations that a question to the network, or a move, costs beside the plain one."""
        return 0

    def branches(self, ask: Ask, cond: Mapping[str, Any], state: Any) -> list[Branch]:
        """Level network: the further answers that `mix` needs, asked in the same batch; what is read goes to state."""
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
