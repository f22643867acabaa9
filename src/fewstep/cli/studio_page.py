"""The command studio."""

from typing import Annotated

import typer


def studio(
    host: Annotated[
        str, typer.Option(help="Where it can be reached; all but this machine needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port.")] = 7860,
    share_token: Annotated[
        str,
        typer.Option(
            envvar="FEWSTEP_SHARE_TOKEN",
            help="What visitors must show once, 16 characters or more; safer in the variable than on the command line.",
        ),
    ] = "",
) -> None:
    """Open the studio in your browser: sample, compare, restore, tune and look methods up.

    Example: fewstep studio

    For others too: FEWSTEP_SHARE_TOKEN=… fewstep studio --host 0.0.0.0
    """
    from fewstep.studio.guard import checked_token

    checked_token(host, share_token)
    from fewstep.studio.server import serve

    serve(host, port, share_token, typer.echo)
