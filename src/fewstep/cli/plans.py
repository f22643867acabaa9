"""Commands about plans: plan, tune."""

from pathlib import Path
from typing import Annotated

import typer

from fewstep.cli.options import Grid, Model, Solver, named

Method = Annotated[
    str, typer.Option(help="A method of family tuning in `fewstep catalog`.", autocompletion=named("tuning", "grids"))
]


def plan(
    path: Annotated[str, typer.Argument(help="vp, ve, flow, cosine, or a plan file to show.")] = "vp",
    solver: Solver = "dpm-solver++",
    grid: Grid = "logsnr",
    steps: int = 8,
    out: Annotated[Path | None, typer.Option(help="Write the plan as JSON.")] = None,
    show: Annotated[bool, typer.Option("--show/--quiet", help="Print the table.")] = True,
) -> None:
    """Make or read a plan, print it as a table, and save it.

    Example: fewstep plan flow --solver heun --grid uniform --steps 4 --show
    """
    from fewstep.errors import unknown
    from fewstep.paths import PATHS
    from fewstep.plan import Plan
    from fewstep.planning import make_plan

    simple = {kind: cls for kind, cls in PATHS.items() if kind != "vp-discrete"}
    if path in simple:
        made = make_plan(simple[path](), solver, grid, steps)
    elif Path(path).is_file():
        made = Plan.load(path)
    else:
        raise unknown("path or plan file", path, simple)
    if out is not None:
        made.save(str(out))
    if show:
        typer.echo(str(made))


def tune(
    model: Model = "cifar10-lowrank",
    evaluations: Annotated[int, typer.Option(help="What a sample may cost, guidance not counted.")] = 6,
    method: Annotated[
        str,
        typer.Option(help="A method of family tuning in `fewstep catalog`.", autocompletion=named("tuning", "grids")),
    ] = "worlds",
    data: Annotated[Path | None, typer.Option(help="Pictures that the model was trained on, as for train.")] = None,
    budget: Annotated[int | None, typer.Option(help="Evaluations of the network to spend in all.")] = None,
    samples: Annotated[int, typer.Option(help="Noises that the method sees.")] = 64,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance; 1 is none.")] = 1.0,
    seed: int = 0,
    checkpoint: Annotated[Path | None, typer.Option(help="A file from which a stopped tuning goes on.")] = None,
    out: Annotated[Path, typer.Option(help="The plan to write, as JSON.")] = Path("tuned.json"),
    plot: Annotated[Path | None, typer.Option(help="A picture of the report: PNG, SVG or PDF.")] = None,
) -> None:
    """Tune a plan to a model, write it, and say what it gained and what was spent.

    Example: fewstep tune --model mnist --evaluations 6 --method gits --checkpoint out/six.tuning --out six.json
    """
    from rich.console import Console

    from fewstep.guidance import CFG
    from fewstep.loading import load
    from fewstep.tuning import tune as search
    from fewstep.tuning.report import report

    denoiser = load(model)
    classes = denoiser.null.get("label", 0)
    cond = {"label": list(range(classes))} if classes else None
    pictures = None
    if data is not None:
        from fewstep.training.data import read_images

        low, high = denoiser.limits
        pictures = read_images(data)[0].double() / 255 * (high - low) + low
    try:
        with Console(stderr=True).status("tuning") as status:
            found = search(
                denoiser, evaluations, method=method, data=pictures, budget=budget, seed=seed, samples=samples,
                guides=[] if guidance == 1 else [CFG(guidance)], cond=cond, checkpoint=checkpoint,
                tell=lambda line: status.update(f"{method}: {line}"),
            )  # fmt: skip
    except KeyboardInterrupt as stop:
        again = f"the same command goes on from {checkpoint}" if checkpoint else "name a --checkpoint to go on later"
        typer.echo(f"fewstep: stopped; {again}", err=True)
        raise typer.Exit(130) from stop
    told = report(found)
    out.parent.mkdir(parents=True, exist_ok=True)
    found.save(str(out))
    if plot is not None:
        plot.parent.mkdir(parents=True, exist_ok=True)
        told.save(plot)
    typer.echo(f"{told}\n{out}")
