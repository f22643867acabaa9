"""What a training run is: one TOML file read into one frozen dataclass."""

import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fewstep.errors import ArgumentError, unknown


def _check(images: int, batch: int, precision: str) -> None:
    if images < batch or batch < 1:
        raise ArgumentError(f"images must be at least batch, and batch at least 1; got {images}, {batch}")
    if precision not in ("float32", "bfloat16"):
        raise ArgumentError(f"precision must be float32 or bfloat16, got {precision!r}")


@dataclass(frozen=True)
class TrainingConfig:
    """The training of a denoiser.

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
        precision: "float32", or "bfloat16" for the network's own arithmetic (weights and loss stay float32).
        autoencoder: the file of a trained autoencoder, for a denoiser of its latents; none unless given.
        hidden: for a network of kind "masked": the share of every picture that is hidden for good.
        further: for such a network: the share of the rest that a step hides from it as well.
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
    precision: str = "float32"
    autoencoder: str = ""
    hidden: float = 0.0
    further: float = 0.0

    def __post_init__(self) -> None:
        _check(self.images, self.batch, self.precision)

    def to_json(self) -> dict[str, Any]:
        """The run as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class HybridConfig(TrainingConfig):
    """The training of a denoiser that also learns the variance of its steps, by the hybrid loss.

    `lam_mean` and `lam_std` are not used: times are those of the chain.  The rest is as in `TrainingConfig`.

    Args:
        network: {"kind": "variance"} and its arguments.
        steps: the steps of the chain that the bound is of, at even times.
        bound: the weight of the bound in the loss, at least 0.
        importance: draw steps as often as their losses are large, rather than evenly.
        history: by how many of its last losses a step is then judged, at least 1.
    """

    steps: int = 1000
    bound: float = 1e-3
    importance: bool = False
    history: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 2 or not self.bound >= 0 or self.history < 1 or self.autoencoder or self.hidden:
            raise ArgumentError(
                "a learned variance needs steps of at least 2, bound at least 0, history at least 1, pictures that are "
                f"not hidden and no autoencoder; got {self.steps}, {self.bound}, {self.history}, {self.hidden}, "
                f"{self.autoencoder!r}"
            )


