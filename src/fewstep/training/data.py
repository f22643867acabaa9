"""Labelled pictures in memory: from a folder of pictures, a parquet file or an npz archive."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewstep.errors import ArgumentError, require

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
Pictures = NDArray[np.uint8]


def read_images(path: str | Path) -> tuple[Tensor, Tensor]:
    """Pictures as uint8 (images, channels, height, width) and labels as int64 (images,).

    Pictures have 1 channel where all of them are grey, else 3.

    Args:
        path: a folder of pictures (.png, .jpg, .jpeg, .webp, .bmp), either one folder a class, whose labels are 0, 1, …
            in the sorted order of their names, or flat, with label 0 for all; a parquet file with columns `image`
            ({bytes: an encoded picture}) and `label`; or an npz with `images` (uint8, images × height × width × 3, or
            images × height × width where they are grey) and `labels`.

    Raises:
        ArgumentError: the data is missing, damaged, of another kind, or its pictures differ in size; the message names
            the file.
        MissingExtraError: a parquet file, and pyarrow is not installed.
    """
    path = Path(path)
    if path.is_dir():
        pictures, labels = _folder(path)
    elif not path.is_file():
        raise ArgumentError(f"there is no data file at {path}")
    elif path.suffix == ".npz":
        pictures, labels = _npz(path)
    elif path.suffix == ".parquet":
        pictures, labels = _parquet(path)
    else:
        raise ArgumentError(f"data must be a folder of pictures, a .parquet or an .npz file, got {path.name}")
    images = torch.from_numpy(pictures)
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return images, torch.from_numpy(np.array(labels, dtype=np.int64))


def class_names(path: str | Path) -> list[str]:
    """The names of the classes in the order of their labels; empty where the data has none.

    Args:
        path: as in `read_images`: class folders have names, and parquet files whose schema tells them.
    """
    path = Path(path)
    if path.is_dir():
        return [folder.name for folder in _class_folders(path)]
    if path.suffix != ".parquet" or not path.is_file():
        return []
    try:
        told = json.loads(_pyarrow_parquet().read_schema(path).metadata[b"huggingface"])
        return list(map(str, told["info"]["features"]["label"]["names"]))
    except (TypeError, KeyError, ValueError, OSError):  # names are an extra; damage is told of by read_images
        return []


def _class_folders(path: Path) -> list[Path]:
    return sorted(one for one in path.iterdir() if one.is_dir() and not one.name.startswith("."))


def _folder(path: Path) -> tuple[Pictures, list[int]]:
    classes = _class_folders(path)
    flat = [(file, 0) for file in _picture_files(path)]
    if flat and classes:
        raise ArgumentError(
            f"{path} has both pictures ({flat[0][0].name}) and folders ({classes[0].name}); sort them in"
        )
    found = flat + [(file, label) for label, folder in enumerate(classes) for file in _picture_files(folder)]
    if not found:
        raise ArgumentError(f"there are no pictures ({', '.join(SUFFIXES)}) in {path}")
    return _stack([_decode(file, str(file)) for file, _ in found], [str(file) for file, _ in found]), [
        label for _, label in found
    ]


def _picture_files(path: Path) -> list[Path]:
    return sorted(one for one in path.iterdir() if one.suffix.lower() in SUFFIXES and not one.name.startswith("."))


def _decode(source: Path | BinaryIO, name: str) -> Pictures:
    """A picture of 8 bits: (height, width) if it is grey, else (height, width, 3)."""
    try:
        with Image.open(source) as picture:
            if picture.mode.startswith(("I", "F")):
                raise ArgumentError(f"{name} has mode {picture.mode}; pictures of 8 bits a channel are read")
            return np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ArgumentError(f"{name} is not a whole picture: {error}") from error


def _stack(pictures: list[Pictures], names: list[str]) -> Pictures:
    first = pictures[0].shape[:2]
    for picture, name in zip(pictures, names, strict=True):
        if picture.shape[:2] != first:
            (height, width), (high, wide) = picture.shape[:2], first
            raise ArgumentError(
                f"all pictures must have one size: {name} is {height}×{width}, {names[0]} {high}×{wide}"
            )
    if len({picture.ndim for picture in pictures}) == 2:
        pictures = [one if one.ndim == 3 else np.repeat(one[:, :, None], 3, axis=2) for one in pictures]
    return np.stack(pictures)


def _npz(path: Path) -> tuple[Pictures, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            pictures, labels = file["images"], file["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ArgumentError(f"{path} is not a whole npz archive of images and labels: {error}") from error
    if pictures.dtype != np.uint8 or pictures.ndim not in (3, 4):
        raise ArgumentError(
            f"{path}: images must be uint8 of 3 or 4 dimensions, got {pictures.dtype} of shape {pictures.shape}"
        )
    return pictures, labels


def _parquet(path: Path) -> tuple[Pictures, Any]:
    try:
        table = _pyarrow_parquet().read_table(path, columns=["image", "label"])
        encoded, labels = table["image"].to_pylist(), table["label"].to_numpy()
    except (OSError, ValueError, KeyError) as error:
        raise ArgumentError(f"{path} is not a whole parquet file with columns image and label: {error}") from error
    if not encoded:
        raise ArgumentError(f"there are no pictures in {path}")
    names = [f"picture {row} of {path}" for row in range(len(encoded))]
    decoded = [_decode(io.BytesIO(one["bytes"]), name) for one, name in zip(encoded, names, strict=True)]
    return _stack(decoded, names), labels


def _pyarrow_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise require("pyarrow", "train") from error
    return pyarrow.parquet
