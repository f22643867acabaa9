"""Plans as JSON: a public, versioned format; numbers come back bit for bit, and a changed file is refused."""

import hashlib
import json
import math
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from fewstep.atomic import write_atomically
from fewstep.errors import FewstepError, PlanError
from fewstep.paths import from_json
from fewstep.plan.plan import Plan
from fewstep.plan.table import Table

FORMAT, VERSION = "fewstep-plan", 1
KEYS = {"path", "prediction", "registers", "times", "asks", "M", "B", "N", "order", "source", "deviates", "restarts"}


def to_data(plan: Plan) -> dict[str, Any]:
    """The plan as JSON data."""

    def entries(index: Tensor, value: Tensor) -> list[Any]:
        return [[*key, number] for key, number in zip(index.tolist(), value.detach().tolist(), strict=True)]

    return {
        "path": plan.path.to_json(), "prediction": "x0", "registers": list(plan.registers),
        "times": plan.times.detach().tolist(), "asks": entries(plan.asks, plan.ask_times),
        **{k: entries(getattr(plan, k).index, getattr(plan, k).value) for k in "MBN"},
        "order": plan.order, "source": plan.source, "deviates": plan.deviates,
        "restarts": [to_data(p) for p in plan.restarts],
        **({"skips": [list(names) for names in plan.skips]} if plan.skips else {}),
    }  # fmt: skip


def _digest(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, allow_nan=False).encode()).hexdigest()


def dumps(plan: Plan) -> str:
    """The plan as the text of a JSON file."""
    data = to_data(plan)
    head = {"format": FORMAT, "version": VERSION, "hash": _digest(data)}
    return json.dumps({**head, **data}, allow_nan=False, ensure_ascii=False)


def _entries(rows: Any, columns: int) -> tuple[Tensor, Tensor]:
    keys = [[int(v) for v in row[:columns]] for row in rows]
    values = [row[columns] for row in rows]
    index = torch.tensor(keys, dtype=torch.int64).reshape(-1, columns)
    value = torch.tensor(values, dtype=torch.float64)
    if (index < 0).any() or not value.isfinite().all():
        raise PlanError("a plan's entries have indices from 0 and finite numbers")
    if [tuple(k) for k in keys] != sorted(tuple(k) for k in keys):
        raise PlanError("a plan's entries are sorted by step")
    return index, value


def from_data(data: dict[str, Any]) -> Plan:
    """The plan that `to_data` described.

    Raises:
        PlanError: a key is missing, extra or malformed, or the plan is inconsistent.
    """
    if not isinstance(data, dict) or set(data) - {"skips"} != KEYS:
        found = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise PlanError(f"a plan has the keys {sorted(KEYS)}, got {found}")
    try:
        times = torch.tensor(data["times"], dtype=torch.float64)
        registers, steps = tuple(str(r) for r in data["registers"]), len(data["times"]) - 1
        asks, ask_times = _entries(data["asks"], 2)
        tables = {k: Table(*_entries(data[k], 3)) for k in "MBN"}
        slots = torch.bincount(asks[:, 0], minlength=max(steps, 1))
        for name, table, top in [("M", tables["M"], len(registers)), ("B", tables["B"], None), ("N", tables["N"], 4)]:
            step, to, column = table.index.unbind(1)
            if len(table) and (step.max() >= steps or to.max() >= len(registers)):
                raise PlanError(f"{name} names a step or a register that the plan does not have")
            limit = slots[step] if top is None else torch.full_like(column, top)
            if (column >= limit).any():
                raise PlanError(f"{name} names a source that its step does not have")
        if len(asks) and (asks[:, 0].max() >= steps or asks[:, 1].max() >= len(registers)):
            raise PlanError("an ask names a step or a register that the plan does not have")
        return Plan(
            from_json(data["path"]), registers, times, asks, ask_times, tables["M"], tables["B"], tables["N"],
            int(data["order"]), dict(data["source"]), str(data["deviates"]),
            tuple(from_data(p) for p in data["restarts"]),
            tuple(tuple(str(name) for name in names) for names in data.get("skips", ())),
        )  # fmt: skip
    except FewstepError:
        raise
    except (TypeError, ValueError, IndexError, KeyError, RuntimeError, OverflowError) as error:
        raise PlanError(f"this is not a well-formed plan: {error}") from error


def loads(text: str) -> Plan:
    """The plan in the text of a JSON file.

    Raises:
        PlanError: it is not JSON, not a plan of this version, was changed since it was saved, or is inconsistent.
    """
    try:
        data = json.loads(text, parse_constant=lambda name: math.nan)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"a plan file is JSON, and this is not: {error}") from error
    head = {k: data.pop(k, None) for k in ("format", "version", "hash")} if isinstance(data, dict) else {}
    if (head.get("format"), head.get("version")) != (FORMAT, VERSION):
        raise PlanError(f"this is not a {FORMAT} of version {VERSION}")
    try:
        digest = _digest(data)
    except ValueError as error:
        raise PlanError("a plan holds only finite numbers") from error
    if head["hash"] != digest:
        raise PlanError("the plan's hash does not match its content: the file was changed or cut since it was saved")
    return from_data(data)


def write(plan: Plan, path: str) -> None:
    """Write the plan to a JSON file."""
    write_atomically(path, dumps(plan).encode())


def read(path: str) -> Plan:
    """The plan in a JSON file."""
    try:
        return loads(FilePath(path).read_text(encoding="utf8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"cannot read the plan {path}: {error}") from error
