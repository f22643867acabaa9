"""Grids: the times a sampler visits, from its start down to 0."""

from collections.abc import Callable

from torch import Tensor

from fewstep.aliases import GRIDS as THEIRS
from fewstep.errors import ArgumentError, unknown
from fewstep.grids.beta import Beta
from fewstep.grids.karras import Karras
from fewstep.grids.levels import Levels
from fewstep.grids.logsnr import LogSNR
from fewstep.grids.spacing import Spacing
from fewstep.grids.uniform import Uniform
from fewstep.paths import Path

Grid = Callable[[Path, int, float], Tensor]

GRIDS: dict[str, Grid] = {
    "uniform": Uniform(),
    "logsnr": LogSNR(),
    "karras": Karras(),
    "logsnr-trained": LogSNR(trained=True),
    "karras-trained": Karras(trained=True),
    "beta": Beta(),
    "leading": Spacing("leading"),
    "linspace": Spacing("linspace"),
    "trailing": Spacing("trailing"),
}


def grid_named(name: str) -> Grid:
    """The grid of that name.

    Raises:
        ArgumentError: the name is unknown; the nearest are offered.
    """
    if name not in GRIDS:
        theirs = THEIRS.get(name.lower())
        if theirs is not None:
            raise ArgumentError(f"unknown grid {name!r}; what ComfyUI and A1111 call so is {theirs!r} here")
        raise unknown("grid", name, GRIDS)
    return GRIDS[name]


__all__ = ["GRIDS", "Beta", "Grid", "Karras", "Levels", "LogSNR", "Spacing", "Uniform", "grid_named"]
