"""Sparse tables of coefficients, and the builder that writes them.

A table holds entries (step, to, source) → value.  Its normal form is sorted, without zeros, and without what changes
nothing: a register that a step does not write keeps its value, and a write that nobody reads is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.errors import PlanError
from fewstep.shapes import broadcast_shapes


@dataclass(frozen=True, eq=False)
class Table:
    """Entries of one of the three matrices of a plan.

    Args:
        index: int64 (entries, 3), rows (step, to, source), sorted, each at most once.
        value: float64 (entries, *place), where `place` broadcasts against the state.
    """

    index: Tensor
    value: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def same(self, other: "Table") -> bool:
        """Whether both hold the same entries, bit for bit."""
        return torch.equal(self.index, other.index) and torch.equal(self.value, other.value)

    def dense(self, steps: int, to: int, sources: int) -> Tensor:
        """The matrices (steps, *place, to, sources) with zeros where there is no entry."""
        place = self.value.shape[1:]
        dense = torch.zeros(steps, to, sources, *place, dtype=torch.float64)
        dense[self.index[:, 0], self.index[:, 1], self.index[:, 2]] = self.value.detach()
        return dense.movedim((1, 2), (-2, -1))

    def rows(self) -> dict[int, list[tuple[int, int, Tensor]]]:
        """The entries of each step as (to, source, value)."""
        rows: dict[int, list[tuple[int, int, Tensor]]] = {}
        for (step, to, source), value in zip(self.index.tolist(), self.value, strict=True):
            rows.setdefault(step, []).append((to, source, value))
        return rows


def _stacked(values: list[Tensor], place: torch.Size) -> Tensor:
    # What has no place fits as it is, and that is nearly every plan.
    return torch.stack([v.expand(place) for v in values] if place else values)


def _drop_zeros(name: str, table: dict[tuple[int, int, int], Tensor], place: torch.Size) -> None:
    """Take out the entries that are zero everywhere and will stay so; refuse those that are not finite."""
    if not table:
        return
    keys = list(table)
    values = _stacked(list(table.values()), place).detach().reshape(len(keys), -1)
    finite = values.isfinite().all(1)
    if not bool(finite.all()):
        bad = keys[finite.tolist().index(False)]
        raise PlanError(f"step {bad[0]} has a coefficient in {name} that is not finite: {table[bad].tolist()}")
    for key, filled in zip(keys, values.any(1).tolist(), strict=True):
        if not filled and not table[key].requires_grad:
            del table[key]


def _pack(entries: dict[tuple[int, int, int], Tensor], place: torch.Size) -> Table:
    keys = sorted(entries)
    index = torch.tensor(keys, dtype=torch.int64).reshape(-1, 3)
    if not keys:
        return Table(index, torch.zeros(0, dtype=torch.float64))
    return Table(index, _stacked([entries[key] for key in keys], place))


class Builder:
    """Writes the tables of a plan, whole columns of steps at a time.

    Args:
        times: float64 (steps + 1, *place), the time of register x before each step and after the last.
        registers: the names of the registers; the first is "x", and "one" is a register that holds ones.
        live: registers that somebody beyond this plan may read after any step, so that no write of them is left out.
    """

    def __init__(self, times: Tensor, registers: Sequence[str], live: Sequence[str] = ()) -> None:
        self.times, self.registers = times, tuple(registers)
        self._always = {0} | {self.registers.index(name) for name in live}
        self.steps = len(times) - 1
        self._asks: dict[tuple[int, int], tuple[int, Tensor]] = {}
        self._tables: dict[str, dict[tuple[int, int, int], Tensor]] = {"M": {}, "B": {}, "N": {}}

    def ask(self, register: str, times: Tensor | None = None, steps: range | None = None, slot: int = 0) -> None:
        """Ask the network at `register`, in each of `steps`, as answer number `slot` of that step.

        Args:
            register: the name of the register that the network sees.
            times: (len(steps), *place), the times of that register; the step's own time unless given.
            steps: the steps in question; all unless given.
            slot: the number of the answer within the step, from 0.
        """
        steps = range(self.steps) if steps is None else steps
        times = self.times[:-1][steps.start : steps.stop] if times is None else times
        for step, time in zip(steps, times, strict=True):
            self._asks[step, slot] = (self.registers.index(register), time)

    def add(self, to: str, source: str | int, value: Tensor | float, steps: range | None = None) -> None:
        """Add value·source to what the steps write into register `to`.

        Args:
            to: the register written.
            source: a register's name, "noise" or "noise1" … for fresh noise, or an int: the answer of that slot.
            value: (len(steps), *place) or one number for all.
            steps: the steps in question; all unless given.
        """
        steps = range(self.steps) if steps is None else steps
        if isinstance(source, int):
            table, column = self._tables["B"], source
        elif source.startswith("noise"):
            table, column = self._tables["N"], int(source.removeprefix("noise") or 0)
        else:
            table, column = self._tables["M"], self.registers.index(source)
        row = self.registers.index(to)
        values = torch.as_tensor(value, dtype=torch.float64)
        values = values.expand(len(steps)) if values.ndim == 0 else values
        for step, one in zip(steps, values, strict=True):
            key = (step, row, column)
            table[key] = table[key] + one if key in table else one

    def finish(self) -> tuple[Tensor, Tensor, Table, Table, Table]:
        """(asks, ask times, M, B, N) in normal form.

        Raises:
            PlanError: a coefficient is not finite.
        """
        values = [v for table in self._tables.values() for v in table.values()]
        place = broadcast_shapes(self.times.shape[1:], *(v.shape for v in values))
        for name, table in self._tables.items():
            _drop_zeros(name, table, place)
        self._drop_what_nobody_reads()
        self._name_noises_in_order()
        slots = sorted(self._asks)
        asks = torch.tensor([(step, self._asks[step, slot][0]) for step, slot in slots], dtype=torch.int64)
        times = [self._asks[key][1] for key in slots]
        # Coefficients may differ within a sample where the times do not: then the network is still told one time.
        told = broadcast_shapes(self.times.shape[1:], *(t.shape for t in times))
        ask_times = torch.stack([t.expand(told) for t in times]) if times else torch.zeros(0, dtype=torch.float64)
        m, b, n = (_pack(self._tables[name], place) for name in "MBN")
        return asks.reshape(-1, 2), ask_times, m, b, n

    def _drop_what_nobody_reads(self) -> None:
        m, b = self._tables["M"], self._tables["B"]
        by_step: list[dict[int, list[tuple[str, tuple[int, int, int]]]]] = [{} for _ in range(self.steps)]
        for name, table in self._tables.items():
            for key in table:
                by_step[key[0]].setdefault(key[1], []).append((name, key))
        asked: list[dict[int, int]] = [{} for _ in range(self.steps)]
        for (step, slot), (register, _) in self._asks.items():
            asked[step][slot] = register
        live = set(self._always)
        for step in reversed(range(self.steps)):
            read, heard = set(live), set()
            for to, keys in by_step[step].items():
                alone = len(keys) == 1 and keys[0] == ("M", (step, to, to)) and _is_one(m[step, to, to])
                if to not in live or alone:
                    for name, key in keys:
                        del self._tables[name][key]
                    continue
                read.discard(to)
            for to, keys in by_step[step].items():
                if to in live:
                    read |= {key[2] for name, key in keys if name == "M" and key in m}
                    heard |= {key[2] for name, key in keys if name == "B" and key in b}
            for slot in [s for s in asked[step] if s not in heard]:
                del self._asks[step, slot]
                del asked[step][slot]
            if sorted(asked[step]) != list(range(len(asked[step]))):
                self._close_gaps(step, sorted(asked[step]))
            live = read | set(asked[step].values()) | self._always

    def _close_gaps(self, step: int, slots: list[int]) -> None:
        b = self._tables["B"]
        for new, old in enumerate(slots):
            if new != old:
                self._asks[step, new] = self._asks.pop((step, old))
                for key in [k for k in b if k[0] == step and k[2] == old]:
                    b[step, key[1], new] = b.pop(key)

    def _name_noises_in_order(self) -> None:
        n = self._tables["N"]
        for step in {key[0] for key in n}:
            used = sorted({key[2] for key in n if key[0] == step})
            if used != list(range(len(used))):
                for key in sorted(k for k in n if k[0] == step):
                    n[step, key[1], used.index(key[2])] = n.pop(key)


def _is_one(value: Tensor) -> bool:
    return not value.requires_grad and bool((value == 1).all())
