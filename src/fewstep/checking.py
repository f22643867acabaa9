"""Arguments checked by what their class declares: a number where a number is declared, and never NaN.

Comparing "x" with 0 raises Python's own TypeError somewhere inside; here the caller is told which argument it was.
"""

import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import signature
from numbers import Integral, Real
from typing import Any, TypeVar

from fewstep.errors import ArgumentError

T = TypeVar("T")


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


# What a field of each type takes, in words and as a test; fields of other types check themselves.
KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    float: ("a number", _number),
    int: ("a whole number", _whole),
    bool: ("True or False", lambda value: isinstance(value, bool)),
    str: ("a name", lambda value: isinstance(value, str)),
}


def checked(made: T) -> T:
    """Have a dataclass refuse arguments of another kind than its fields declare, before it looks at them itself.

    Fields declared float, int, bool or str are checked, and those that may be None beside; a class that is no dataclass
    is returned as it is, and so is one that is checked already.
    """
    if not isinstance(made, type) or not is_dataclass(made) or hasattr(vars(made).get("__init__"), "__wrapped__"):
        return made
    kinds = {}
    for field in fields(made):
        if field.init and (kind := _kind(field.type)) is not None:
            kinds[field.name] = kind
    plain, declared = made.__init__, signature(made.__init__)  # type: ignore[misc]

    @wraps(plain)
    def init(self: Any, *arguments: Any, **named: Any) -> None:
        given = declared.bind(self, *arguments, **named).arguments
        for name, (words, fits) in kinds.items():
            if name in given and not fits(given[name]):
                raise ArgumentError(f"{name} must be {words}, got {given[name]!r}")
        plain(self, *arguments, **named)

    made.__init__ = init  # type: ignore[misc]
    return made


def _kind(declared: Any) -> tuple[str, Callable[[Any], bool]] | None:
    """How a field of this type is checked; None for types that check themselves."""
    options = getattr(declared, "__args__", ())
    if type(None) in options and len(options) == 2:
        inner = _kind(options[0] if options[1] is type(None) else options[1])
        if inner is None:
            return None
        words, fits = inner
        return f"{words} or None", lambda value: value is None or fits(value)
    return KINDS.get(declared)
