"""The models that fewstep ships, and files of ours, by name."""

from pathlib import Path

import torch

from fewstep.denoisers import Denoiser, Latent, Masked, wrap
from fewstep.errors import WeightsError, unknown
from fewstep.networks import LatentNetwork, MaskedNetwork, weights
from fewstep.paths import from_json
from fewstep.worlds.low_rank import FORMAT as WORLD
from fewstep.worlds.low_rank import read_world

ASSETS = Path(__file__).parent / "assets"


def shipped() -> list[str]:
    """The names of the denoisers that come with fewstep."""
    return sorted(p.stem for p in ASSETS.glob("*.safetensors") if not p.stem.endswith("-classifier"))


def load(name: str | Path, device: torch.device | str = "cpu", revision: str = "") -> Denoiser:
    """A model by its name: a shipped one, a file of ours, or a diffusers model.

    Args:
        name: a shipped name such as "mnist", the path of a safetensors file that `fewstep train` wrote, the folder of a
            diffusers pipeline, or a hub id such as "owner/name".
        device: where its weights go.
        revision: the commit of a hub id, 40 hexadecimal digits.

    Raises:
        ArgumentError: no model of that name; the nearest are offered.
        WeightsError: the file is not a whole model of ours, or the pipeline's weights are not whole.
        MissingExtraError: a diffusers model, and diffusers is not installed.
    """
    file = ASSETS / f"{name}.safetensors" if str(name) in shipped() else Path(name)
    if file.is_dir() or (str(name).count("/") == 1 and not file.exists() and file.suffix != ".safetensors"):
        from fewstep.diffusers import load_model

        return load_model(str(name), revision=revision, device=device)
    if not file.is_file() and file.suffix != ".safetensors":
        raise unknown("model", str(name), shipped())
    denoiser = _read(file, device)
    denoiser.name = str(name) if str(name) in shipped() else ""
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

        denoiser = wrap(
            network.network if isinstance(network, LatentNetwork) else network, path, config["predicts"],
            shape=tuple(config["shape"]), time=time, null={"label": config["null_label"]},
            limits=tuple(config["range"]),
        )  # fmt: skip
        if isinstance(network, LatentNetwork):
            return Latent(denoiser, network.encode, network.decode, tuple(config["picture"]))
        return Masked(denoiser) if isinstance(network, MaskedNetwork) else denoiser
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{file}: the description of the model lacks or garbles {error}") from error
