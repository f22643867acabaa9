"""Restoring a picture file: what `fewstep restore` does, from the file to the samples, their mean and their deviation.

A degradation is named as "kind" or "kind:number", such as "blur:1.5".
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fewstep.denoisers import Denoiser
from fewstep.denoisers.classes import classes_of, labelled
from fewstep.denoisers.reported import reported
from fewstep.errors import ArgumentError, unknown
from fewstep.pictures import grid_of
from fewstep.restoration.measurement import Measurement
from fewstep.restoration.measurement_noise import Gaussian
from fewstep.restoration.operators import (
    AverageDownsample,
    BicubicDownsample,
    Blur,
    Clipping,
    Grey,
    Mask,
    Operator,
    PhaseRetrieval,
    Tomography,
)
from fewstep.restoration.restoring import Restored, restore

Maker = Callable[[int, int, float | None], Operator]


def _whole(number: float | None, default: int) -> int:
    if number is not None and number != int(number):
        raise ArgumentError(f"this degradation takes a whole number, got {number}")
    return default if number is None else int(number)


def _or(number: float | None, default: float) -> float:
    return default if number is None else number


DEGRADATIONS: dict[str, Maker] = {
    "none": lambda h, w, v: Mask(torch.ones(h, w)),
    "half": lambda h, w, v: Mask.half(h, w),
    "box": lambda h, w, v: Mask.box(h, w, h // 4, w // 4, _whole(v, min(h, w) // 2)),
    "random": lambda h, w, v: Mask.random(h, w, _or(v, 0.3)),
    "blur": lambda h, w, v: Blur.gaussian(_or(v, 1.5)),
    "motion": lambda h, w, v: Blur.motion(_or(v, 7.0), 30.0),
    "downsample": lambda h, w, v: AverageDownsample(_whole(v, 4)),
    "bicubic": lambda h, w, v: BicubicDownsample(_whole(v, 4)),
    "grey": lambda h, w, v: Grey(),
    "tomography": lambda h, w, v: Tomography(h, _whole(v, 8)),
    "phase": lambda h, w, v: PhaseRetrieval(_or(v, 2.0), light=True),
    "clip": lambda h, w, v: Clipping() if v is None else Clipping(v),
}


def degradation(text: str, height: int, width: int) -> Operator:
    """The operator of "kind" or "kind:number" for pictures of a size.

    Raises:
        ArgumentError: the kind is unknown, or its number is out of range.
    """
    kind, _, number = text.partition(":")
    if kind not in DEGRADATIONS:
        raise unknown("degradation", kind, DEGRADATIONS)
    try:
        value = float(number) if number else None
    except ValueError:
        raise ArgumentError(f"the number of --degrade {kind} must be one, got {number!r}") from None
    return DEGRADATIONS[kind](height, width, value)


def read(file: Path, channels: int, limits: tuple[float, float]) -> Tensor:
    """A picture file as (1, channels, height, width) within the limits, float64, turned upright as cameras say.

    Raises:
        ArgumentError: it is no picture, or a state of `channels` numbers a pixel is none.
    """
    if channels not in (1, 3):
        raise ArgumentError(f"pictures have 1 or 3 channels; this model's samples have {channels}")
    try:
        with Image.open(file) as image:
            pixels = np.asarray(
                _eight_bits(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB"), np.float64
            )
    except OSError as error:
        raise ArgumentError(f"cannot read the picture {file}: {error}") from error
    low, high = limits
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).movedim(2, 0)[None] / 255 * (high - low) + low


def _eight_bits(image: Image.Image) -> Image.Image:
    """A picture of 16 bits a pixel scaled to 8, which Pillow's own conversion cuts off instead."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image, np.float64) / 257).round().clip(0, 255).astype(np.uint8))


def _known(file: Path, height: int, width: int) -> Mask:
    """The mask that a picture is: 1 where it is white, 0 where it is black or transparent.

    Raises:
        ArgumentError: it is no picture of that size, or white nowhere.
    """
    seen = read(file, 1, (0.0, 1.0))
    if seen.shape[-2:] != (height, width):
        raise ArgumentError(f"the mask must be {width}×{height} pixels, got {seen.shape[3]}×{seen.shape[2]}")
    with Image.open(file) as image:
        if image.has_transparency_data:
            opaque = np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))[..., 3]
            seen = seen * torch.from_numpy(opaque / 255.0)
    if not bool((seen > 0.5).any()):
        raise ArgumentError(f"the mask {file} is white nowhere, so nothing of the picture would be known")
    return Mask((seen[0, 0] > 0.5).double())


