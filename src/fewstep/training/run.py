"""A training run from files: a config, pictures to learn from and, for some networks, pictures to be measured on."""

from pathlib import Path

import torch
from torch import Tensor

from fewstep.errors import ArgumentError, unknown
from fewstep.training.ambient import masked
from fewstep.training.autoencode import Autoencoding
from fewstep.training.bridges import Restoring
from fewstep.training.classify import Classifying
from fewstep.training.config import (
    AnyConfig,
    AutoencoderConfig,
    BridgeConfig,
    ClassifierConfig,
    HybridConfig,
    TrainingConfig,
    read_config,
)
from fewstep.training.data import class_names, read_images
from fewstep.training.denoising import Denoising
from fewstep.training.hybrid import HybridDenoising
from fewstep.training.latents import latent
from fewstep.training.trainer import Task, train


def task_of(
    config: AnyConfig, images: Tensor, labels: Tensor, test: tuple[Tensor, Tensor] | None = None, device: str = "cpu"
) -> Task:
    """The task that a config describes, on these pictures.

    Args:
        config: the run; its kind and that of its network say which task.
        images: uint8 (images, channels, height, width).
        labels: int64 (images,), each in 0 … classes − 1.
        test: pictures and labels that a classifier or an autoencoder is measured on.
        device: where latents are encoded.

    Raises:
        ArgumentError: the pictures do not fit the config.
    """
    match config:
        case BridgeConfig():
            return Restoring(config, images, labels)
        case HybridConfig():
            return HybridDenoising(config, images, labels)
        case AutoencoderConfig():
            return Autoencoding(config, images, labels, None if test is None else test[0])
        case ClassifierConfig():
            return Classifying(config, images, labels, test)
    if config.autoencoder:
        return latent(config, images, labels, device)
    return (masked if config.network.get("kind") == "masked" else Denoising)(config, images, labels)


def choose_device(name: str | None) -> str:
    """The device of that name; without a name the fastest kind that is there.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps", or None.

    Raises:
        ArgumentError: this machine has no such device.
    """
    there = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    if name is not None and name.split(":")[0] not in there:
        raise unknown("device", name, there)
    return there[0] if name is None else name


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
    judged_on = None if test is None else read_images(test)
    if isinstance(settings, ClassifierConfig) and test is not None and told != class_names(test):
        raise ArgumentError(f"the classes of {test} are {class_names(test)}, those of {data} are {told}")
    return train(task_of(settings, images, labels, judged_on, chosen), out, names, device=chosen)
