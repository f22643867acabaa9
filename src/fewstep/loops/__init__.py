"""Samplers with a loop of their own: what cannot be one plan made beforehand."""

from dataclasses import fields
from importlib import import_module
from typing import Any

from fewstep.catalog import methods
from fewstep.errors import ArgumentError, unknown
from fewstep.loops.base import Loop


def loop_named(name: str, **parameters: Any) -> Loop:
    """The loop of that name in the catalogue.

    Args:
        name: as in `fewstep catalog`.
        parameters: parameters that differ from the catalogue's row.

    Raises:
        ArgumentError: the name or a parameter is unknown; the nearest names are offered.
    """
    rows = {m.name: m for m in methods() if m.family == "loops"}
    if name not in rows:
        raise unknown("loop", name, rows)
    row = rows[name]
    try:
        loop: Loop = getattr(import_module(row.module), row.symbol)(**{**dict(row.arguments), **parameters})
    except TypeError as error:
        own = ", ".join(f.name for f in fields(getattr(import_module(row.module), row.symbol)))
        raise ArgumentError(f"loop {name!r}: {error}; its parameters are {own}") from error
    return loop


__all__ = ["Loop", "loop_named"]
