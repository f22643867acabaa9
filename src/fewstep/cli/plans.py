"""Commands about plans: plan, tune."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fewstep.cli.options import Address, Engine, Grid, Model, named


def plan(
    path: Annotated[str, typer.Argument(help="vp, ve, flow, cosine, or a plan file to show.")] = "vp",
    solver: Annotated[
        str | None,
        typer.Option(
            help="A solver of `fewstep catalog`; dpm-solver++ unless given.", autocompletion=named("solvers", "bridges")
        ),
    ] = None,
    grid: Grid = None,
    steps: Annotated[int | None, typer.Option(help="Grid intervals; 8 unless given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the plan as JSON.")] = None,
    show: Annotated[bool, typer.Option("--show/--quiet", help="Print the table.")] = True,
) -> None:
    """Make or read a plan, print it as a table, and save it.

    Example: fewstep plan flow --solver heun --grid uniform --steps 4 --show
    """
    from fewstep.errors import ArgumentError, unknown
    from fewstep.paths import PATHS
    from fewstep.plan import Plan
    from fewstep.planning import make_plan

    simple = {kind: cls for kind, cls in PATHS.items() if kind != "vp-discrete"}
    if path in simple:
        made = make_plan(simple[path](), solver or "dpm-solver++", grid, 8 if steps is None else steps)
    elif Path(path).is_file():
        if (solver, grid, steps) != (None, None, None):
            raise ArgumentError("a plan file has its own solver, grid and number of steps; leave them out")
        made = Plan.load(path)
    else:
        raise unknown("path or plan file", path, simple)
    if out is not None:
        made.save(str(out))
    if show:
        typer.echo(str(made))


def tune(
    model: Model = "cifar10-lowrank",
    evaluations: Annotated[
        list[int] | None, typer.Option(help="What a sample may cost, guidance not counted: 6, or once for each plan.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="A method of family tuning in `fewstep catalog`: worlds, or once for each plan.",
            autocompletion=named("tuning"),
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Pictures that the model was trained on, as for train.")] = None,
    budget: Annotated[int | None, typer.Option(help="Evaluations of the network to spend in all.")] = None,
    samples: Annotated[int, typer.Option(help="Noises that the method sees.")] = 64,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance; 1 is none.")] = 1.0,
    seed: int = 0,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A file from which a stopped tuning goes on; for several plans, a folder.")
    ] = None,
    engine: Engine = "local",
    address: Address = None,
    out: Annotated[
        Path, typer.Option(help="The plan to write, as JSON; several are told apart by method and evaluations.")
    ] = Path("tuned.json"),
    plot: Annotated[Path | None, typer.Option(help="A picture of the report: PNG, SVG or PDF.")] = None,
) -> None:
    """Tune plans to a model, write them, and say what each gained and what was spent.

    Example: fewstep tune --model mnist --evaluations 6 --method gits --checkpoint out/six.tuning --out six.json

    Several: fewstep tune --model mnist --method gits --evaluations 4 --evaluations 6 --engine ray --out tuned.json
    """
    from rich.console import Console

    from fewstep.checking import checked_plot
    from fewstep.denoisers.classes import classes_of, labelled
    from fewstep.guidance import CFG
    from fewstep.loading import load
    from fewstep.tuning import tune as search
    from fewstep.tuning import tune_each
    from fewstep.tuning.report import report

    if plot is not None:
        checked_plot(plot)
    counts, methods = evaluations or [6], method or ["worlds"]
    wanted = [f"-{name}-{count}" for name in methods for count in counts]
    denoiser = load(model)
    classes = classes_of(denoiser)
    cond = None if classes is None else labelled(denoiser, classes[1])
    pictures = None
    if data is not None:
        from fewstep.training.data import read_images

        low, high = denoiser.limits
        pictures = read_images(data)[0].double() / 255 * (high - low) + low
    try:
        with Console(stderr=True).status("tuning") as status:
            options: dict[str, Any] = {
                "data": pictures, "budget": budget, "seed": seed, "samples": samples, "cond": cond,
                "guides": [] if guidance == 1 else [CFG(guidance)], "checkpoint": checkpoint, "engine": engine,
                "address": address, "tell": status.update,
            }  # fmt: skip
            if len(wanted) == 1:
                found = [search(denoiser, counts[0], method=methods[0], **options)]
            else:
                found = tune_each(denoiser, counts, methods, **options)
    except KeyboardInterrupt as stop:
        again = f"the same command goes on from {checkpoint}" if checkpoint else "name a --checkpoint to go on later"
        typer.echo(f"fewstep: stopped; {again}", err=True)
        raise typer.Exit(130) from stop
    for which, one in zip(wanted if len(wanted) > 1 else [""], found, strict=True):
        told, file = report(one), out.with_stem(out.stem + which)
        file.parent.mkdir(parents=True, exist_ok=True)
        one.save(str(file))
        if plot is not None:
            plot.parent.mkdir(parents=True, exist_ok=True)
            told.save(plot.with_stem(plot.stem + which))
        typer.echo(f"{told}\n{file}")
