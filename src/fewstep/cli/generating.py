"""The command generate."""

from pathlib import Path
from typing import Annotated

import typer

from fewstep.cli.options import Address, Engine, Grid, Model, Solver


def generate(
    out: Annotated[Path, typer.Option(help="The folder; it holds one run.")],
    model: Model = "mnist",
    count: Annotated[int, typer.Option(help="How many samples.")] = 50000,
    plan: Annotated[Path | None, typer.Option(help="A plan file instead of solver, grid and steps.")] = None,
    solver: Solver = "dpm-solver++",
    grid: Grid = None,
    steps: Annotated[int | None, typer.Option(help="Grid intervals; 8 unless given.")] = None,
    evaluations: Annotated[int | None, typer.Option(help="Evaluations a sample instead of steps.")] = None,
    label: Annotated[int | None, typer.Option(help="A class; all in turn unless given.")] = None,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance; 1 is none.")] = 1.0,
    seed: int = 0,
    files: Annotated[str, typer.Option(help="safetensors, or png: pictures in tar archives.")] = "safetensors",
    shard: Annotated[int | None, typer.Option(help="Samples a file; up to 1024 and 64 MiB unless given.")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples at once; what fits the memory unless given.")] = None,
    device: str = "cpu",
    engine: Engine = "local",
    address: Address = None,
    workers: Annotated[int | None, typer.Option(help="Ray: workers on this machine.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Make nothing: read every shard of OUT again.")] = False,
) -> None:
    """Draw many samples into a folder of shards; after a kill, the same command goes on and loses nothing.

    Example: fewstep generate --model mnist --count 50000 --steps 8 --guidance 2 --out out/digits
    """
    from fewstep import generation

    if verify:
        found = generation.verify(out)
        typer.echo(str(found))
        raise typer.Exit(0 if found.whole else 1)
    from fewstep.denoisers.classes import labelled
    from fewstep.guidance import CFG
    from fewstep.loading import load
    from fewstep.plan import Plan

    cond = None if label is None else labelled(load(model, device), 1, [label])
    try:
        made = generation.generate(
            model, count, out, plan=None if plan is None else Plan.load(str(plan)), solver=solver, grid=grid,
            steps=steps, evaluations=evaluations, guides=[] if guidance == 1 else [CFG(guidance)], cond=cond,
            seed=seed, files=files, shard=shard, batch=batch, device=device, engine=engine, address=address,
            workers=workers, progress=True,
        )  # fmt: skip
    except KeyboardInterrupt as stop:
        typer.echo("fewstep: stopped; the same command goes on", err=True)
        raise typer.Exit(130) from stop
    typer.echo(str(made))
