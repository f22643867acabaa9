"""The command train."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="A TOML file such as configs/mnist.toml.")],
    data: Annotated[Path, typer.Option(help="A folder of pictures, or a parquet or npz file of labelled pictures.")],
    out: Annotated[Path, typer.Option(help="Where checkpoints and the model go.")] = Path("out/train"),
    test: Annotated[Path | None, typer.Option(help="Pictures that a classifier or autoencoder is measured on.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps; the fastest there is unless given.")] = None,
) -> None:
    """Train a denoiser, a classifier or an autoencoder; started again with the same folder, it resumes.

    Example: fewstep train configs/mnist.toml --data mnist-train.parquet --out out/mnist
    """
    from fewstep.training.run import train_from_files

    try:
        typer.echo(f"wrote {train_from_files(config, data, out, test, device)}")
    except KeyboardInterrupt as stop:
        typer.echo(f"fewstep: {stop}", err=True)
        raise typer.Exit(130) from stop