def fitted(picture: Tensor, height: int, width: int) -> tuple[Tensor, str]:
    """(the picture's middle, scaled to a size, and what was done in words or nothing)."""
    rows, columns = picture.shape[-2:]
    if (rows, columns) == (height, width):
        return picture, ""
    scale = min(rows / height, columns / width)
    tall, wide = round(height * scale), round(width * scale)
    top, left = (rows - tall) // 2, (columns - wide) // 2
    middle = picture[..., top : top + tall, left : left + wide]
    small = torch.nn.functional.interpolate(
        middle, (height, width), mode="bicubic", antialias=True, align_corners=False
    )
    return small, f"the middle {wide}×{tall} of {columns}×{rows} pixels was scaled to {width}×{height}"


@dataclass(frozen=True)
class Job:
    """A picture to restore.

    Args:
        picture: the file.
        degrade: what is done to it, or, with `own`, what was done to it.
        mask: a picture that is white where the user's own picture is known; stands for `degrade` and `own`.
        own: whether the picture is degraded already.
        noise: σ_y, in a range of [−1, 1].
    """

    picture: Path
    degrade: str = "box"
    mask: Path | None = None
    own: bool = False
    noise: float = 0.05

    def truth(self, denoiser: Denoiser) -> Tensor | None:
        """The clean picture in the model's size, (1, *shape); None where the user's own is degraded already."""
        if self.own or self.mask is not None:
            return None
        channels, height, width = denoiser.picture_shape
        return fitted(read(self.picture, channels, denoiser.limits), height, width)[0]

    def measurement(self, denoiser: Denoiser, seed: int = 0) -> tuple[Measurement, str]:
        """(what was measured, what was done to the picture in words).

        Raises:
            ArgumentError: a file is no picture, or the user's own picture has not the size that the operator makes.
        """
        shape, limits = denoiser.picture_shape, denoiser.limits
        if len(shape) != 3:
            raise ArgumentError(f"this model's samples are no pictures but {shape}")
        channels, height, width = shape
        operator, noise = degradation(self.degrade, height, width), Gaussian(self.noise)
        if self.mask is not None:
            operator = _known(self.mask, height, width)
        if not self.own and self.mask is None:
            truth, done = fitted(read(self.picture, channels, limits), height, width)
            return Measurement.simulate(operator, truth, noise, seed), done
        made = operator.A(torch.zeros(1, *shape, dtype=torch.float64)).shape[1:]
        if len(made) != 3 or made[0] not in (1, 3):
            raise ArgumentError(f"what {self.degrade!r} measures is no picture, so it cannot be read from one")
        y = read(self.picture, made[0], limits)
        if y.shape[1:] != made:
            raise ArgumentError(
                f"the degraded picture must be {made[2]}×{made[1]} pixels for this model, got {y.shape[3]}×{y.shape[2]}"
            )
        return Measurement(operator, y, noise), ""


def restored(
    job: Job, denoiser: Denoiser, method: str, tell: Callable[[float], None] | None = None, label: int | None = None,
    samples: int = 1, **options: Any,
) -> tuple[Restored, str]:  # fmt: skip
    """(the samples, what was done to the picture in words).

    Args:
        job: the picture.
        denoiser: the model.
        method: a name of the catalogue's family "restoration".
        tell: called with the share of a row's evaluations that every call of the network is.
        label: a class; none unless given.
        samples, options: as in `restore`.
    """
    measurement, done = job.measurement(denoiser, options.get("seed", 0))
    cond, classes = labelled(denoiser, samples, None if label is None else [label]), classes_of(denoiser)
    if label is None and classes is not None:
        cond = {classes[0]: [classes[1]] * samples}
    if tell is not None:
        told = tell
        denoiser = reported(denoiser, lambda rows: told(rows / samples))
    return restore(denoiser, measurement, method, samples=samples, cond=cond, **options), done


def write(out: Restored, file: Path) -> list[Path]:
    """Write the samples with their recipe, and beside them what was seen (where it is a picture), mean and deviation.

    The deviation is the channels' mean, white where it is largest.  Those of one picture have its size; several stand
    in a grid.
    """
    assert out.measurement is not None
    file.parent.mkdir(parents=True, exist_ok=True)
    out.save(str(file))
    deviation = out.std.mean(1, keepdim=True)
    maps = {"mean": (out.mean, out.limits), "std": (deviation, (0.0, max(float(deviation.max()), 1e-12)))}
    y = out.measurement.y
    if y.ndim == 4 and y.shape[1] in (1, 3):
        maps["seen"] = (y, out.limits)
    files = [file]
    for name, (values, limits) in maps.items():
        files.append(file.with_name(f"{file.stem}-{name}.png"))
        side_by_side = grid_of(values, limits)
        width, height = side_by_side.size
        alone = len(values) == 1  # without the grid's line around it
        (side_by_side.crop((1, 1, width - 1, height - 1)) if alone else side_by_side).save(files[-1])
    return files
