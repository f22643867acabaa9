"""What a tuning keeps across a kill: JSON data and tensors, as one safetensors file written atomically."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.networks.weights import VERSION, read_tensors, write_tensors

FORMAT = "fewstep-tuning"
MARK = "a tensor of this file"


def copied(data: Any) -> Any:
    """JSON data with its tensors, none of them shared with the original.

    Raises:
        ArgumentError: something that a file cannot keep.
    """
    if isinstance(data, Tensor):
        return data.detach().cpu().clone()
    if isinstance(data, dict):
        return {str(k): copied(v) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [copied(v) for v in data]
    if data is None or isinstance(data, (bool, int, float, str)):
        return data
    raise ArgumentError(f"a tuning can keep numbers, strings, lists, dicts and tensors, got {type(data).__name__}")


def _pack(data: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(data, Tensor):
        name = str(len(tensors))
        tensors[name] = data.contiguous()
        return {MARK: name}
    if isinstance(data, dict):
        return {k: _pack(v, tensors) for k, v in data.items()}
    return [_pack(v, tensors) for v in data] if isinstance(data, list) else data


def _unpack(data: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(data, dict):
        if set(data) == {MARK}:
            return tensors[data[MARK]]
        return {k: _unpack(v, tensors) for k, v in data.items()}
    return [_unpack(v, tensors) for v in data] if isinstance(data, list) else data


def write(path: str | Path, job: dict[str, Any], data: dict[str, Any]) -> None:
    """Write what was kept, and the job that it belongs to; a reader sees the old file or the whole new one."""
    tensors: dict[str, Tensor] = {}
    packed = _pack(copied(data), tensors)
    # A safetensors file without tensors is not one.
    write_tensors(path, tensors or {"none": torch.zeros(1)}, {
        "format": FORMAT, "version": VERSION, "job": job, "data": packed,
    })  # fmt: skip


def read(path: str | Path, job: dict[str, Any]) -> dict[str, Any]:
    """What was kept in a file, empty where there is none yet.

    Raises:
        ArgumentError: the file is of another job; the message says in what they differ.
        WeightsError: the file is not whole, or no checkpoint of a tuning.
    """
    if not Path(path).exists():
        return {}
    tensors, config = read_tensors(path, FORMAT)
    known: dict[str, Any] = config.get("job", {})
    differ = [k for k in sorted({*known, *job}) if known.get(k) != job.get(k)]
    if differ:
        told = "; ".join(f"{k} was {known.get(k)!r} and is {job.get(k)!r}" for k in differ)
        raise ArgumentError(f"the checkpoint {path} is of another tuning: {told}; name another file")
    found: dict[str, Any] = _unpack(config["data"], tensors)
    return found
