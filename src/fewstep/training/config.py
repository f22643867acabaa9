"""What a training run is: one TOML file read into one frozen dataclass."""

import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fewstep.errors import ArgumentError, unknown


@dataclass(frozen=True)
class TrainingConfig:
    """A training run.

    Args:
        network: {"kind": …} and the arguments of that network.
        path: {"kind": …} and the parameters of that path.
        predicts: what the network predicts: "x0", "eps", "v" or "flow".
        images: how many images the run sees.
        batch: images a step.
        rate: the peak learning rate; 500 steps of warm-up, then a cosine down to 0.
        ema: the decay of the running mean of the weights, which is what ships.
        dropout: the share of labels replaced by the null label.
        flip: mirror half of the images.
        lam_mean, lam_std: the half-log-SNR is drawn from this normal law in 9 cases of 10, else uniformly.
        seed: seeds everything.
    """

    network: dict[str, Any]
    path: dict[str, Any]
    predicts: str
    images: int
    batch: int = 64
    rate: float = 1e-3
    ema: float = 0.999
    dropout: float = 0.1
    flip: bool = False
    lam_mean: float = 1.0
    lam_std: float = 1.6
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images < self.batch or self.batch < 1:
            raise ArgumentError(f"images must be at least batch, and batch at least 1; got {self.images}, {self.batch}")

    def to_json(self) -> dict[str, Any]:
        """The run as plain data."""
        return asdict(self)


def read_config(path: str | Path) -> TrainingConfig:
    """The training run in a TOML file.

    Raises:
        ArgumentError: the file is missing, is no TOML, has an unknown key or lacks one.
    """
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ArgumentError(f"cannot read the training config {path}: {error}") from error
    known = [f.name for f in fields(TrainingConfig)]
    for key in data:
        if key not in known:
            raise unknown(f"key in {path}", key, known)
    try:
        return TrainingConfig(**data)
    except TypeError as error:
        raise ArgumentError(f"training config {path}: {error}") from error
