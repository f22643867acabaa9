"""What a pipeline's run carries between calls of `step`: its place in the timetable, registers and answers."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fewstep.diffusers.timetable import AT_THE_BEGINNING, Entry, Timetable
from fewstep.errors import ArgumentError, not_finite
from fewstep.program import combine


@dataclass
class RunState:
    """A run between two calls.

    Args:
        table: the timetable.
        timesteps: its timesteps on the pipeline's device.
        begin: the evaluation to begin at, if the pipeline said.
        position: the evaluation that comes next; None before the first.
        registers, answers: the registers, and the answers of the present row so far.
        jump: how many rows were taken since the state was put there.
        sums: one number an answer, looked at once, at the end.
    """

    table: Timetable
    timesteps: Tensor
    begin: int | None = None
    position: int | None = None
    registers: list[Tensor | None] = field(default_factory=list)
    answers: list[Tensor] = field(default_factory=list)
    jump: int = AT_THE_BEGINNING
    sums: list[Tensor] = field(default_factory=list)

    def copy(self) -> "RunState":
        """Another run that stands at the same place; tensors are shared, for none is ever changed in place."""
        return replace(self, registers=list(self.registers), answers=list(self.answers), sums=list(self.sums))

    def refuse_misfits(self, answer: Tensor, sample: Tensor, generator: object) -> None:
        """Refuse what does not fit together in a step, by name."""
        if answer.shape != sample.shape:
            raise ArgumentError(
                f"the network answered with shape {tuple(answer.shape)} to latents of {tuple(sample.shape)}"
            )
        if self.registers and self.registers[0] is not None and self.registers[0].shape != sample.shape:
            raise ArgumentError(f"the run is of shape {tuple(self.registers[0].shape)}, got {tuple(sample.shape)}")
        if isinstance(generator, list) and len(generator) != len(sample):
            raise ArgumentError(f"a list of generators has one a sample: got {len(generator)} for {len(sample)}")

    def expect(self, timestep: float | Tensor) -> Entry:
        """The evaluation that comes next, if it is the one at `timestep`.

        Raises:
            ArgumentError: the run is over, or it is another timestep's turn.
        """
        entries = self.table.entries
        if self.position is None:
            self.position = self._first(timestep)
        if self.position >= len(entries):
            raise ArgumentError("this run is over: call set_timesteps before another")
        entry = entries[self.position]
        if not self._is_view(timestep) and _number(timestep) != entry.told:
            raise ArgumentError(
                f"evaluation {self.position + 1} of {len(entries)} is at timestep {entry.told:g}, "
                f"got {_number(timestep):g}: the steps of a run are taken in order, each once"
            )
        return entry

    def _is_view(self, timestep: float | Tensor) -> bool:
        """Whether `timestep` is our own tensor's entry: known without a copy from the device."""
        own = self.timesteps
        return (
            isinstance(timestep, Tensor)
            and timestep.ndim == 0
            and timestep.dtype == own.dtype
            and timestep.data_ptr() == own.data_ptr() + (self.position or 0) * own.element_size()
        )

    def _first(self, timestep: float | Tensor) -> int:
        if self.begin is not None:
            return self.begin
        if self._is_view(timestep):
            return 0
        told = _number(timestep)
        places = [i for i, entry in enumerate(self.table.entries) if entry.told == told]
        if not places:
            raise ArgumentError(
                f"timestep {told:g} is none of this run's: {[e.told for e in self.table.entries[:8]]}"
                f"{' …' if len(self.table.entries) > 8 else ''}"
            )
        allowed = [i for i in places if i in self.table.starts]
        if not allowed:
            raise ArgumentError(f"a run cannot begin at timestep {told:g}, in the middle of a step")
        return allowed[0]

    def take(self, entry: Entry, x: Tensor, answer: Tensor, noise: Callable[[Tensor], Tensor]) -> Tensor:
        """Hear the answer x̂₀ of `entry`, asked at x; the state at which the network is to be asked next."""
        assert self.position is not None
        if not self.registers:
            # Where a run may begin, no register that was never written is looked at, though one may be handed down.
            unwritten = None if self.position == 0 else torch.zeros_like(x)
            names = self.table.plan.registers
            self.registers = [torch.ones_like(x) if name == "one" else unwritten for name in names]
            self.jump = AT_THE_BEGINNING if self.position == 0 else 0
        self.registers[entry.register] = x
        self.answers.append(answer)
        self.position += 1
        over = self.position >= len(self.table.entries)
        if entry.last:
            until = len(self.table.rows) if over else self.table.entries[self.position].row
            for row in range(entry.row, until):
                self._row(row, noise)
        out = self.registers[0 if over else self.table.entries[self.position].register]
        assert out is not None
        if over:
            self._refuse_bad()
            self.registers, self.sums = [], []
        return out

    def _row(self, index: int, noise: Callable[[Tensor], Tensor]) -> None:
        row = self.table.rows_after(self.jump)[index]
        values = [*self.registers, *self.answers]
        values += [noise(values[0]) for _ in range(row.draws)]  # type: ignore[arg-type]
        for to, new in [(to, combine(values, terms)) for to, terms in row.writes]:  # type: ignore[arg-type]
            self.registers[to] = new
        self.answers = []
        self.jump += 1

    def _refuse_bad(self) -> None:
        bad = ~torch.stack(self.sums).isfinite()
        if bad.any():
            first = len(self.table.entries) - len(self.sums) + int(bad.nonzero()[0])
            raise not_finite(None, answer=f"answer number {first + 1} (timestep {self.table.entries[first].told:g})")


def _number(timestep: float | Tensor) -> float:
    if isinstance(timestep, Tensor) and timestep.numel() != 1:
        raise ArgumentError(f"timestep must be one number, got a tensor of shape {tuple(timestep.shape)}")
    return float(timestep)
