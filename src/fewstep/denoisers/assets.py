"""The models that fewstep ships, and model files of ours."""

from pathlib import Path
from typing import Any

import torch

from fewstep.denoisers.wrapped import Wrapped, wrap
from fewstep.errors import WeightsError, unknown
from fewstep.networks import weights
from fewstep.paths import from_json

ASSETS = Path(__file__).parent.parent / "assets"


def shipped() -> list[str]:
    """The names of the denoisers that come with fewstep."""
    return sorted(p.stem for p in ASSETS.glob("*.safetensors") if not p.stem.endswith("-classifier"))


def load(name: str | Path, device: torch.device | str = "cpu") -> Wrapped:
    """A shipped model by its name, or a model file of ours.

    Args:
        name: a shipped name such as "mnist", or the path of a safetensors file that `fewstep train` wrote.
        device: where its weights go.

    Raises:
        ArgumentError: no model of that name; the nearest are offered.
        WeightsError: the file is not a whole model of ours.
    """
    file = ASSETS / f"{name}.safetensors" if str(name) in shipped() else Path(name)
    if not file.is_file() and file.suffix != ".safetensors":
        raise unknown("model", str(name), shipped())
    network, config = weights.read(file)
    return _wrap(network.to(device), config, file)


def _wrap(network: torch.nn.Module, config: dict[str, Any], file: Path) -> Wrapped:
    try:
        path, (low, high) = from_json(config["path"]), config["time_range"]

        def time(t: torch.Tensor) -> torch.Tensor:
            # The path's ends have λ = ±∞; the network is told the nearest value that it was trained on.
            return path.lam(t).clamp(low, high)

        return wrap(
            network, path, config["predicts"], shape=tuple(config["shape"]), time=time,
            null={"label": config["null_label"]}, limits=tuple(config["range"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{file}: the description of the model lacks or garbles {error}") from error
