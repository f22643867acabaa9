"""The command line; heavy imports wait until a command runs."""

import typer

from fewstep.cli.drawing import compare, sample, show
from fewstep.cli.generating import generate
from fewstep.cli.learning import train
from fewstep.cli.looking import catalog, demo, doctor, report
from fewstep.cli.plans import plan, tune
from fewstep.cli.restoring import restore
from fewstep.cli.studio_page import studio
from fewstep.errors import FewstepError

app = typer.Typer(
    no_args_is_help=True, add_completion=True, help="Diffusion and flow models in few network evaluations."
)
for command in (sample, generate, restore, compare, tune, plan, show, catalog, report, train, studio, demo, doctor):
    app.command()(command)


def main() -> None:
    """The command `fewstep`: our own errors, and those of files, are one line, not a traceback."""
    try:
        app()
    except (FewstepError, OSError) as error:
        typer.echo(f"fewstep: {error}", err=True)
        raise SystemExit(2) from error