@dataclass(frozen=True)
class ClassifierConfig:
    """The training of a classifier.

    Args:
        network: {"kind": "classifier"} and its arguments.
        images: how many images the run sees.
        batch: images a step.
        rate: the learning rate of the first step; it falls linearly to 0.
        weight_decay: the weight of ‖weights‖²/2 in what is minimised, at least 0.
        smoothing: the share of the label that is spread over all classes, in [0, 1).
        shift: images are moved by up to so many pixels each way, at least 0.
        flip: mirror half of the images.
        seed: seeds everything.
        precision: "float32", or "bfloat16" for the network's own arithmetic (weights and loss stay float32).
    """

    network: dict[str, Any]
    images: int
    batch: int = 128
    rate: float = 0.1
    weight_decay: float = 0.0
    smoothing: float = 0.05
    shift: int = 2
    flip: bool = False
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        _check(self.images, self.batch, self.precision)
        if not 0 <= self.smoothing < 1 or self.weight_decay < 0 or self.shift < 0:
            raise ArgumentError(
                "smoothing must be in [0, 1), weight_decay and shift at least 0; "
                f"got {self.smoothing}, {self.weight_decay}, {self.shift}"
            )

    def to_json(self) -> dict[str, Any]:
        """The run as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class AutoencoderConfig:
    """The training of an autoencoder.

    Args:
        network: {"kind": "vae"} and its arguments.
        images: how many images the run sees.
        batch: images a step.
        rate: the peak learning rate; 500 steps of warm-up, then a cosine down to 0.
        kl: the weight of the divergence from N(0, I) of a latent number, at least 0; small, for sharp pictures.
        ema: the decay of the running mean of the weights, which is what ships.
        flip: mirror half of the images.
        seed: seeds everything.
        precision: "float32", or "bfloat16" for the network's own arithmetic (weights and loss stay float32).
    """

    network: dict[str, Any]
    images: int
    batch: int = 64
    rate: float = 1e-3
    kl: float = 1e-4
    ema: float = 0.998
    flip: bool = False
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        _check(self.images, self.batch, self.precision)
        if not self.kl >= 0:
            raise ArgumentError(f"kl must be at least 0, got {self.kl!r}")

    def to_json(self) -> dict[str, Any]:
        """The run as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class BridgeConfig:
    """The training of a restoration network on a bridge.

    Args:
        network: {"kind": "bridged"} and its arguments.
        path: {"kind": …} and the parameters of that bridge.
        predicts: "x0", "residual", "eps", "flow" or "velocity", or "residual+eps" for a network of two answers.
        degrade: what makes the degraded picture, "kind" or "kind:number" as `fewstep restore` names it.
        images: how many images the run sees.
        noise: the deviation of the noise that is added to the degraded picture, at least 0.
        balanced: whether a network that predicts "x0" has `precondition` around it, with the moments of the data.
        perceptual: for a network that predicts "x0" and is not balanced: the weight of the squared distance to x₀ in
            the features of a classifier, at least 0.
        features: that classifier: "mnist", "cifar10" or a file; none unless given.
        batch: images a step.
        rate: the peak learning rate; 500 steps of warm-up, then a cosine down to 0.
        ema: the decay of the running mean of the weights, which is what ships.
        flip: mirror half of the images.
        seed: seeds everything.
        precision: "float32", or "bfloat16" for the network's own arithmetic (weights and loss stay float32).
    """

    network: dict[str, Any]
    path: dict[str, Any]
    predicts: str
    degrade: str
    images: int
    noise: float = 0.0
    balanced: bool = False
    perceptual: float = 0.0
    features: str = ""
    batch: int = 64
    rate: float = 1e-3
    ema: float = 0.999
    flip: bool = False
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        _check(self.images, self.batch, self.precision)
        if not self.noise >= 0 or (self.balanced and self.predicts != "x0"):
            raise ArgumentError(
                "noise must be at least 0, and what is balanced predicts x0; "
                f"got noise={self.noise!r}, balanced={self.balanced}, predicts={self.predicts!r}"
            )
        seen = self.predicts == "x0" and not self.balanced and bool(self.features)
        if not self.perceptual >= 0 or (self.perceptual and not seen):
            raise ArgumentError(
                "perceptual must be at least 0 and takes features and a network that predicts x0 and is not balanced; "
                f"got perceptual={self.perceptual!r}, features={self.features!r}"
            )

    def to_json(self) -> dict[str, Any]:
        """The run as plain data."""
        return asdict(self)


AnyConfig = TrainingConfig | ClassifierConfig | AutoencoderConfig | BridgeConfig
# What a network is trained as, by its kind; every other kind is a denoiser.
OTHERS: dict[str, type[AnyConfig]] = {
    "classifier": ClassifierConfig, "vae": AutoencoderConfig, "bridged": BridgeConfig, "variance": HybridConfig,
}  # fmt: skip


def read_config(path: str | Path) -> AnyConfig:
    """The training run in a TOML file: of what its network is, which for most kinds is a denoiser.

    Raises:
        ArgumentError: the file is missing, is no TOML, has an unknown key or lacks one.
    """
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ArgumentError(f"cannot read the training config {path}: {error}") from error
    network = data.get("network", {})
    if not isinstance(network, dict):
        raise ArgumentError(f"training config {path}: network must be a table, got {network!r}")
    cls: type[AnyConfig] = OTHERS.get(str(network.get("kind")), TrainingConfig)
    known = [f.name for f in fields(cls)]
    for key in data:
        if key not in known:
            raise unknown(f"key in {path}", key, known)
    try:
        return cls(**data)
    except TypeError as error:
        raise ArgumentError(f"training config {path}: {error}") from error
