"""What every loop shares: the call, the checks, and plans that are run one after another as one run.

A loop is what a single plan cannot be: times chosen from the data, a noise scale from the network, an inner chain.  It
is called as `sample` is and answers with the same `Output`; wherever it steps, it steps by a plan.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError, not_finite
from fewstep.guidance import Guide
from fewstep.noise import KeyedNoise
from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.program import Program, Run
from fewstep.results import Output, Stats
from fewstep.session import Session, prepare

# A program numbers a guide's draws 64 a step.
GUIDE_SLOTS = 64


class Loop(ABC):
    """A sampler with a loop of its own; a frozen dataclass whose fields are the method's parameters."""

    couples: ClassVar[bool] = False

    @abstractmethod
    def opening(self, path: Path) -> Plan:
        """A plan whose first time is where the loop begins."""

    @abstractmethod
    def run(self, session: Session) -> tuple[Tensor, Plan, Stats]:
        """(samples, the plan that was run, what it cost); the seconds are filled in by the call."""

    def __call__(
        self,
        denoiser: Denoiser,
        n: int | None = None,
        *,
        start: Tensor | None = None,
        cond: Mapping[str, Any] | None = None,
        guides: Sequence[Guide] = (),
        seed: int = 0,
        first: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Output:
        """Draw samples from a model; the arguments, the result and the errors are those of `fewstep.sample`."""
        began = time.perf_counter()
        if not isinstance(denoiser, Denoiser):
            raise ArgumentError(
                f"denoiser must be a fewstep denoiser (see fewstep.wrap), got {type(denoiser).__name__}"
            )
        session = prepare(
            denoiser, n, plan=self.opening(denoiser.path), guides=guides, cond=cond, seed=seed, first=first,
            start=start, dtype=dtype, device=device,
        )  # fmt: skip
        with torch.no_grad():
            x, plan, stats = self.run(session)
        refuse_bad(x, "the samples")
        return Output(
            x=x, stats=replace(stats, seconds=time.perf_counter() - began), plan=plan,
            seeds=[(session.noise.seed, number) for number in session.noise.samples], limits=denoiser.limits,
            model=denoiser.name,
        )  # fmt: skip


def refuse_bad(values: Tensor, what: str) -> None:
    """End the run where rows of `values`, (batch, …), hold NaN or Inf.

    Raises:
        NumericalError: naming the first of them.
    """
    if values.device.type != "meta" and not bool(values.isfinite().all()):
        raise not_finite(values, what)


def refuse_state_guides(session: Session, name: str) -> None:
    """Refuse guides that move the state after a step, where a loop has no steps that they could follow.

    Raises:
        ArgumentError: naming the first of them.
    """
    for guide in session.program.guides:
        if guide.level == "state":
            raise ArgumentError(f"{name} takes no guides that move the state, got {guide!r}")


def refuse_ordered_guides(session: Session, name: str) -> None:
    """Refuse guides that move the state, or whose answers depend on the order of a run's steps.

    Raises:
        ArgumentError: naming the first of them.
    """
    refuse_state_guides(session, name)
    for guide in session.program.guides:
        if guide.needs_order():
            raise ArgumentError(
                f"{name} does not ask in the order of a run's steps, so it takes no guide whose answers depend on the "
                f"questions before or on the step; got {guide!r}"
            )


def refuse_moving_guides(session: Session, name: str) -> None:
    """Refuse guides that move the state with the answer, where a loop keeps the states of its own.

    Raises:
        ArgumentError: naming the first of them.
    """
    for guide in session.program.guides:
        if guide.keeps == "eps":
            raise ArgumentError(f"{name} takes no guides that move the state with the answer, got {guide!r}")


class LaterNoise(KeyedNoise):
    """The noise of a run from its step `begin` on, so that plans that follow one another draw from one stream."""

    def __init__(self, noise: KeyedNoise, begin: int) -> None:
        self.seed, self.samples, self.shape, self.dtype, self.device = (
            noise.seed, noise.samples, noise.shape, noise.dtype, noise.device,
        )  # fmt: skip
        self._noise, self._begin = noise, begin

    def step(self, index: int, lam: float, lam_next: float) -> Tensor:
        """Draw number `begin + index` of the run."""
        return self._noise.step(self._begin + index, lam, lam_next)

    def guide(self, index: int) -> Tensor:
        """Draw number `index` of the guides' own family, counted from step `begin`."""
        return self._noise.guide(GUIDE_SLOTS * self._begin + index)

    def prepare(self, count: int) -> None:
        """Nothing: a loop does not know beforehand how much it will draw."""


class Walk:
    """Plans run one after another as one run: the guides' memory, the count and the noise go on.

    Args:
        session: what `prepare` made.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.path = session, session.program.plan.path
        self.evaluations, self.rows = 0, 0
        self._memories: list[Any] | None = None

    def take(
        self, plan: Plan, x: Tensor, others: Sequence[Tensor | None] | None = None, rows: range | None = None,
        first: int = 0, of: int | None = None,
    ) -> list[Tensor | None]:  # fmt: skip
        """The registers after the steps `rows` of a plan, all of them unless given.

        Args:
            plan: on the denoiser's path.
            x: (batch, *shape), the state before the first of these steps.
            others: the registers after the first, where earlier steps have written them.
            rows: the steps to take.
            first: which step of the run the plan's first is.
            of: how many steps the run has; those of the plan unless given.
        """
        session = self.session
        program = Program(plan, session.program.denoiser, session.program.guides, x.dtype, x.device)
        program.before, program.of = first, plan.steps if of is None else of
        rows = range(plan.steps) if rows is None else rows
        run = program.start(x, session.cond, LaterNoise(session.noise, self.rows - rows.start))
        if self._memories is not None:
            run.memories = self._memories
        if others is not None:
            run.registers[1:] = others
        for index in rows:
            program.step(run, index)
        self._count(run, len(rows))
        return run.registers

    def _count(self, run: Run, rows: int) -> None:
        self._memories = run.memories
        self.evaluations += run.evaluations
        self.rows += rows

    def ask(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(x̂₀, x) of every row at its own time, guides included; x is another where a guide moves it with x̂₀.

        Args:
            x: (batch, *shape).
            t: float64 (batch,) on the host, or () for all.
        """
        x0, asked = self.take(question(self.path, self.place(t)), x)
        assert x0 is not None
        assert asked is not None
        return x0, asked

    def place(self, t: Tensor) -> Tensor:
        """Times (…, batch) as a plan takes one time a sample: (…, batch, 1 …)."""
        return t.reshape(*t.shape, *[1] * len(self.session.program.denoiser.shape)) if t.ndim else t


def question(path: Path, t: Tensor) -> Plan:
    """One step from t to 0 that leaves x̂₀ in register x and the state that was asked in register "asked"."""
    times = torch.stack([t, torch.zeros_like(t)])
    builder = Builder(times, ("x", "asked"), live=("asked",))
    builder.ask("x")
    builder.add("x", 0, 1.0)
    builder.add("asked", "x", 1.0)
    return Plan.build(path, builder, order=1, source={"solver": "question"})
