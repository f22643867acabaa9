"""A hash of what makes samples: every number of a model or a guide, and every function's code, not where they lie.

The value is walked as it lies in memory: tensors by their bytes, modules by their state, functions by their code and
what they close over, other objects by their fields.  Two processes that read the same file get the same hash.
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
        _walk([c for c in value.co_consts if not isinstance(c, frozenset)], tell, seen)
    else:
        _walk_parts(value, tell, seen)


def _walk_parts(value: Any, tell: Any, seen: dict[int, tuple[int, Any]]) -> None:
    tell(f"{type(value).__module__}.{type(value).__qualname__};".encode())
    parts: Any
    if isinstance(value, nn.Module):
        # The training mode changes what some layers answer.
        parts = [str(value), value.training, dict(value.state_dict())]
    elif isinstance(value, FunctionType):
        parts = [value.__qualname__, value.__code__, *_closed_over(value), value.__defaults__]
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


def _closed_over(function: FunctionType) -> list[Any]:
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # a name that is not bound yet
            cells.append(None)
    return cells
