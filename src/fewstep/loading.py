"""The models that fewstep ships, and files of ours, by name."""

from pathlib import Path
from typing import Any

import torch

from fewstep.checking import checked_device
from fewstep.denoisers import Bridged, Denoiser, Latent, Masked, precondition, wrap, wrap_bridge
from fewstep.denoisers.learned_variance import wrap_with_variance
from fewstep.errors import ArgumentError, WeightsError, unknown
from fewstep.networks import BridgedNetwork, LatentNetwork, MaskedNetwork, VarianceNetwork, weights
from fewstep.paths import Bridge, from_json
from fewstep.plan.hub import check_commit
from fewstep.worlds.low_rank import FORMAT as WORLD
from fewstep.worlds.low_rank import read_world

ASSETS = Path(__file__).parent / "assets"


def shipped() -> list[str]:
    """The names of the denoisers that come with fewstep."""
    return sorted(p.stem for p in ASSETS.glob("*.safetensors") if not p.stem.endswith(("-classifier", "-reference")))


def load(source: Any, device: torch.device | str = "cpu", revision: str = "", **options: Any) -> Denoiser:
    """A model: a shipped one by its name, one of a file of ours, or one of diffusers.

    Args:
        source: a shipped name such as "mnist", the path of a safetensors file that `fewstep train` wrote, the folder of
            a diffusers pipeline, a hub id such as "owner/name", a pipeline or network of diffusers itself, or, with
            `config`, a checkpoint in one safetensors file.
        device: where its weights go.
        revision: the commit of a hub id, 40 hexadecimal digits.
        options: for a diffusers model: scheduler, size, dtype, variant and config of `fewstep.diffusers.load_model`.

    Raises:
        ArgumentError: no model of that name; the nearest are offered.
        WeightsError: the file is not a whole model of ours, or the pipeline's weights are not whole.
        MissingExtraError: a diffusers model, and diffusers is not installed.
    """
    named, device = isinstance(source, (str, Path)), checked_device(device)
    if not isinstance(revision, str):
        raise ArgumentError(f"revision must be the commit of a hub id, 40 hexadecimal digits, got {revision!r}")
    file = ASSETS / f"{source}.safetensors" if str(source) in shipped() else Path(str(source))
    on_hub = str(source).count("/") == 1 and not file.exists() and file.suffix != ".safetensors"
    if not named or file.is_dir() or on_hub or (file.is_file() and "config" in options):
        if on_hub:
            check_commit(revision, f"no file or folder lies at {str(source)!r}, so it is taken for a hub id: ")
        from fewstep.diffusers import load_model

        return load_model(source, revision=revision, device=device, **options)
    if not file.is_file() and file.suffix != ".safetensors":
        if str(source).count("/") > 1 or str(source).startswith(("/", ".", "~")):
            raise ArgumentError(f"no file or folder lies at {str(source)!r}")
        kind = str(source).removesuffix("-classifier")
        if kind != str(source) and (ASSETS / f"{source}.safetensors").is_file():
            told = f"{str(source)!r} is a classifier and no denoiser"
            raise ArgumentError(f"{told}: fewstep.networks.features.load_features({kind!r}).network")
        raise unknown("model", str(source), shipped())
    if revision or options:
        given = sorted({**({"revision": revision} if revision else {}), **options})
        raise ArgumentError(
            f"{', '.join(given)}: only a diffusers model takes these, and {str(source)!r} is a file: a checkpoint of "
            "another's in one file needs config"
        )
    denoiser = _read(file, device)
    denoiser.name = str(source) if str(source) in shipped() else ""
    return denoiser


def _read(file: Path, device: torch.device | str) -> Denoiser:
    _, config = weights.read_tensors(file, weights.FORMAT, WORLD)
    try:
        if config["format"] == WORLD:
            return read_world(file).denoiser(from_json(config["path"]), limits=tuple(config["range"]))
        network = weights.read(file)[0].to(device)
        path, (low, high) = from_json(config["path"]), config["time_range"]

        def time(t: torch.Tensor) -> torch.Tensor:
            # The path's ends have λ = ±∞; the network is told the nearest value that it was trained on.
            return path.lam(t).clamp(low, high)

        if isinstance(network, BridgedNetwork) and isinstance(path, Bridge):
            return _bridged(network, path, config)
        made = wrap_with_variance if isinstance(network, VarianceNetwork) else wrap
        denoiser = made(
            network.network if isinstance(network, LatentNetwork) else network, path, config["predicts"],
            shape=tuple(config["shape"]), time=time, null={"label": config["null_label"]},
            limits=tuple(config["range"]),
        )  # fmt: skip
        if isinstance(network, LatentNetwork):
            return Latent(denoiser, network.encode, network.decode, tuple(config["picture"]))
        return Masked(denoiser) if isinstance(network, MaskedNetwork) else denoiser
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{file}: the description of the model lacks or garbles {error}") from error


def _bridged(network: BridgedNetwork, path: Bridge, config: dict[str, Any]) -> Bridged:
    """The restoration model that a file describes."""
    told: dict[str, Any] = {"shape": tuple(config["shape"]), "limits": tuple(config["range"])}
    if "balance" in config:
        data, degraded, covariance = config["balance"]
        net = precondition(network, path, data, degraded, covariance, level=path.lam)
        return wrap_bridge(net, path, config["predicts"], time="t", **told)
    parts = network.parts()
    nets = (parts[0], parts[1]) if len(parts) == 2 else parts[0]
    return wrap_bridge(nets, path, config["predicts"], time="lambda", **told)
