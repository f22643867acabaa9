"""Samples as pictures: a grid in one PNG that carries its recipe.

The text chunk `fewstep` holds plan, model, seeds, noise and versions as JSON, the chunk `parameters` the line that
image tools read.
"""

import io
import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from fewstep.aliases import in_tools
from fewstep.atomic import write_atomically
from fewstep.errors import ArgumentError
from fewstep.plan.files import dumps

if TYPE_CHECKING:
    from fewstep.results import Output


def as_bytes(x: Tensor, limits: tuple[float, float]) -> Tensor:
    """Pictures of the range `limits` as uint8 on the host: low is 0 and high is 255, what lies beyond is cut."""
    low, high = limits
    return ((x.detach().float().cpu() - low) / (high - low)).clamp(0, 1).mul(255).round().to(torch.uint8)


def grid_of(x: Tensor, limits: tuple[float, float] = (-1.0, 1.0), columns: int = 0) -> Image.Image:
    """Pictures (batch, 1 or 3, height, width) side by side, `columns` in a row (a square unless given)."""
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ArgumentError(
            f"a picture needs samples of shape (batch, 1 or 3, height, width), got {tuple(x.shape)}; those of a latent "
            "model are decoded first: dataclasses.replace(out, x=model.decode(out.x))"
        )
    columns = columns or math.ceil(math.sqrt(len(x)))
    bytes_ = as_bytes(x, limits)
    rows, (_, channels, height, width) = math.ceil(len(x) / columns), x.shape
    canvas = np.zeros((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), np.uint8)
    for i, picture in enumerate(bytes_.permute(0, 2, 3, 1).numpy()):
        top, left = i // columns * (height + 1) + 1, i % columns * (width + 1) + 1
        canvas[top : top + height, left : left + width] = picture
    return Image.fromarray(canvas[..., 0] if channels == 1 else canvas)


def recipe(out: "Output") -> dict[str, Any]:
    """What makes the samples again: plan, model, seeds, noise, versions, and the search or filter that ran it."""
    versions = {"fewstep": version("fewstep"), "torch": torch.__version__}
    plan = json.loads(dumps(out.plan))
    told = {"plan": plan, "model": out.model, "seeds": out.seeds, "noise": out.noise, "versions": versions}
    return {**told, "by": out.by} if out.by else told


def checked_png(path: str | Path) -> None:
    """Refuse a name for a picture with its recipe that ends otherwise than in .png.

    Raises:
        ArgumentError: it does.
    """
    if Path(path).suffix.lower() not in (".png", ""):
        raise ArgumentError(f"a picture that carries its recipe is a PNG: its name must end in .png, got {str(path)!r}")


def save(out: "Output", path: str | Path, columns: int = 0) -> None:
    """Write the samples as one PNG grid with the recipe inside."""
    checked_png(path)
    write_atomically(path, png(out, columns))


def png(out: "Output", columns: int = 0) -> bytes:
    """The grid, with the recipe inside, as the bytes of a PNG file."""
    source, (seed, _) = out.plan.source, out.seeds[0]
    info = PngInfo()
    info.add_text("fewstep", json.dumps(recipe(out)))
    sampler, schedule = in_tools(str(source.get("solver", "plan")), str(source.get("grid", "")))
    line = f"Steps: {out.plan.steps}, Sampler: {sampler}, Schedule type: {schedule}"
    info.add_text("parameters", f"{line}, Seed: {seed}")
    buffer = io.BytesIO()
    image = grid_of(out.x, out.limits, columns)
    if len(out.x) == 1:  # alone it has its own size, without the grid's line around it
        image = image.crop((1, 1, 1 + out.x.shape[3], 1 + out.x.shape[2]))
    image.save(buffer, pnginfo=info, format="PNG")
    return buffer.getvalue()


def read_recipe(path: str) -> dict[str, Any]:
    """The recipe in a picture that `save` wrote.

    Raises:
        ArgumentError: it is no picture, or holds no recipe of ours.
    """
    try:
        with Image.open(path) as image:
            text = image.info.get("fewstep", "")
        if not text:
            raise ValueError("the file holds none")
        return dict(json.loads(text))
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{path} is not a picture with a recipe of fewstep: {error}") from error
