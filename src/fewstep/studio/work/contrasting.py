"""Samplers side by side: the same noises, the error to the exact flow, and the pictures."""

import base64
import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fewstep.comparison import Comparison, compare
from fewstep.errors import ArgumentError
from fewstep.studio.bounds import RUNS, fits, whole
from fewstep.studio.guides import Chosen, guides_code, imports
from fewstep.studio.models import MNIST, Model
from fewstep.studio.showing import picture_html, samples, table_html
from fewstep.studio.watching import Done, Progress, followed, watched

SHOWN = 8


def counts(text: str) -> tuple[int, ...]:
    """Numbers of evaluations from a text such as "4, 8, 16".

    Raises:
        ArgumentError: it is none, or a number is out of bounds.
    """
    try:
        found = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ArgumentError(f"evaluations are whole numbers with commas, such as 4, 8, 16; got {text!r}") from None
    return tuple(dict.fromkeys(whole("evaluations", n) for n in found))


@dataclass(frozen=True)
class Contrast:
    """What is to be compared.

    Args:
        model: which, and what it is told.
        solvers, grids, evaluations: every solver runs on every grid at every number of evaluations.
        n: noises, the same for all.
        guides: the same for all.
        seed: of the noises.
    """

    model: Model = MNIST
    solvers: tuple[str, ...] = ("ddim", "dpm-solver++")
    grids: tuple[str, ...] = ("logsnr",)
    evaluations: tuple[int, ...] = (4, 8, 16)
    n: int = 8
    guides: tuple[Chosen, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        whole("pictures", self.n)
        whole("seed", self.seed)
        if not (self.solvers and self.grids and self.evaluations):
            raise ArgumentError("choose at least one solver, one grid and one number of evaluations")
        runs = len(self.solvers) * len(self.grids) * len(self.evaluations)
        if runs > RUNS:
            raise ArgumentError(f"at most {RUNS} runs a comparison here; this asks for {runs}: choose fewer")

    def code(self) -> str:
        """Python that gives the same table."""
        told = self.model.condition_code(self.model.load(), self.n)
        options = [
            f"{list(self.solvers)!r}", f"{list(self.evaluations)!r}", f"grids={list(self.grids)!r}", f"n={self.n}",
            guides_code(self.guides), f"cond={told}" if told else "", f"seed={self.seed}",
        ]  # fmt: skip
        call = ",\n    ".join(["den", *filter(None, options)])
        return "\n".join([
            "import fewstep", *imports(self.guides), "", self.model.code(),
            f"result = fewstep.compare(\n    {call},\n)", "print(result)", 'result.save("compare.png")', "",
        ])  # fmt: skip


def contrasted(ask: Contrast, stop: threading.Event) -> Iterator[Progress | Done[Comparison]]:
    """Compare, and yield how far it is; at the end the comparison, or None after a stop.

    Raises:
        ArgumentError: a bad request.
    """
    denoiser = ask.model.load()
    fits(denoiser, ask.n)
    cond = ask.model.condition(denoiser, ask.n)
    asked: dict[str, Any] = {"questions": 0, "line": "the reference, which has many steps"}

    def work(tell: Callable[[Progress], None]) -> Comparison:
        def seen(rows: int) -> None:
            asked["questions"] += 1
            tell(Progress(f"{asked['line']}; {asked['questions']} questions to the network so far"))

        def after(line: str) -> None:
            asked["line"] = line
            tell(Progress(line))

        return compare(
            watched(denoiser, stop, seen), ask.solvers, ask.evaluations, grids=ask.grids, n=ask.n,
            guides=[g.make() for g in ask.guides], cond=cond, seed=ask.seed, tell=after,
        )  # fmt: skip

    yield Progress("beginning with the reference")
    yield from followed(work, stop)


def comparison_html(ask: Contrast, result: Comparison) -> str:
    """The error curves, and a table with the pictures of every sampler."""
    denoiser = ask.model.load()

    def strip(x: Tensor) -> str:
        shown = x[:SHOWN].detach()
        return picture_html(samples(shown, denoiser, len(shown)), "samples", 28 * len(shown))

    rivals = [row.evaluations for row in result.rows if row.error is not None]
    best = {id(row) for row in result.best.values() if rivals.count(row.evaluations) > 1}
    rows = []
    for row in result.rows:
        error = "draws noise" if row.error is None else f"{row.error:.3g}"
        error = f"<b>{error}</b>" if id(row) in best else error
        where = row.solver if row.grid == "logsnr" else f"{row.solver}, {row.grid}"
        rows.append([where, str(row.evaluations), error, f"{row.seconds:.2f}", strip(row.x)])
    rows.append([result.against, "", "0", "", strip(result.reference)])
    table = table_html(["sampler", "evaluations", "error", "seconds", f"the first {min(SHOWN, ask.n)} noises"], rows)
    says = (
        f"Error: median over {ask.n} noises of the RMSE to {result.against}; the least of several at one cost is bold."
    )
    return f"{_curves(ask, result)}<p class=note>{says}</p>{table}"


def _curves(ask: Contrast, result: Comparison) -> str:
    """Error against evaluations as an SVG in the page."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.1), layout="constrained")
    axes = figure.subplots()
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in result.rows:
        if row.error is not None:
            lines.setdefault(f"{row.solver}, {row.grid}", []).append((row.evaluations, row.error))
    if not lines:
        return ""
    for name, points in lines.items():
        axes.loglog(*zip(*sorted(points), strict=True), "o-", label=name, lw=2)
    ticks = sorted(ask.evaluations)
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.minorticks_off()
    axes.set(xlabel="network evaluations a sample", ylabel=f"RMSE to {result.against}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="plot" src="data:image/svg+xml;base64,{data}" alt="error against evaluations">'
