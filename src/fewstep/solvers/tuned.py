"""The tuned tables that ship, and the choice among them: `solver="auto"`.

A table is nodes in λ, multistep weights and scales, so it serves every path whose noisy end has nearly the λ that it
was tuned for.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path as FilePath
from typing import Any

from fewstep.atomic import write_atomically
from fewstep.errors import ArgumentError, PlanError
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.solvers.free_multistep import Table

FILE = FilePath(__file__).parent.parent / "assets" / "tuned.json"
# How far the λ of a path's noisy end may be from the one that a table was tuned for.
REACH = 0.75


@cache
def shipped_tables() -> tuple[Table, ...]:
    """All tables that ship, in the order of their evaluations."""
    return read_tables(FILE) if FILE.is_file() else ()


def read_tables(path: str | FilePath) -> tuple[Table, ...]:
    """The tables in a JSON file.

    Raises:
        PlanError: it is not such a file.
    """
    try:
        rows = json.loads(FilePath(path).read_text(encoding="utf8"))
        return tuple(
            Table(
                -math.inf if row["first"] is None else float(row["first"]), tuple(map(float, row["nodes"])),
                tuple(tuple(map(float, one)) for one in row["weights"]), dict(row["about"]),
                tuple(tuple(map(float, one)) for one in row.get("scales", ())),
                None if row.get("told") is None else float(row["told"]), float(row.get("stretch", 1.0)),
            )
            for row in rows
        )  # fmt: skip
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PlanError(f"{path} is not a file of tuned tables: {error}") from error


def write_tables(path: str | FilePath, tables: Iterable[Table]) -> None:
    """Write tables to a JSON file, fewest evaluations first."""
    rows: list[dict[str, Any]] = [
        {
            "about": t.about, "first": None if math.isinf(t.first) else t.first, "nodes": t.nodes,
            "weights": t.weights, "scales": t.scales, "told": t.told, "stretch": t.stretch,
        }
        for t in sorted(tables, key=lambda t: (len(t.weights), str(t.about)))
    ]  # fmt: skip
    text = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"
    write_atomically(path, text.encode())


def near_tables(path: Path) -> list[Table]:
    """The shipped tables, of worlds and of all models, that were tuned for nearly the path's noisy end."""
    return [t for t in shipped_tables() if t.suits(path, REACH)]


def nearest_table(path: Path, evaluations: int, model: str = "") -> Table | None:
    """The shipped table for a path with the most steps that fit, one of the model itself before one of worlds."""
    first = float(path.lam(1.0))
    fit = [
        t for t in near_tables(path) if len(t.weights) <= evaluations and t.about.get("model", "") in ("", model)
    ]  # fmt: skip

    def suits(table: Table) -> tuple[int, bool, float]:
        apart = 0.0 if math.isinf(first) else abs(first - table.first)
        return len(table.weights), table.about.get("model", "") == model, -apart

    return max(fit, key=suits, default=None)


def auto_plan(path: Path, evaluations: int, model: str = "") -> Plan | None:
    """The plan of the nearest shipped table, with a note of what was chosen; None where there is none.

    A third above the largest table an untuned plan with all evaluations is the better choice on trained models.
    """
    if not isinstance(evaluations, int) or isinstance(evaluations, bool) or evaluations < 1:
        raise ArgumentError(f"evaluations must be an integer of at least 1, got {evaluations!r}")
    table = nearest_table(path, evaluations, model)
    if table is None or 3 * evaluations >= 4 * len(table.weights):
        return None
    plan, has = table.plan(path), len(table.weights)
    if has == evaluations:
        return plan
    return replace(plan, source={**plan.source, "nearest": f"{has} evaluations of the {evaluations} asked for"})
