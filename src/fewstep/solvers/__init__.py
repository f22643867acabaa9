"""Solvers: engines that turn (path, grid) into a plan, under their mathematical names."""

from importlib import import_module
from typing import Any, Protocol

from torch import Tensor

from fewstep.catalog import methods
from fewstep.errors import ArgumentError, unknown
from fewstep.paths import Path
from fewstep.plan import Plan


class Solver(Protocol):
    """Turns (path, grid) into a plan; says its order and whether it draws noise."""

    @property
    def order(self) -> int: ...

    @property
    def stochastic(self) -> bool: ...

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan: ...


def solver_named(name: str, **parameters: Any) -> Solver:
    """The solver of that name in the catalogue.

    Args:
        name: as in `fewstep catalog`.
        parameters: parameters of the engine that differ from the catalogue's row.

    Raises:
        ArgumentError: the name or a parameter is unknown; the nearest names are offered.
    """
    rows = {m.name: m for m in methods() if m.family == "solvers"}
    if name not in rows:
        raise unknown("solver", name, rows)
    row = rows[name]
    try:
        solver: Solver = getattr(import_module(row.module), row.symbol)(**{**dict(row.arguments), **parameters})
    except TypeError as error:
        raise ArgumentError(f"solver {name!r}: {error}") from error
    return solver


__all__ = ["Solver", "solver_named"]
