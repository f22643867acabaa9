"""Guides as the studio offers them: each with its plain settings, read from its dataclass.

A guide is offered where it can be made without arguments and does something by itself.
"""

from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib import import_module
from types import NoneType
from typing import Any, get_args

from fewstep.catalog import Method, methods
from fewstep.errors import ArgumentError
from fewstep.guidance import Guide

# They need another picture size, losses, or experts, which a page of settings cannot give.
NOT_ALONE = {"upsample-guidance", "steered", "composition"}


@dataclass(frozen=True)
class Setting:
    """One number, word or switch of a guide.

    Args:
        name: of the field; a pair's ends are "name.0" and "name.1".
        default: its value.
        optional: whether it may be left empty.
    """

    name: str
    default: Any
    optional: bool


def _settings(made: Any) -> list[Setting]:
    found = []
    for field in fields(made):
        value, optional = field.default, NoneType in get_args(field.type)
        if isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, (int, float)) for v in value):
            found += [Setting(f"{field.name}.{i}", float(v), False) for i, v in enumerate(value)]
        elif isinstance(value, (bool, int, float, str)) or (value is None and float in get_args(field.type)):
            found.append(Setting(field.name, value, optional))
    return found


@cache
def offered() -> dict[str, tuple[Method, list[Setting]]]:
    """name: (its row of the catalogue, its settings)."""
    found = {}
    for row in methods():
        if row.family != "guidance" or row.name in NOT_ALONE:
            continue
        made = getattr(import_module(row.module), row.symbol)
        if all(f.default is not MISSING or f.default_factory is not MISSING for f in fields(made)) and _settings(made):
            found[row.name] = (row, _settings(made))
    return found


@dataclass(frozen=True)
class Chosen:
    """A guide that was chosen, with the settings that differ from its defaults.

    Args:
        name: as in the catalogue.
        values: (setting, value) pairs.
    """

    name: str
    values: tuple[tuple[str, Any], ...] = ()

    @staticmethod
    def of(name: str, given: dict[str, Any]) -> "Chosen":
        """From what the page sent: numbers of whole settings come as floats, empty ones as None.

        Raises:
            ArgumentError: an unknown guide, or an empty setting that must not be.
        """
        if name not in offered():
            raise ArgumentError(f"unknown guide {name!r}; the studio offers {', '.join(offered())}")
        kept: list[tuple[str, Any]] = []
        for setting in offered()[name][1]:
            value = given.get(setting.name, setting.default)
            if value is None and not setting.optional and setting.default is not None:
                raise ArgumentError(f"{name}: {setting.name} must not be empty")
            if isinstance(setting.default, int) and not isinstance(setting.default, bool) and value == int(value):
                value = int(value)
            if value != setting.default:
                kept.append((setting.name, value))
        return Chosen(name, tuple(kept))

    def _arguments(self) -> dict[str, Any]:
        given, arguments = dict(self.values), {}
        for setting in offered()[self.name][1]:
            field, _, end = setting.name.partition(".")
            if not end:
                if setting.name in given:
                    arguments[field] = given[setting.name]
            elif any(f"{field}.{i}" in given for i in (0, 1)):
                arguments.setdefault(field, ())
                arguments[field] += (given.get(setting.name, setting.default),)
        return arguments

    def make(self) -> Guide:
        """The guide."""
        row = offered()[self.name][0]
        made: Guide = getattr(import_module(row.module), row.symbol)(**self._arguments())
        return made

    @property
    def symbol(self) -> str:
        """Its class's name, which `fewstep.guidance` exports."""
        return offered()[self.name][0].symbol

    def code(self) -> str:
        """The guide as Python; its first setting is written also where it is the default."""
        first = offered()[self.name][1][0]
        given = self._arguments() or ({} if "." in first.name else {first.name: first.default})
        return f"{self.symbol}({', '.join(f'{k}={v!r}' for k, v in given.items())})"


def imports(chosen: tuple[Chosen, ...]) -> list[str]:
    """The line that imports guides, if there are any."""
    names = sorted({c.symbol for c in chosen})
    return [f"from fewstep.guidance import {', '.join(names)}"] if names else []


def guides_code(chosen: tuple[Chosen, ...]) -> str:
    """guides=… as Python, or nothing."""
    return f"guides=[{', '.join(c.code() for c in chosen)}]" if chosen else ""
