"""Arguments checked: kinds by what their class declares, a number where a number is and never NaN; devices.

Comparing "x" with 0 raises Python's own TypeError somewhere inside; here the caller is told which argument it was.
"""

import math
import os
from collections import abc
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from functools import cache, wraps
from inspect import signature
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from fewstep.errors import ArgumentError, unknown

T = TypeVar("T")


def _number(value: Any) -> bool:
    if isinstance(value, Integral):
        return _whole(value)
    return isinstance(value, Real) and not math.isnan(value)


def _whole(value: Any) -> bool:
    # Beyond 64 bits nothing below takes them.
    return isinstance(value, Integral) and not isinstance(value, bool) and -(2**63) <= int(value) < 2**64


Kind = tuple[str, Callable[[Any], bool]]
# What a field of each type takes, in words and as a test; fields of other types check themselves.
KINDS: dict[Any, Kind] = {
    float: ("a number", _number),
    int: ("a whole number", _whole),
    bool: ("True or False", lambda value: isinstance(value, bool)),
    str: ("a name", lambda value: isinstance(value, str)),
    Path: ("a path", lambda value: isinstance(value, Path)),
    type(None): ("None", lambda value: value is None),
    abc.Callable: ("a function", callable),
    abc.Mapping: ("a mapping", lambda value: isinstance(value, abc.Mapping)),
    abc.Sequence: ("a list", lambda value: isinstance(value, abc.Sequence) and not isinstance(value, (str, bytes))),
}


def checked(made: T) -> T:
    """Have a class or a function refuse arguments of another kind than it declares, before it looks at them itself.

    Parameters declared as numbers, names, functions, lists, pairs, mappings or a choice of these are checked.  What is
    checked already is returned as it is.
    """
    if not isinstance(made, type):
        return _guarded(made, getattr(made, "__annotations__", {}))  # type: ignore[return-value, arg-type]
    plain = vars(made).get("__init__")
    if plain is not None and not hasattr(plain, "__wrapped__"):
        declared = {f.name: f.type for f in fields(made) if f.init} if is_dataclass(made) else plain.__annotations__
        made.__init__ = _guarded(plain, declared)  # type: ignore[misc]
    return made


def _guarded(plain: Callable[..., Any], declared: abc.Mapping[str, Any]) -> Callable[..., Any]:
    """The function with its arguments checked."""
    kinds = {name: kind for name, one in declared.items() if name != "return" and (kind := _kind(one)) is not None}
    taken = signature(plain)

    @wraps(plain)
    def guarded(*arguments: Any, **named: Any) -> Any:
        try:
            given = taken.bind(*arguments, **named).arguments
        except TypeError:
            given = {}  # too many or too few, of which Python says more below
        for name, (words, fits) in kinds.items():
            if name in given and not fits(given[name]):
                raise ArgumentError(f"{name} must be {words}, got {given[name]!r}")
        return plain(*arguments, **named)

    return guarded


def _kind(declared: Any) -> Kind | None:
    """How a field of this type is checked; None for types that check themselves."""
    origin, inside = get_origin(declared), get_args(declared)
    if origin in (Union, UnionType):
        options = [_kind(option) for option in inside]
        if any(option is None for option in options):
            return None
        kinds = [option for option in options if option is not None]
        return " or ".join(words for words, _ in kinds), lambda value: any(fits(value) for _, fits in kinds)
    if origin is tuple and inside and inside[-1] is not Ellipsis:
        parts = [_kind(part) for part in inside]

        def fits(value: Any) -> bool:
            pairs = isinstance(value, (tuple, list)) and len(value) == len(parts)
            return pairs and all(part is None or part[1](one) for part, one in zip(parts, value, strict=True))

        return f"{len(parts)} values ({', '.join(part[0] if part else 'its kind' for part in parts)})", fits
    return KINDS.get(abc.Sequence if origin is tuple else origin or declared)


def checked_list(name: str, value: Any, kind: Any = object) -> None:
    """Refuse what is no list or tuple of `kind`; text is none.

    Raises:
        ArgumentError: it is something else, or holds something else.
    """
    if not isinstance(value, (list, tuple, range)) or not all(isinstance(one, kind) for one in value):
        what = f" of {kind.__name__}" if isinstance(kind, type) and kind is not object else ""
        raise ArgumentError(f"{name} must be a list{what}, got {value!r}")


@cache
def memory_gib() -> float:
    """The memory of this machine, or what its container allows, in GiB; infinite where it does not tell."""
    if not hasattr(os, "sysconf"):
        return math.inf
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    try:
        allowed = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        return whole if allowed == "max" else min(whole, int(allowed) / 2**30)
    except (OSError, ValueError):
        return whole


def checked_count(name: str, value: Any, shape: Iterable[int] = ()) -> int:
    """The number of samples of a shape, where it is one and their states fit in the memory.

    Raises:
        ArgumentError: it is no integer of at least 1, or too many for this machine.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArgumentError(f"{name} must be an integer of at least 1, got {value!r}")
    gib = 3 * 4 * value * math.prod(shape) / 2**30
    if gib > memory_gib():
        raise ArgumentError(
            f"{name}={value}: the states alone need {gib:.0f} GiB and this machine has {memory_gib():.0f}"
        )
    return value


def checked_plot(path: str | Path) -> None:
    """Refuse the name of a plot's file that ends as no kind of picture does.

    Raises:
        ArgumentError: it does not; the kinds are said.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    kinds, kind = FigureCanvasBase.get_supported_filetypes(), Path(path).suffix[1:].lower()
    if kind not in kinds:
        raise unknown("kind of picture", kind, kinds)


def checked_device(device: Any) -> Any:
    """The torch.device that is named.

    Raises:
        ArgumentError: it is no device, or this machine does not have it.
    """
    import torch

    try:
        made = torch.device(device)
        if made.type != "meta":
            torch.empty(0, device=made)
    except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError) as error:
        raise ArgumentError(f"device must be one of this machine's, such as 'cpu', got {device!r} ({error})") from error
    return made
