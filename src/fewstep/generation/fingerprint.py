"""A hash of what makes samples: every number of a model or a guide, and every function's code, not where they lie.

The value is walked as it lies in memory: tensors by their bytes, modules by their state, buffers and plain numbers,
functions by their code, what they close over and the numbers, tensors and functions of their own module that they name,
other objects by their fields.  Two processes that read the same file get the same hash.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def fingerprint(value: Any) -> str:
    """The hash of a value, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    _walk(value, digest.update, {})
    return digest.hexdigest()


def _walk(value: Any, tell: Any, seen: dict[int, tuple[int, Any]]) -> None:
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, torch.dtype, torch.device, type)):
        tell(f"{type(value).__name__} {value!r};".encode())
        return
    if id(value) in seen:
        tell(f"again {seen[id(value)][0]};".encode())
        return
    seen[id(value)] = (len(seen), value)  # held, so that no other value takes its place in memory
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous()
        tell(f"tensor {flat.dtype} {tuple(flat.shape)};".encode())
        tell(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, np.ndarray):
        tell(f"array {value.dtype} {value.shape};".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, CodeType):
        tell(value.co_code + repr(value.co_names).encode())
        for constant in value.co_consts:
            _walk_constant(constant, tell, seen)
    else:
        _walk_parts(value, tell, seen)


def _walk_constant(value: Any, tell: Any, seen: dict[int, tuple[int, Any]]) -> None:
    """A constant of code, never as "again": which equal ones are one object differs between processes."""
    if isinstance(value, (tuple, frozenset)):
        tell(f"{type(value).__name__} {len(value)};".encode())
        for part in sorted(value, key=repr) if isinstance(value, frozenset) else value:
            _walk_constant(part, tell, seen)
    elif isinstance(value, CodeType):
        _walk(value, tell, seen)
    else:
        tell(f"{type(value).__name__} {value!r};".encode())


def _walk_parts(value: Any, tell: Any, seen: dict[int, tuple[int, Any]]) -> None:
    tell(f"{type(value).__module__}.{type(value).__qualname__};".encode())
    parts: Any
    if isinstance(value, nn.Module):
        # The training mode changes what some layers answer.
        parts = [str(value), value.training, dict(value.state_dict()), dict(value.named_buffers())]
        parts += [[name, _numbers(vars(part))] for name, part in value.named_modules()]
    elif isinstance(value, FunctionType):
        parts = [value.__qualname__, value.__code__, *_closed_over(value), value.__defaults__, value.__kwdefaults__]
        parts.append(_named_globals(value))
    elif isinstance(value, MethodType):
        parts = [value.__func__.__qualname__, value.__self__]
    elif isinstance(value, partial):
        parts = [value.func, value.args, value.keywords]
    elif isinstance(value, Mapping):
        parts = [part for pair in value.items() for part in pair]
    elif isinstance(value, (Sequence, set, frozenset)):
        parts = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else list(value)
    else:
        own = getattr(value, "__dict__", {})
        cached = {key for key in own if isinstance(getattr(type(value), key, None), cached_property)} | {"_compiled"}
        parts = [part for key in sorted(own.keys() - cached) for part in (key, own[key])]
    for part in parts:
        _walk(part, tell, seen)
    tell(b"end;")


def _numbers(fields: dict[str, Any]) -> dict[str, Any]:
    """The plain numbers and tensors among a module's own fields; torch keeps its bookkeeping under names with a _."""
    plain = (bool, int, float, complex, torch.dtype, Tensor)
    return {
        key: value for key, value in sorted(fields.items())
        if not key.startswith("_") and (
            isinstance(value, plain)
            or (isinstance(value, (tuple, list)) and all(isinstance(part, plain) for part in value))
        )
    }  # fmt: skip


def _named_globals(function: FunctionType) -> list[Any]:
    """What of its module a function's code names: numbers, tensors, and the functions that stand there too."""
    found: list[Any] = []
    for name in sorted(_names(function.__code__)):
        value = function.__globals__.get(name)
        own = isinstance(value, FunctionType) and value.__module__ == function.__module__
        if own or isinstance(value, (bool, int, float, complex, Tensor, np.ndarray)):
            found += [name, value]
    return found


def _names(code: CodeType) -> set[str]:
    inner = (part for part in code.co_consts if isinstance(part, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _closed_over(function: FunctionType) -> list[Any]:
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # a name that is not bound yet
            cells.append(None)
    return cells
