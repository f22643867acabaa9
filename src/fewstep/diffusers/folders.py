"""A pipeline's folder, here or from the hub at one commit, and its networks: safetensors only, and only whole."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from fewstep.diffusers.architectures import CALLS
from fewstep.diffusers.plan_scheduler import PlanScheduler
from fewstep.errors import ArgumentError, WeightsError, unknown
from fewstep.plan.hub import FILE as PLAN
from fewstep.plan.hub import check_commit, is_hub_id

VAES = ("AutoencoderKL", "AutoencoderKLCogVideoX")


def folder_of(name: str, revision: str, variant: str | None, weights: bool = True) -> Path:
    """The folder of that name, or the hub's files of one commit.

    Args:
        name: a folder, or a hub id.
        revision: the commit of a hub id.
        variant: which of several files there are of the same weights.
        weights: whether those of the network and the autoencoder are wanted too.

    Raises:
        ArgumentError: neither a folder nor a hub id with its commit, or the hub has it not.
    """
    folder = Path(name)
    if folder.is_dir():
        if revision:
            raise ArgumentError(f"{name!r} is a folder here: a revision, {revision!r}, is of a hub id")
        return folder
    if not is_hub_id(name):
        raise ArgumentError(f"{name!r} is neither a folder nor a hub id like 'owner/model'")
    check_commit(revision)
    return _download(name, revision, variant, weights)


def parts_of(folder: Path, read: Callable[[str, str], Any]) -> tuple[Any, Any, Any]:
    """(network, autoencoder or None, scheduler's config) of a pipeline's folder.

    Args:
        folder: the folder.
        read: read(part, class) → the network of that class in that part of the pipeline.

    Raises:
        ArgumentError: it is no pipeline's folder, or a class that we do not know.
    """
    try:
        index = DiffusionPipeline.load_config(folder)
        scheduler = PlanScheduler.load_config(folder, subfolder="scheduler")
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{folder} is no pipeline's folder: {error}") from error
    part = "unet" if "unet" in index else "transformer"
    net = read(part, _known((index.get(part) or [None, None])[1]))
    named = (index.get("vae") or [None, None])[1]
    return net, None if named is None else read("vae", _known(named)), scheduler


def _known(name: str | None) -> str:
    if name is None or name not in (*CALLS, *VAES):
        raise unknown("diffusers network", name, [*CALLS, *VAES])
    return name


def _download(name: str, revision: str, variant: str | None, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    texts = ("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3")
    ending = "safetensors" if variant is None else f"{variant}*.safetensors"
    files = ("*.json", "*.txt", "*.model", f"*.{ending}")
    wanted = [f"{part}/{file}" for part in ("scheduler", "unet", "transformer", "vae", *texts) for file in files]
    others = [] if weights else [f"{part}/*.safetensors" for part in ("unet", "transformer", "vae")]
    others += ["*.fp16*.safetensors", "*.bf16*.safetensors", "*.non_ema*.safetensors"] if variant is None else []
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=["model_index.json", PLAN, *wanted], ignore_patterns=others
            )
        )
    # The hub's own errors are of this kind, as those of the disk and the network are.
    except OSError as error:
        raise ArgumentError(f"{name!r} at commit {revision} cannot be had from the hub: {error}") from error


def whole(folder: Path, name: str, variant: str | None) -> Any:
    """A network from a folder: safetensors only, every tensor there, none extra, all finite."""
    import diffusers

    try:
        net, info = getattr(diffusers, name).from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, low_cpu_mem_usage=False, variant=variant
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{folder} is not a whole {name}: {error}") from error
    for what, found in info.items():
        if found:
            raise WeightsError(f"{folder} is not a whole {name}: {what} {list(found)[:8]}")
    _refuse_changed(folder)
    for key, tensor in net.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise WeightsError(f"{folder}: tensor {key} holds NaN or Inf")
    return net


def _refuse_changed(folder: Path) -> None:
    """Weights from the hub lie in its cache under the SHA-256 that the hub has of them; a plain folder has none."""
    for file in sorted(folder.glob("*.safetensors")):
        kept = file.resolve()
        if re.fullmatch(r"[0-9a-f]{64}", kept.name):
            with kept.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != kept.name:
                raise WeightsError(f"{file} was changed: its SHA-256 is {found}, the hub's {kept.name}")
