"""A training run from files: a config, pictures to learn from and, for some networks, pictures to be measured on."""

from pathlib import Path

from fewstep.errors import ArgumentError
from fewstep.training.ambient import train_ambient
from fewstep.training.autoencode import train_autoencoder
from fewstep.training.bridges import train_bridge
from fewstep.training.classify import train_classifier
from fewstep.training.config import (
    AutoencoderConfig,
    BridgeConfig,
    ClassifierConfig,
    HybridConfig,
    TrainingConfig,
    read_config,
)
from fewstep.training.data import class_names, read_images
from fewstep.training.hybrid import train_hybrid
from fewstep.training.latents import train_latent
from fewstep.training.loop import train
from fewstep.training.trainer import choose_device


def train_from_files(
    config: str | Path, data: str | Path, out: str | Path, test: str | Path | None = None, device: str | None = None
) -> Path:
    """Train what a config describes on the pictures of a file or folder; the model file.

    Args:
        config: a TOML file, see `read_config`.
        data: pictures and labels, see `read_images`; its class names are kept where it has any.
        out: a folder; `checkpoint.pt` there is resumed from, `model.safetensors` is the result.
        test: pictures that a classifier or an autoencoder is measured on.
        device: "cpu", "cuda", "mps"; the fastest there is unless given.

    Raises:
        ArgumentError: a file cannot be read, or they do not fit one another.
    """
    settings, chosen = read_config(config), choose_device(device)
    if test is not None and isinstance(settings, (TrainingConfig, BridgeConfig)):
        raise ArgumentError(f"test pictures are for classifiers and autoencoders; {config} describes a denoiser")
    (images, labels), told = read_images(data), class_names(data)
    names = told or [str(label) for label in range(settings.network.get("classes", int(labels.max()) + 1))]
    if isinstance(settings, BridgeConfig):
        return train_bridge(settings, images, labels, out, names, device=chosen)
    if isinstance(settings, HybridConfig):
        return train_hybrid(settings, images, labels, out, names, device=chosen)
    if isinstance(settings, AutoencoderConfig):
        held_out = None if test is None else read_images(test)[0]
        return train_autoencoder(settings, images, labels, out, names, held_out, device=chosen)
    if not isinstance(settings, ClassifierConfig):
        masked = settings.network.get("kind") == "masked"
        learn = train_latent if settings.autoencoder else train_ambient if masked else train
        return learn(settings, images, labels, out, names, device=chosen)
    if test is not None and told != class_names(test):
        raise ArgumentError(f"the classes of {test} are {class_names(test)}, those of {data} are {told}")
    judged_on = None if test is None else read_images(test)
    return train_classifier(settings, images, labels, out, names, judged_on, device=chosen)
