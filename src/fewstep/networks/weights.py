"""Weight files: safetensors with the whole description of the model inside, read whole or not at all."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fewstep.atomic import write_atomically
from fewstep.errors import WeightsError
from fewstep.networks import build

FORMAT, VERSION = "fewstep-model", 1


def write(path: str | Path, network: nn.Module, metadata: dict[str, Any], dtype: torch.dtype = torch.float16) -> None:
    """Write a network and what describes it.

    Args:
        path: the safetensors file.
        network: one of `fewstep.networks.NETWORKS`.
        metadata: JSON data: path, predicts, time, shape, range, classes, training.
        dtype: how floating-point tensors are kept; they are float32 again when read.
    """
    tensors = {
        k: v.detach().cpu().contiguous().to(dtype if v.is_floating_point() else v.dtype)
        for k, v in network.state_dict().items()
    }
    write_tensors(path, tensors, {"format": FORMAT, "version": VERSION, "network": network.config, **metadata})


def write_tensors(path: str | Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write tensors and the JSON data that describes them, {"format": …, "version": …} among it, with their hash."""
    tensors = {k: v.contiguous() for k, v in tensors.items()}
    # One entry, as safetensors writes several in no fixed order, and the same model must be the same bytes.
    described = json.dumps({**config, "sha256": content_hash(tensors, json.dumps(config))})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(tensors, {"fewstep": described}))


def content_hash(tensors: dict[str, Tensor], described: str) -> str:
    """The hash of what a file holds, of which no bit can change without it."""
    digest = hashlib.sha256(described.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def read_tensors(path: str | Path, *formats: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors in a file of one of `formats`, and what describes them.

    Raises:
        WeightsError: it is not a whole safetensors file of such a format, was changed since it was written, or a tensor
            is not finite.
    """
    if not Path(path).is_file():
        raise WeightsError(f"there is no weight file at {path}")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file: {error}") from error
    try:
        config = json.loads(metadata["fewstep"])
        known = config["format"] in formats and config["version"] == VERSION
        kept = config.pop("sha256", "")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path} holds no description of our model; another's file needs config") from error
    if not known:
        raise WeightsError(
            f"{path} is a {config['format']!r} of version {config['version']!r}; known: {', '.join(formats)} {VERSION}"
        )
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise WeightsError(f"{path}: tensor {name} holds NaN or Inf")
    if kept != content_hash(tensors, json.dumps(config)):
        raise WeightsError(f"{path}: the hash does not match the content: the file was changed since it was written")
    return tensors, config


def read(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network in a file that `write` made, in evaluation mode, and its metadata.

    Raises:
        WeightsError: it is not a whole safetensors file of ours, or a tensor is missing, extra, misshapen or not
            finite; the message names it.
    """
    tensors, config = read_tensors(path, FORMAT)
    network = build(config.get("network", {}))
    expected = network.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise WeightsError(f"{path} lacks the tensor {name}")
        if name not in expected:
            raise WeightsError(f"{path} has a tensor that the network does not: {name}")
        if tensors[name].shape != expected[name].shape:
            have, want = tuple(tensors[name].shape), tuple(expected[name].shape)
            raise WeightsError(f"{path}: tensor {name} has shape {have}, the network needs {want}")
    network.load_state_dict({k: v.to(expected[k].dtype) for k, v in tensors.items()})
    return network.eval().requires_grad_(False), config
