"""A shard: the samples first … first + count − 1 as one file, whose bytes depend on them alone.

`safetensors`: the tensor `x` (count, *shape) in the range of the data, and every condition that has one number a
sample.  `png`: a tar of one picture a sample, `000000007.png`, and beside it `000000007.label` with the number of each
such condition, as readers of such archives expect; no dates and no owners.
"""

import errno
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import save
from torch import Tensor

from fewstep.errors import ArgumentError, FewstepError, StorageError
from fewstep.pictures import as_bytes

ENDINGS = {"safetensors": "safetensors", "png": "tar"}


@dataclass(frozen=True)
class Record:
    """What is known of a finished shard.

    Args:
        index: its number from 0.
        first, count: its samples.
        bytes, sha256: of its file.
        batch: the batch size that it ended with: smaller than the run's where the memory was short.
        batches: the batches as they ran, [size, how often] in order.
    """

    index: int
    first: int
    count: int
    bytes: int
    sha256: str
    batch: int
    batches: list[list[int]]


def name_of(index: int, files: str) -> str:
    """The file name of a shard."""
    return f"shard-{index:07d}.{ENDINGS[files]}"


def pack(x: Tensor, numbers: Mapping[str, Tensor], first: int, files: str, limits: tuple[float, float]) -> bytes:
    """The bytes of a shard's file.

    Args:
        x: (count, *shape), the samples.
        numbers: conditions of one whole number a sample, (count,) each.
        first: the number of the first sample.
        files: "safetensors" or "png".
        limits: the range of the data, for pictures.
    """
    if files == "safetensors":
        tensors = {"x": x.contiguous().cpu(), **{k: v.contiguous().cpu() for k, v in numbers.items()}}
        return save(tensors, {"fewstep": json.dumps({"first": first, "count": len(x), "limits": limits})})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row, picture in enumerate(as_bytes(x, limits).permute(0, 2, 3, 1).numpy()):
            image, png = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture), io.BytesIO()
            image.save(png, format="PNG")
            entries = {"png": png.getvalue(), **{k: str(int(v[row])).encode() for k, v in numbers.items()}}
            for ending, data in entries.items():
                entry = tarfile.TarInfo(f"{first + row:09d}.{ending}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def check_files(files: str, shape: tuple[int, ...]) -> None:
    """Refuse a kind of file that does not hold samples of this shape."""
    if files not in ENDINGS:
        raise ArgumentError(f"files must be one of {', '.join(ENDINGS)}, got {files!r}")
    if files == "png" and (len(shape) != 3 or shape[0] not in (1, 3)):
        raise ArgumentError(f"files='png' needs pictures of shape (1 or 3, height, width); the model has {shape}")


def folder_of(out: str | Path) -> Path:
    """The folder of a run, absolute.

    Raises:
        ArgumentError: it is no path.
    """
    if not isinstance(out, (str, Path)) or "\0" in str(out):
        raise ArgumentError(f"out must be the path of a folder, got {out!r}")
    return Path(out).absolute()


@contextmanager
def storing(folder: Path) -> Iterator[None]:
    """A context in which what the system refuses is said in our words.

    Raises:
        StorageError: the disk is full, the folder cannot be written, or the device failed.
    """
    try:
        yield
    except FewstepError:
        raise
    except OSError as error:
        raise _refused(folder, error) from error


def _refused(folder: Path, error: OSError) -> StorageError:
    go_on = "what is finished is kept, and the same call goes on from there"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"the disk of {folder} is full; free some of it; {go_on}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(f"{folder} cannot be written: {error.strerror}")
    return StorageError(f"cannot write in {folder}: {error}; {go_on}")


def hash_of(data: bytes) -> str:
    """The SHA-256 of a shard's bytes."""
    return hashlib.sha256(data).hexdigest()


def damage(folder: Path, record: Record, files: str) -> str:
    """What is wrong with a shard's file, or nothing; it is read whole."""
    name = name_of(record.index, files)
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    if len(data) != record.bytes:
        return f"{name} has {len(data)} bytes instead of {record.bytes}"
    return "" if hash_of(data) == record.sha256 else f"{name} was changed: its hash is not the manifest's"


def as_record(data: Any) -> Record:
    """The record in JSON data.

    Raises:
        ValueError, TypeError: it is not one.
    """
    record = Record(**data)
    numbers = [record.index, record.first, record.count, record.bytes, record.batch]
    if not all(isinstance(n, int) and n >= 0 for n in numbers) or not isinstance(record.sha256, str):
        raise ValueError("a record holds whole numbers and a hash")
    return record
