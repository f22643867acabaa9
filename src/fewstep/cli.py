"""The command line; heavy imports wait until a command runs."""

import json
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from fewstep.errors import FewstepError

app = typer.Typer(
    no_args_is_help=True, add_completion=True, help="Diffusion and flow models in few network evaluations."
)

Solver = Annotated[str, typer.Option(help="A solver of `fewstep catalog`.")]
Grid = Annotated[str, typer.Option(help="uniform, logsnr, karras, beta, leading, linspace or trailing.")]


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
    replace(result, x=denoiser.decode(result.x)).save(str(out))
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
def tune(
    model: Annotated[str, typer.Option(help="A shipped model or a safetensors file of ours.")] = "cifar10-lowrank",
    evaluations: Annotated[int, typer.Option(help="What a sample may cost, guidance not counted.")] = 6,
    method: Annotated[str, typer.Option(help="A method of family tuning in `fewstep catalog`.")] = "worlds",
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


@app.command()
def restore(
    picture: Annotated[Path, typer.Argument(help="The picture; clean unless --own or --mask says otherwise.")],
    degrade: Annotated[
        str,
        typer.Option(
            help="none, half, box, random:0.3, blur:1.5, motion:7, downsample:4, bicubic:4, grey, tomography:8, phase "
            "or clip; the number is optional."
        ),
    ] = "box",
    mask: Annotated[
        Path | None, typer.Option(help="A picture, white where yours is known; hidden pixels are filled in.")
    ] = None,
    own: Annotated[bool, typer.Option("--own", help="The picture is degraded already, as --degrade says.")] = False,
    noise: Annotated[float, typer.Option(help="The noise's deviation where pictures lie in [-1, 1].")] = 0.05,
    method: Annotated[str, typer.Option(help="A method of family restoration in `fewstep catalog`.")] = "ddrm",
    model: Annotated[str, typer.Option(help="A shipped model or a safetensors file of ours.")] = "cifar10-lowrank",
    evaluations: Annotated[int | None, typer.Option(help="Evaluations a sample; the paper's unless given.")] = None,
    samples: Annotated[int, typer.Option(help="How many samples of the posterior.")] = 8,
    label: Annotated[int | None, typer.Option(help="A class of the model; none unless given.")] = None,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="The picture of the samples; mean and deviation beside it.")] = Path(
        "restored.png"
    ),
) -> None:
    """Restore a picture: several samples of what it may have been, their mean and their deviation, as pictures.

    Example: fewstep restore cat.png --degrade random:0.3 --method diffpir --model cifar10 --out back.png

    Your own: fewstep restore broken.png --mask known.png --noise 0.02
    """
    from rich.console import Console
    from rich.progress import Progress

    from fewstep.loading import load
    from fewstep.restoration.from_picture import Job, restored, write

    denoiser = load(model)
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"{method}, evaluations", total=evaluations)
        result, done = restored(
            Job(picture, degrade, mask, own, noise), denoiser, method, lambda share: progress.advance(bar, share),
            label, samples, seed=seed, evaluations=evaluations,
        )  # fmt: skip
    files = write(result, out)
    if done:
        typer.echo(f"{picture}: {done}")
    spent = f"{result.stats.evaluations} evaluations each, {result.stats.seconds:.2f} s"
    typer.echo(f"{', '.join(map(str, files))}: {samples} samples, {spent}; largest deviation {result.std.max():.3f}")


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
