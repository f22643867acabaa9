"""Options that several commands share."""

from typing import Annotated

import typer

Solver = Annotated[str, typer.Option(help="A solver of `fewstep catalog`.")]
Grid = Annotated[str, typer.Option(help="uniform, logsnr, karras, beta, leading, linspace or trailing.")]
