"""Solvers: engines that turn (path, grid) into a plan, under their mathematical names."""

from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any, Protocol

from torch import Tensor

from fewstep.aliases import SAMPLERS, refusal, split
from fewstep.catalog import Method, methods
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
    """The solver of that name in the catalogue: a row of family solvers, or one of family bridges that is a solver.

    Args:
        name: as in `fewstep catalog`, or as other tools have it (`fewstep.aliases`), no schedule named.
        parameters: parameters of the engine that differ from the catalogue's row.

    Raises:
        ArgumentError: the name or a parameter is unknown, and the nearest names are offered; or the row is a path or a
            loop, and what to call is named.
    """
    rows = {m.name: m for m in methods() if m.module.startswith("fewstep.solvers.")}
    if name not in rows:
        sampler, grid = split(name) or (name, None)
        if sampler not in SAMPLERS or grid is not None:
            raise _no_solver(name, rows)
        name, own = SAMPLERS[sampler]
        parameters = {**own, **parameters}
    row = rows[name]
    try:
        solver: Solver = getattr(import_module(row.module), row.symbol)(**{**dict(row.arguments), **parameters})
    except TypeError as error:
        raise ArgumentError(f"solver {name!r}: {error}{_own(row)}") from error
    return solver


def _own(row: Method) -> str:
    """The parameters of a row's class, in words."""
    made = getattr(import_module(row.module), row.symbol)
    return f"; its parameters are {', '.join(f.name for f in fields(made))}" if is_dataclass(made) else ""


def _no_solver(name: str, rows: dict[str, Method]) -> ArgumentError:
    row = next((m for m in methods() if m.name == name and m.family in ("loops", "bridges")), None)
    if row is None:
        return refusal(name) or unknown("solver", name, [*rows, *SAMPLERS])
    if row.family == "loops":
        return ArgumentError(
            f"{name!r} is a loop and has no plan beforehand: fewstep.sample(denoiser, solver={name!r}) runs it, "
            f"fewstep.loops.loop_named({name!r}) makes it"
        )
    made = ", ".join(f"{key}={value!r}" for key, value in row.arguments)
    return ArgumentError(
        f"{name!r} is a path and takes any solver: den = fewstep.wrap_bridge(net, fewstep.paths.{row.symbol}({made}), "
        "…), then fewstep.sample(den, start=den.start(y), cond={'y': y}, solver=…)"
    )


__all__ = ["Solver", "solver_named"]
