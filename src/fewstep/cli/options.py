"""Options that several commands share, and the names that a shell completes for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

# Those of `fewstep.grids`, which needs torch; a shell does not wait so long.
GRIDS = ("uniform", "logsnr", "karras", "logsnr-trained", "karras-trained", "beta", "leading", "linspace", "trailing")


def named(*families: str) -> Callable[[str], list[str]]:
    """What completes a method's name: the catalogue's methods of these families."""

    def complete(incomplete: str) -> list[str]:
        from fewstep.catalog import methods

        return [m.name for m in methods() if m.family in families and m.name.startswith(incomplete)]

    return complete


def models(incomplete: str) -> list[str]:
    """What completes a model's name: those that ship, found without loading anything."""
    files = (Path(__file__).parents[1] / "assets").glob("*.safetensors")
    apart = ("-classifier", "-reference")
    return sorted(f.stem for f in files if f.stem.startswith(incomplete) and not f.stem.endswith(apart))


def grids(incomplete: str) -> list[str]:
    """What completes a grid's name."""
    return [name for name in GRIDS if name.startswith(incomplete)]


Model = Annotated[
    str, typer.Option(help="A shipped model, a safetensors file of ours, or a diffusers folder.", autocompletion=models)
]
Solver = Annotated[
    str, typer.Option(help="A solver of `fewstep catalog`.", autocompletion=named("solvers", "bridges", "loops"))
]
Engine = Annotated[str, typer.Option(help="local, or ray: independent parts on the workers of a cluster.")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster; this machine's cores unless given.")]
Grid = Annotated[
    str | None,
    typer.Option(help=f"{', '.join(GRIDS[:-1])} or {GRIDS[-1]}; logsnr unless given.", autocompletion=grids),
]
