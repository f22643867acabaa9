"""What one visitor may ask of the machine; every request is checked here, whatever the page let through."""

import math
from collections.abc import Mapping
from typing import Any

from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError

# name: (least, most)
BOUNDS: Mapping[str, tuple[int, int]] = {
    "pictures": (1, 64),
    "steps": (1, 200),
    "evaluations": (1, 400),
    "evaluations of a plan": (2, 64),
    "noises": (2, 256),
    "budget": (1, 10_000_000),
    "seed": (0, 2**63 - 1),
}
# Samplers × grids × numbers of evaluations of one comparison.
RUNS = 36
# Numbers in all pictures of one run: 16 pictures of 3 × 256 × 256, or one of 3 × 1024 × 1024.
NUMBERS = 3 * 2**20
UPLOAD_BYTES = 8 * 2**20
UPLOAD_PIXELS = 2**24


def whole(name: str, value: Any) -> int:
    """The value as a whole number within the bounds of that name.

    Args:
        name: a key of `BOUNDS`.
        value: what the page sent: a number, or nothing.

    Raises:
        ArgumentError: it is no whole number, or out of bounds.
    """
    low, high = BOUNDS[name]
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value != int(value) or not low <= value <= high:
        raise ArgumentError(f"{name} must be a whole number from {low:,} to {high:,} here, got {value!r}")
    return int(value)


def real(name: str, value: Any, low: float, high: float) -> float:
    """The value as a number in [low, high].

    Raises:
        ArgumentError: it is none, or out of range.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high:
        raise ArgumentError(f"{name} must be a number from {low:g} to {high:g} here, got {value!r}")
    return float(value)


def number_in(name: str, text: str) -> float | None:
    """The number in a text; None where it is empty.

    Raises:
        ArgumentError: it is none.
    """
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise ArgumentError(f"{name} must be a number or empty, got {text!r}") from None


def picture_shape(denoiser: Denoiser) -> tuple[int, int, int]:
    """(channels, height, width) of a model's pictures.

    Raises:
        ArgumentError: its samples are no pictures.
    """
    shape = denoiser.picture_shape
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ArgumentError(f"the studio shows pictures, and this model's samples have the shape {shape}")
    return shape[0], shape[1], shape[2]


def fits(denoiser: Denoiser, pictures: int) -> None:
    """Refuse a run whose pictures hold too many numbers.

    Raises:
        ArgumentError: they do; how many would fit is said.
    """
    each = math.prod(denoiser.picture_shape)
    if pictures * each > NUMBERS:
        raise ArgumentError(
            f"{pictures} pictures of {'×'.join(map(str, denoiser.picture_shape))} are too large for the studio: at "
            f"most {NUMBERS // each} of them fit; use fewstep.sample in Python for more"
        )
