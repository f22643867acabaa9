"""The command line; heavy imports wait until a command runs."""

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from fewstep.errors import FewstepError

app = typer.Typer(
    no_args_is_help=True, add_completion=True, help="Diffusion and flow models in few network evaluations."
)

Solver = Annotated[str, typer.Option(help="A solver of `fewstep catalog`.")]
Grid = Annotated[str, typer.Option(help="uniform, logsnr, karras, leading, linspace or trailing.")]


@app.command()
def sample(
    model: Annotated[str, typer.Option(help="A shipped model or a safetensors file of ours.")] = "mnist",
    n: Annotated[int, typer.Option("--n", "-n", help="How many pictures.")] = 16,
    solver: Solver = "dpm-solver++",
    grid: Grid = "logsnr",
    steps: Annotated[int | None, typer.Option(help="Grid intervals; 8 unless given.")] = None,
    evaluations: Annotated[int | None, typer.Option(help="Evaluations a sample instead of steps.")] = None,
    label: Annotated[int | None, typer.Option(help="A class; all in turn unless given.")] = None,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance; 1 is none.")] = 1.0,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("samples.png"),
) -> None:
    """Draw samples and write them as one picture that carries its recipe.

    Example: fewstep sample --model mnist --steps 8 --guidance 2 --out digits.png
    """
    from fewstep.guidance import CFG
    from fewstep.loading import load
    from fewstep.sampling import sample as draw

    denoiser = load(model)
    labels = [i % denoiser.null["label"] if label is None else label for i in range(n)]
    guides = [] if guidance == 1 else [CFG(guidance)]
    result = draw(
        denoiser, n, solver=solver, grid=grid, steps=steps, evaluations=evaluations, guides=guides,
        cond={"label": labels}, seed=seed,
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    result.save(str(out))
    typer.echo(f"{out}: {n} pictures, {result.stats.evaluations} evaluations each, {result.stats.seconds:.2f} s")


@app.command()
def compare(
    model: Annotated[str, typer.Option(help="A shipped model or a safetensors file of ours.")] = "cifar10-lowrank",
    solver: Annotated[list[str] | None, typer.Option(help="A solver; once for each.")] = None,
    grid: Annotated[list[str] | None, typer.Option(help="A grid; once for each.")] = None,
    evaluations: Annotated[list[int] | None, typer.Option(help="Evaluations a sample; once for each.")] = None,
    plan: Annotated[list[Path] | None, typer.Option(help="A plan file to compare too; once for each.")] = None,
    n: Annotated[int, typer.Option("--n", "-n", help="How many samples.")] = 8,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance; 1 is none.")] = 1.0,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="The picture to write: PNG, SVG or PDF.")] = Path("compare.png"),
) -> None:
    """Compare samplers on the same noises: a table of errors to the exact flow, and a picture.

    Example: fewstep compare --solver ddim --solver dpm-solver++ --evaluations 5 --evaluations 10
    """
    from rich.console import Console

    from fewstep.comparison import compare as run
    from fewstep.guidance import CFG
    from fewstep.loading import load
    from fewstep.plan import Plan

    denoiser = load(model)
    classes = denoiser.null.get("label", 0)
    cond = {"label": [i % classes for i in range(n)]} if classes else None
    with Console(stderr=True).status("comparing") as status:
        result = run(
            denoiser, solver or ["ddim", "heun", "dpm-solver++"], evaluations or [5, 8, 10, 20],
            grids=grid or ["logsnr"], plans={file.stem: Plan.load(str(file)) for file in plan or []}, n=n,
            guides=[] if guidance == 1 else [CFG(guidance)], cond=cond, seed=seed, tell=status.update,
        )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    result.save(out)
    typer.echo(f"{result}\n{out}")


@app.command()
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


@app.command()
def show(picture: Annotated[Path, typer.Argument(help="A picture that fewstep wrote.")]) -> None:
    """Print the recipe that a picture carries: plan, seeds and versions."""
    from fewstep.pictures import read_recipe
    from fewstep.plan.files import loads

    recipe = read_recipe(str(picture))
    typer.echo(str(loads(json.dumps(recipe["plan"]))))
    typer.echo(f"seeds {recipe['seeds']}\nversions {recipe['versions']}")


@app.command()
def catalog(as_json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False) -> None:
    """List every method: name, family, papers, summary, module."""
    from fewstep.catalog import methods

    if as_json:
        typer.echo(json.dumps([m.to_json() for m in methods()], indent=1, ensure_ascii=False))
        return
    for m in methods():
        typer.echo(f"{m.family:12} {m.name:16} {m.summary}")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A TOML file such as configs/mnist.toml.")],
    data: Annotated[Path, typer.Option(help="A folder of pictures, or a parquet or npz file of labelled pictures.")],
    out: Annotated[Path, typer.Option(help="Where checkpoints and the model go.")] = Path("out/train"),
    test: Annotated[Path | None, typer.Option(help="Pictures that a classifier is measured on.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps; the fastest there is unless given.")] = None,
) -> None:
    """Train a denoiser or a classifier; started again with the same folder, it resumes.

    Example: fewstep train configs/mnist.toml --data mnist-train.parquet --out out/mnist
    """
    from fewstep.training.run import train_from_files

    try:
        typer.echo(f"wrote {train_from_files(config, data, out, test, device)}")
    except KeyboardInterrupt as stop:
        typer.echo(f"fewstep: {stop}", err=True)
        raise typer.Exit(130) from stop


@app.command()
def demo(out: Annotated[Path, typer.Option(help="The folder of the page.")] = Path("out/demo")) -> None:
    """Write a page that shows how few steps suffice, with the shipped models."""
    from rich.console import Console

    from fewstep.demo import write_demo

    with Console(stderr=True).status("beginning") as status:
        page = write_demo(out, tell=status.update)
    typer.echo(f"open {page}")


@app.command()
def doctor() -> None:
    """Say what is installed: versions, devices, extras."""
    import torch

    typer.echo(f"python {sys.version.split()[0]}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    typer.echo(f"accelerators: {', '.join(devices) or 'none'}")
    for name in ("fewstep", "numpy", "safetensors", "diffusers", "deepinv", "gradio", "ray", "pyarrow"):
        try:
            typer.echo(f"{name} {version(name)}")
        except PackageNotFoundError:
            typer.echo(f"{name} is not installed")


def main() -> None:
    """The command `fewstep`: our own errors are one line, not a traceback."""
    try:
        app()
    except FewstepError as error:
        typer.echo(f"fewstep: {error}", err=True)
        raise SystemExit(2) from error
