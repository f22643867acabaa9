"""Commands that draw pictures: sample, compare, show."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fewstep.cli.options import Address, Engine, Grid, Model, Solver, grids, named


def sample(
    model: Model = "mnist",
    n: Annotated[int, typer.Option("--n", "-n", help="How many pictures.")] = 16,
    solver: Solver = "dpm-solver++",
    grid: Grid = None,
    steps: Annotated[int | None, typer.Option(help="Grid intervals; 8 unless given.")] = None,
    evaluations: Annotated[int | None, typer.Option(help="Evaluations a sample instead of steps.")] = None,
    label: Annotated[int | None, typer.Option(help="A class; all in turn unless given.")] = None,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance; 1 is none.")] = 1.0,
    seed: int = 0,
    deterministic: Annotated[bool, typer.Option("--deterministic", help="The same bits whenever it is run.")] = False,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("samples.png"),
) -> None:
    """Draw samples and write them as one picture that carries its recipe.

    Example: fewstep sample --model mnist --steps 8 --guidance 2 --out digits.png
    """
    from fewstep.denoisers.classes import labelled
    from fewstep.guidance import CFG
    from fewstep.loading import load
    from fewstep.pictures import checked_png
    from fewstep.sampling import sample as draw

    checked_png(out)
    denoiser = load(model)
    cond = labelled(denoiser, n, None if label is None else [label])
    result = draw(
        denoiser, n, solver=solver, grid=grid, steps=steps, evaluations=evaluations, seed=seed,
        guides=[] if guidance == 1 else [CFG(guidance)], cond=cond, deterministic=deterministic,
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    replace(result, x=denoiser.decode(result.x)).save(str(out))
    pictures, stats = f"{n} picture{'s' * (n > 1)}", result.stats
    typer.echo(f"{out}: {pictures}, {stats.evaluations} evaluations each, {stats.seconds:.2f} s")


def compare(
    model: Model = "cifar10-lowrank",
    solver: Annotated[
        list[str] | None, typer.Option(help="A solver; once for each.", autocompletion=named("solvers"))
    ] = None,
    grid: Annotated[list[str] | None, typer.Option(help="A grid; once for each.", autocompletion=grids)] = None,
    evaluations: Annotated[list[int] | None, typer.Option(help="Evaluations a sample; once for each.")] = None,
    plan: Annotated[list[Path] | None, typer.Option(help="A plan file to compare too; once for each.")] = None,
    n: Annotated[int, typer.Option("--n", "-n", help="How many samples.")] = 8,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance; 1 is none.")] = 1.0,
    seed: int = 0,
    engine: Engine = "local",
    address: Address = None,
    out: Annotated[Path, typer.Option(help="The picture to write: PNG, SVG or PDF.")] = Path("compare.png"),
) -> None:
    """Compare samplers on the same noises: a table of errors to the exact flow, and a picture.

    Example: fewstep compare --solver ddim --solver dpm-solver++ --evaluations 5 --evaluations 10
    """
    from rich.console import Console

    from fewstep.checking import checked_plot
    from fewstep.comparison import compare as run
    from fewstep.denoisers.classes import labelled
    from fewstep.guidance import CFG
    from fewstep.loading import load
    from fewstep.plan import Plan

    checked_plot(out)
    denoiser = load(model)
    with Console(stderr=True).status("comparing") as status:
        result = run(
            denoiser, solver or ["ddim", "heun", "dpm-solver++"], evaluations or [5, 8, 10, 20],
            grids=grid or ["logsnr"], plans={file.stem: Plan.load(str(file)) for file in plan or []}, n=n,
            guides=[] if guidance == 1 else [CFG(guidance)], cond=labelled(denoiser, n), seed=seed, engine=engine,
            address=address,
            tell=status.update,
        )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    result.save(out)
    typer.echo(f"{result}\n{out}")


def show(picture: Annotated[Path, typer.Argument(help="A picture that fewstep wrote.")]) -> None:
    """Print the recipe that a picture carries: plan, model, seeds, noise and versions.

    Example: fewstep show samples.png
    """
    from fewstep.pictures import read_recipe
    from fewstep.plan.files import loads

    recipe = read_recipe(str(picture))
    typer.echo(str(loads(json.dumps(recipe["plan"]))))
    for what in ("model", "by", "seeds", "noise", "versions"):
        if recipe.get(what):
            typer.echo(f"{what} {recipe[what]}")
