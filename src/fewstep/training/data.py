"""Labelled pictures in memory: from a parquet file or an npz archive."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fewstep.errors import ArgumentError, require


def read_images(path: str | Path) -> tuple[Tensor, Tensor]:
    """Pictures as uint8 (images, channels, height, width) and labels as int64 (images,).

    Args:
        path: a parquet file with columns `image` ({bytes: an encoded picture}) and `label`, or an npz with `images`
            (uint8, images × height × width × channels) and `labels`.

    Raises:
        ArgumentError: the file is missing or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise ArgumentError(f"there is no data file at {path}")
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            pictures, labels = file["images"], file["labels"]
    elif path.suffix == ".parquet":
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise require("pyarrow", "train") from error
        table = pyarrow.parquet.read_table(path, columns=["image", "label"])
        encoded = table["image"].to_pylist()
        pictures = np.stack([np.asarray(Image.open(io.BytesIO(one["bytes"]))) for one in encoded])
        labels = table["label"].to_numpy()
    else:
        raise ArgumentError(f"data must be a .parquet or .npz file, got {path.name}")
    images = torch.from_numpy(np.array(pictures, dtype=np.uint8))
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return images, torch.from_numpy(np.array(labels, dtype=np.int64))
