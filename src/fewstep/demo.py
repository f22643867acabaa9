"""The demonstration: one page that shows how few steps suffice, made by our own code."""

from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from fewstep.atomic import write_atomically
from fewstep.comparison import Comparison, compare
from fewstep.denoisers import Denoiser
from fewstep.loading import load
from fewstep.pages import head
from fewstep.pictures import grid_of
from fewstep.sampling import sample

COUNTS = (5, 10, 20, 50)
EVALUATIONS = 8
MODELS = ("cifar10", "mnist")
WORLD = "cifar10-lowrank"


def _figure(name: str, caption: str, width: int, kind: str = "pixels") -> str:
    image = f'<img class="{kind}" src="{name}" width="{width}" alt="{escape(caption)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def write_demo(out: Path, seed: int = 0, tell: Callable[[str], None] = lambda line: None) -> Path:
    """Write `index.html` and its pictures for the shipped models.

    Args:
        out: the folder.
        seed: the seed of all noises.
        tell: called with a line as each part begins.

    Returns:
        The page.
    """
    out.mkdir(parents=True, exist_ok=True)
    parts = [
        head("fewstep: how few steps suffice"),
        "<h1>How few steps suffice</h1>",
        f"<p class=lead>Small models that come with fewstep, {EVALUATIONS} network evaluations a picture.</p>",
    ]
    for name in MODELS:
        tell(f"pictures of {name}")
        parts += _pictures(name, load(name), out, seed)
    tell(f"errors on {WORLD}")
    parts += _errors(out, seed)
    page = out / "index.html"
    write_atomically(page, "\n".join([*parts, "</html>"]).encode())
    return page


def _pictures(name: str, denoiser: Denoiser, out: Path, seed: int) -> list[str]:
    classes = int(denoiser.null["label"])
    labels = {"label": [i % classes for i in range(4 * classes)]}
    result = sample(denoiser, 4 * classes, evaluations=EVALUATIONS, cond=labels, seed=seed)
    result.save(str(out / f"{name}.png"), columns=classes)
    said = (
        f"{len(result.x)} pictures, one class a column, {EVALUATIONS} evaluations each, {result.stats.seconds:.1f} s."
    )
    lines = [f"<h2>{name}</h2>", _figure(f"{name}.png", f"{said} dpm-solver++ on the logsnr grid.", 660)]
    lines.append(f"<p>The picture carries its recipe: <code>fewstep show {name}.png</code>. The same noises with:</p>")
    for count in COUNTS:
        run = sample(denoiser, classes, evaluations=count, cond={"label": list(range(classes))}, seed=seed)
        grid_of(run.x, denoiser.limits, classes).save(out / f"{name}-{count}.png")
        said = f"{run.stats.evaluations} evaluations, {run.stats.seconds:.2f} s"
        lines.append(_figure(f"{name}-{count}.png", said, 660))
    return lines


def _errors(out: Path, seed: int) -> list[str]:
    same: dict[str, Any] = {"n": 20, "cond": {"label": [i % 10 for i in range(20)]}, "seed": seed}
    result = compare(load(WORLD), ["ddim", "heun", "dpm-solver++"], (4, *COUNTS), **same)
    tuned = compare(load(WORLD), ["auto"], (4, 5, 6, 8, 10), **same)
    result = replace(result, rows=[*result.rows, *tuned.rows])
    _plot(result, out / "error.svg")
    rows = [
        f"<tr><td>{row.solver}</td><td>{row.evaluations}</td><td>{row.error:.2g}</td><td>{row.seconds:.2f} s</td></tr>"
        for row in result.rows
    ]
    return [
        "<h2>Error against evaluations, where the answer is exact</h2>",
        f"<p><code>{WORLD}</code> is a mixture of 20 low-rank Gaussians fitted to CIFAR-10. Its denoiser is known in "
        "closed form, so what the flow makes of each noise is known too, and each sampler's distance from it. "
        "<code>auto</code> is the tuned plans that ship, tuned on other noises than these.</p>",
        _figure("error.svg", "Median over 20 samples of the RMSE to the exact flow, pixels in [−1, 1].", 700, "plot"),
        "<table><tr><th>solver<th>evaluations<th>error<th>time of 20</tr>", *rows, "</table>",
        "<h2>Do it yourself</h2>",
        "<pre>fewstep sample --model mnist --steps 8 --guidance 2 --out digits.png\n"
        "fewstep compare --solver ddim --solver dpm-solver++ --evaluations 5 --evaluations 10\n"
        "fewstep plan vp --solver dpm-solver++ --steps 8</pre>",
    ]  # fmt: skip


def _plot(result: Comparison, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.4))
    axes = figure.subplots()
    for solver in dict.fromkeys(row.solver for row in result.rows):
        rows = [row for row in result.rows if row.solver == solver]
        axes.loglog([row.evaluations for row in rows], [row.error or 0.0 for row in rows], "o-", label=solver, lw=2)
    axes.set_xticks([4, *COUNTS], [str(n) for n in (4, *COUNTS)])
    axes.set_ylim(top=1.0)  # Heun's few steps on this grid are beyond; the table has them
    axes.minorticks_off()
    axes.set(xlabel="network evaluations a sample", ylabel="RMSE to the exact flow")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(file, bbox_inches="tight")
