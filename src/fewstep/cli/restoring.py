"""The command restore."""

from pathlib import Path
from typing import Annotated

import typer

from fewstep.cli.options import Model, named

Method = Annotated[
    str, typer.Option(help="A method of family restoration in `fewstep catalog`.", autocompletion=named("restoration"))
]


def restore(
    picture: Annotated[Path, typer.Argument(help="The picture; clean unless --own or --mask says otherwise.")],
    degrade: Annotated[
        str | None,
        typer.Option(
            help="none, half, box, random:0.3, blur:1.5, motion:7, downsample:4, bicubic:4, grey, tomography:8, phase "
            "or clip; the number is optional. box unless given."
        ),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="A picture, white where yours is known; hidden pixels are filled in.")
    ] = None,
    own: Annotated[bool, typer.Option("--own", help="The picture is degraded already, as --degrade says.")] = False,
    noise: Annotated[float, typer.Option(help="The noise's deviation where pictures lie in [-1, 1].")] = 0.05,
    method: Method = "ddrm",
    model: Model = "cifar10",
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

    from fewstep.errors import ArgumentError
    from fewstep.loading import load
    from fewstep.metrics import psnr
    from fewstep.pictures import checked_png
    from fewstep.restoration.from_picture import Job, restored, write
    from fewstep.restoration.restoring import budget_of

    if mask is not None and (degrade is not None or own):
        raise ArgumentError("--mask says what is known of your picture, so it takes neither --degrade nor --own")
    if own and degrade is None:
        raise ArgumentError("--own needs --degrade: say what was done to your picture")
    checked_png(out)
    denoiser, job = load(model), Job(picture, degrade or "box", mask, own, noise)
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"{method}, evaluations", total=evaluations or budget_of(method))
        result, done = restored(
            job, denoiser, method, lambda share: progress.advance(bar, share), label, samples, seed=seed,
            evaluations=evaluations,
        )  # fmt: skip
        progress.update(bar, total=result.stats.evaluations, completed=result.stats.evaluations)
    files = write(result, out)
    if done:
        typer.echo(f"{picture}: {done}")
    spent = f"{result.stats.evaluations} evaluations each, {result.stats.seconds:.2f} s"
    typer.echo(f"{', '.join(map(str, files))}: {samples} samples, {spent}; largest deviation {result.std.max():.3f}")
    truth = job.truth(denoiser)
    if truth is not None:
        near = psnr(result.mean.clamp(*result.limits), truth.to(result.mean), result.limits)
        typer.echo(f"PSNR of the mean {float(near):.1f} dB")
