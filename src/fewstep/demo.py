"""The demonstration: one page that shows how few steps suffice, made by our own code."""

import time
from pathlib import Path

from fewstep.denoisers import Denoiser
from fewstep.denoisers.assets import load, shipped
from fewstep.pictures import grid_of
from fewstep.sampling import sample

COUNTS = (5, 10, 20, 50)
SOLVERS = (("ddim", "uniform"), ("heun", "logsnr"), ("dpm-solver++", "logsnr"))
STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c1c28}
h1{font-size:1.9rem}h2{margin-top:2.2rem}figure{display:inline-block;margin:.4rem .8rem .4rem 0}
figcaption{font-size:.85rem;color:#555}img.pixels{image-rendering:pixelated}"""


def _figure(name: str, caption: str, width: int, pixels: bool = True) -> str:
    kind = ' class="pixels"' if pixels else ""
    image = f'<img{kind} src="{name}" width="{width}" alt="{caption}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def write_demo(out: Path, seed: int = 0) -> Path:
    """Write `index.html` and its pictures for every shipped model.

    Args:
        out: the folder.
        seed: the seed of all noises.

    Returns:
        The page.
    """
    out.mkdir(parents=True, exist_ok=True)
    parts = [f"<!doctype html><meta charset=utf-8><title>fewstep</title><style>{STYLE}</style>"]
    parts.append("<h1>How few steps suffice</h1>")
    for name in shipped():
        parts += _model(name, out, seed)
    page = out / "index.html"
    page.write_text("\n".join(parts), encoding="utf8")
    return page


def _model(name: str, out: Path, seed: int) -> list[str]:
    denoiser = load(name)
    classes = int(denoiser.null["label"])
    labels = {"label": [i % classes for i in range(4 * classes)]}
    result = sample(denoiser, 4 * classes, evaluations=8, cond=labels, seed=seed)
    result.save(str(out / f"{name}.png"), columns=classes)
    lines = [f"<h2>{name}: 8 evaluations a picture</h2>"]
    lines += [f"<p>{len(result.x)} pictures, one class a column, in {result.stats.seconds:.1f} s.</p>"]
    lines += [_figure(f"{name}.png", "dpm-solver++ on the logsnr grid", 640)]
    lines += ["<h2>The same noises at 5, 10, 20 and 50 evaluations</h2>"]
    for count in COUNTS:
        began = time.perf_counter()
        x = sample(denoiser, classes, evaluations=count, cond={"label": list(range(classes))}, seed=seed).x
        grid_of(x, denoiser.limits, classes).resize((64 * classes, 64), 0).save(out / f"{name}-{count}.png")
        lines.append(_figure(f"{name}-{count}.png", f"{count} evaluations, {time.perf_counter() - began:.1f} s", 640))
    _plot(denoiser, classes, out / f"{name}-error.svg", seed)
    lines += [
        "<h2>Error against evaluations</h2>",
        _figure(f"{name}-error.svg", "RMSE to 200 steps of Heun", 640, False),
    ]
    return lines


def _plot(denoiser: Denoiser, classes: int, file: Path, seed: int) -> None:
    """Root-mean-square distance to the model's own flow, solved with 200 steps of Heun's method from the same noise."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    cond = {"label": list(range(classes))}
    exact = sample(denoiser, classes, solver="heun", grid="logsnr", steps=200, cond=cond, seed=seed).x
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for solver, grid in SOLVERS:
        points = []
        for count in (4, *COUNTS):
            x = sample(denoiser, classes, solver=solver, grid=grid, evaluations=count, cond=cond, seed=seed).x
            points.append(float((x - exact).square().mean().sqrt()))
        axes.loglog((4, *COUNTS), points, "o-", label=f"{solver}, {grid}")
    axes.set(xlabel="network evaluations a sample", ylabel="RMSE to the exact flow")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(file, bbox_inches="tight")
    pyplot.close(figure)
