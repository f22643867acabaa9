"""Questions at times that are known beforehand, for loops that move by rules of their own."""

from typing import Any

import torch
from torch import Tensor

from fewstep.loops.base import refuse_ordered_guides, refuse_state_guides
from fewstep.plan import Builder, Plan
from fewstep.program import Program
from fewstep.session import Session


class Questions:
    """x̂₀ at times that are known beforehand, guides included, through one program.

    Args:
        session: what `prepare` made.
        times: float64 (questions,), the time of each question; one that is asked twice stands there twice.

    Raises:
        ArgumentError: a guide that moves the state, or one that depends on the order of a run's steps where these
            times do not fall.
    """

    def __init__(self, session: Session, times: Tensor) -> None:
        builder = Builder(torch.cat([times, times[-1:] * 0]), ("x", "asked"), live=("asked",))
        builder.ask("x")
        builder.add("x", 0, 1.0)
        builder.add("asked", "x", 1.0)
        plan = Plan.build(
            session.program.plan.path, builder, source={"solver": "questions"}, deviates="it only asks, and never steps"
        )
        old = session.program
        refuse = refuse_state_guides if bool((times.diff() < 0).all()) else refuse_ordered_guides
        refuse(session, "this method")
        self._program = Program(plan, old.denoiser, old.guides, old.dtype, old.device)
        self._run = self._program.start(session.start, session.cond, session.noise)

    @property
    def evaluations(self) -> int:
        """How often the network was asked so far, guidance counted."""
        return self._run.evaluations

    def ask(self, number: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """(x̂₀, x) of question `number`; x is another where a guide moved it with x̂₀.

        Args:
            number: from 0.
            x: (batch, *shape).
        """
        registers: list[Any] = self._run.registers
        registers[0] = x
        self._program.step(self._run, number)
        return registers[0], registers[1]
