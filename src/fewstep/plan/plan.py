"""The plan: the table of coefficients that a sampler is on one grid.

A sampler is a linear, time-varying machine driven by the network.  Named registers R (the first is the state x) become
fixed combinations of registers, of the network's answers x̂₀ and of fresh noise ξ:

    R_{i+1} = M_i R_i + B_i x̂₀_i + N_i ξ_i.

A plan is data: it prints, compares, saves as JSON and runs without knowing which paper it came from.  It refuses to
exist when it is inconsistent: with every answer one fixed x₀, the mean a and the covariance C of the registers obey

    a_{i+1} = M_i a_i + B_i 1,      C_{i+1} = M_i C_i M_iᵀ + N_i N_iᵀ,

and register x must stand at (α, σ) of its time after every step, as must a register at the time it is asked at.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import PlanError
from fewstep.paths import Path
from fewstep.plan.landing import check_landing
from fewstep.plan.table import Builder, Table
from fewstep.shapes import broadcast_shapes


@dataclass(frozen=True)
class Step:
    """A row of a plan: a view, made on demand.

    Args:
        index: the number of the step, from 0.
        t, t_next: the times of register x before and after; float64 of the plan's place.
        asks: (register, time) of each answer, in the order of their slots.
        writes: for each register written, its entries (kind, source, value); kind is "M", "B" or "N".
    """

    index: int
    t: Tensor
    t_next: Tensor
    asks: list[tuple[int, Tensor]]
    writes: dict[int, list[tuple[str, int, Tensor]]]


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """A sampler on one grid, as data.

    Args:
        path: the path that it runs on.
        registers: the names of the registers; "x" first; a register named "one" holds ones.
        times: float64 (steps + 1, *place), the time of x before each step and after the last; they fall or stand, and
            rise in restarts and encoding.
        asks: int64 (answers, 2), rows (step, register), in the order of steps and slots.
        ask_times: float64 (answers, *place), the time of the register that is asked.
        M, B, N: the coefficients on registers, on answers and on noise.
        order: the order of convergence that the solver declares.
        source: where it came from: solver, grid and their parameters, as JSON data.
        deviates: empty, or the sentence in which a method says why it does not land on its path.
        restarts: the same sampler with at most 1, 2 … steps of history, for the steps after a jump of the state.
        skips: for each answer the names of the network's layers that are left out; empty where none is.

    Raises:
        PlanError: the table is not well formed, or does not land on its path and does not say so.
    """

    path: Path
    registers: tuple[str, ...]
    times: Tensor
    asks: Tensor
    ask_times: Tensor
    M: Table
    B: Table
    N: Table
    order: int = 1
    source: dict[str, Any] = field(default_factory=dict)
    deviates: str = ""
    restarts: tuple["Plan", ...] = ()
    skips: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        self.check()
        # What programs made of this plan, for the next one; copies share it.
        object.__setattr__(self, "_kept", {})

    @staticmethod
    def build(path: Path, builder: Builder, **fields: Any) -> "Plan":
        """The plan that a builder holds, in normal form."""
        asks, ask_times, m, b, n = builder.finish()
        return Plan(path, builder.registers, builder.times, asks, ask_times, m, b, n, **fields)

    @property
    def steps(self) -> int:
        """The number of rows."""
        return len(self.times) - 1

    @property
    def evaluations(self) -> int:
        """How often a sample's network is asked, guidance not counted."""
        return len(self.asks)

    @property
    def stochastic(self) -> bool:
        """Whether any step draws noise."""
        return len(self.N) > 0

    @property
    def place(self) -> torch.Size:
        """The shape that times and coefficients have for one step; () when all samples and pixels share them."""
        return broadcast_shapes(self.times.shape[1:], self.ask_times.shape[1:], *self._value_places())

    def _value_places(self) -> list[torch.Size]:
        return [table.value.shape[1:] for table in (self.M, self.B, self.N) if len(table)]

    @property
    def reversible(self) -> bool:
        """Whether every step can be undone exactly: no noise, what was asked is kept, and M has an inverse."""
        if self.stochastic:
            return False
        for step, m in zip(self, self._matrices()[0], strict=True):
            if any(register in step.writes for register, _ in step.asks):
                return False
            if bool((torch.linalg.matrix_rank(m) < len(self.registers)).any()):
                return False
        return True

    def __iter__(self) -> Iterator[Step]:
        tables = {name: getattr(self, name).rows() for name in "MBN"}
        asks: list[list[tuple[int, Tensor]]] = [[] for _ in range(self.steps)]
        for (step, register), time in zip(self.asks.tolist(), self.ask_times, strict=True):
            asks[step].append((register, time))
        for i in range(self.steps):
            writes: dict[int, list[tuple[str, int, Tensor]]] = {}
            for name in "MBN":
                for to, source, value in tables[name].get(i, []):
                    writes.setdefault(to, []).append((name, source, value))
            yield Step(i, self.times[i], self.times[i + 1], asks[i], writes)

    def __len__(self) -> int:
        return self.steps

    def __eq__(self, other: object) -> bool:
        """Bit for bit the same sampler; where it came from does not matter."""
        return isinstance(other, Plan) and (
            (self.path, self.registers, self.order) == (other.path, other.registers, other.order)
            and all(torch.equal(getattr(self, k), getattr(other, k)) for k in ("times", "asks", "ask_times"))
            and all(getattr(self, k).same(getattr(other, k)) for k in "MBN")
            and (self.restarts, self.skips) == (other.restarts, other.skips)
        )

    def __hash__(self) -> int:
        return hash((self.registers, self.steps, self.evaluations, self.order))

    def __str__(self) -> str:
        from fewstep.plan.text import show

        return show(self)

    def _repr_html_(self) -> str:
        from fewstep.plan.text import html

        return html(self)

    def __repr__(self) -> str:
        name = self.source.get("solver", "plan")
        return f"<Plan {name}: {self.steps} steps, {self.evaluations} evaluations, {self.path.kind}>"

    def save(self, path: str) -> None:
        """Write the plan as JSON, from which `Plan.load` makes it again bit for bit."""
        from fewstep.plan.files import write

        write(self, path)

    def push_to_hub(self, repo_id: str, *, base_model: str, license: str, **told: Any) -> str:
        """Put the plan on the hub, with a card that runs; the commit.

        Args:
            repo_id: "owner/name"; made if it is not there.
            base_model: the model that it is for: a hub id, or the name of a model that fewstep ships.
            license: the plan's own, as the hub names it, such as "mit".
            told: revision (of base_model), pipeline_tag, tags, measured, seed, private, token and message, as
                `fewstep.plan.hub` has them.
        """
        from fewstep.plan.hub import push

        return push(self, repo_id, base_model=base_model, license=license, **told)

    @staticmethod
    def load(path: str) -> "Plan":
        """The plan in a JSON file.

        Raises:
            PlanError: the file is no plan, was changed, or the plan is inconsistent.
        """
        from fewstep.plan.files import read

        return read(path)

    def _matrices(self) -> tuple[Tensor, Tensor, Tensor]:
        """Dense (steps, *place, to, source) matrices, with a one for every register that a step does not write."""
        size = len(self.registers)
        slots = int(self.B.index[:, 2].max()) + 1 if len(self.B) else 1
        draws = int(self.N.index[:, 2].max()) + 1 if len(self.N) else 1
        m = self.M.dense(self.steps, size, size)
        b, n = self.B.dense(self.steps, size, slots), self.N.dense(self.steps, size, draws)
        kept = torch.ones(self.steps, size, dtype=torch.bool)
        for table in (self.M, self.B, self.N):
            kept[table.index[:, 0], table.index[:, 1]] = False
        eye = torch.diag_embed(kept.double())
        return m + eye.reshape(self.steps, *[1] * (m.ndim - 3), size, size), b, n

    def check(self) -> None:
        """Refuse a table that is not well formed or does not land where its path says."""
        if self.registers[0] != "x" or len(set(self.registers)) != len(self.registers):
            raise PlanError(f"registers must be distinct names and begin with 'x', got {self.registers}")
        if self.steps < 1:
            raise PlanError(f"a plan needs at least one step, got {len(self.times)} times")
        times = self.times.detach()
        if not times.isfinite().all() or times.min() < 0 or times.max() > 1:
            raise PlanError(f"times must lie in [0, 1], got {times.tolist()}")
        self._check_references()
        if self.skips and len(self.skips) != self.evaluations:
            raise PlanError(f"the plan asks {self.evaluations} times and leaves out layers at {len(self.skips)}")
        if not self.deviates:
            check_landing(self, *self._matrices())

    def _check_references(self) -> None:
        """Every ask and every entry names a step, a register and an answer that are there."""
        size, slots = len(self.registers), [0] * self.steps
        for step, register in self.asks.tolist():
            if not (0 <= step < self.steps and 0 <= register < size):
                raise PlanError(f"the network is asked at ({step}, {register}): no such step or register")
            slots[step] += 1
        for name, table, sources in (("M", self.M, [size] * self.steps), ("B", self.B, slots)):
            for step, to, source in table.index.tolist():
                if not (0 <= step < self.steps and 0 <= to < size and 0 <= source < sources[step]):
                    what = "register" if name == "M" else "answer"
                    raise PlanError(f"{name} has an entry ({step}, {to}, {source}): no such step, register or {what}")
