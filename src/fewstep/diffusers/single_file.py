"""A checkpoint in one file, as its makers published it: diffusers' own maps give its tensors their names.

The maps are those of `from_single_file`; that function itself takes what is missing in the file from chance, so that
here the converted tensors are loaded strictly.
"""

from pathlib import Path
from typing import Any

import diffusers
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fewstep.errors import ArgumentError, WeightsError

Tensors = dict[str, Tensor]


def tensors_of(file: Path) -> Tensors:
    """All tensors of a safetensors file.

    Raises:
        ArgumentError: another kind of file; only safetensors cannot run code when read.
        WeightsError: a file that is not whole.
    """
    if file.suffix != ".safetensors":
        raise ArgumentError(f"{file.name!r}: weights are read from safetensors only, for other files may run code")
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{file} is not a whole safetensors file: {error}") from error


def part_of(tensors: Tensors, file: Path, folder: Path, part: str, name: str) -> Any:
    """One network of a checkpoint.

    Args:
        tensors: all of the checkpoint.
        file: where they are from, for messages.
        folder: of the pipeline's configs.
        part: the folder in it: "unet", "transformer" or "vae".
        name: the class of the network.

    Raises:
        ArgumentError: a class that diffusers reads from no single file.
        WeightsError: tensors that are missing, of another shape or not finite, by name.
    """
    loadable: Any = SINGLE_FILE_LOADABLE_CLASSES
    if name not in loadable:
        raise ArgumentError(f"diffusers reads no {name} from a single file")
    kind = getattr(diffusers, name)
    config = kind.load_config(folder, subfolder=part)
    net = kind.from_config(config)
    own = net.state_dict()
    if set(own) <= set(tensors):
        found = {key: tensors[key] for key in own}
    else:
        try:
            found = loadable[name]["checkpoint_mapping_fn"](config=config, checkpoint=dict(tensors))
        # The maps look tensors up by the names that they know.
        except (KeyError, IndexError, ValueError, RuntimeError) as error:
            raise WeightsError(f"{file} is not a whole {name}: {error}") from error
    for what, keys in (("missing", set(own) - set(found)), ("extra", set(found) - set(own))):
        if keys:
            raise WeightsError(f"{file} is not a whole {name}: {what} {sorted(keys)[:8]}")
    for key, tensor in found.items():
        if tensor.shape != own[key].shape:
            raise WeightsError(f"{file}: tensor {key} has shape {tuple(tensor.shape)}, not {tuple(own[key].shape)}")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise WeightsError(f"{file}: tensor {key} holds NaN or Inf")
    net.load_state_dict(found, assign=True)
    return net
