"""Samplers compared on one denoiser: the same noises, error to the exact flow, time, pictures side by side."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.analysis.reference import reference_ends
from fewstep.checking import checked, checked_count, checked_device, checked_list, checked_plot
from fewstep.denoisers import Denoiser
from fewstep.engines import Engine
from fewstep.errors import ArgumentError
from fewstep.grids import Grid
from fewstep.guidance import Guide
from fewstep.noise import KeyedNoise
from fewstep.pictures import grid_of
from fewstep.plan import Plan
from fewstep.planning import named
from fewstep.sampling import sample
from fewstep.solvers import Solver

SHOWN = 8


@dataclass(frozen=True)
class Compared:
    """One sampler at one number of evaluations.

    Args:
        solver, grid: their names.
        evaluations: what was spent a sample, guidance counted.
        error: the median over samples of the RMSE to the reference; None for a sampler that draws noise.
        seconds: the time of the whole batch.
        x: the samples; of a latent model, decoded.
    """

    solver: str
    grid: str
    evaluations: int
    error: float | None
    seconds: float
    x: Tensor = field(repr=False)


@dataclass(frozen=True)
class Comparison:
    """What `compare` gives back: it prints as a table and saves as a picture.

    Args:
        rows: one for every solver, grid and number of evaluations.
        reference: what the error is measured from, (batch, *picture_shape).
        against: what the reference is, in words.
        limits: the range of the data.
    """

    rows: list[Compared]
    reference: Tensor = field(repr=False)
    against: str
    limits: tuple[float, float]

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"median RMSE to {self.against}, {len(self.reference)} samples", box=None)
        for name in ("solver", "grid", "evaluations", "error", "seconds"):
            table.add_column(name, justify="left" if name in ("solver", "grid") else "right")
        for row in self.rows:
            error = "draws noise" if row.error is None else f"{row.error:.3g}"
            table.add_row(row.solver, row.grid, str(row.evaluations), error, f"{row.seconds:.2f}")
        console = Console(file=io.StringIO(), width=100, color_system=None)
        console.print(table)
        return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]

    @property
    def best(self) -> dict[int, Compared]:
        """For every number of evaluations that was spent, the row with the least error."""
        best: dict[int, Compared] = {}
        for row in self.rows:
            if row.error is not None and (
                row.evaluations not in best or row.error < (best[row.evaluations].error or 0)
            ):
                best[row.evaluations] = row
        return best

    def save(self, path: str | Path) -> None:
        """Write the error curves, and under them the first samples of every sampler, as one picture (PNG, SVG, PDF).

        Raises:
            ArgumentError: the name ends as no kind of picture does.
        """
        checked_plot(path)
        self._figure().savefig(path, bbox_inches="tight", dpi=150)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self._figure().savefig(buffer, bbox_inches="tight", dpi=110, format="png")
        return buffer.getvalue()

    def _curves(self) -> dict[str, list[Compared]]:
        curves: dict[str, list[Compared]] = {}
        for row in self.rows:
            curves.setdefault(f"{row.solver}, {row.grid}", []).append(row)
        return curves

    def _figure(self) -> Any:
        from matplotlib.figure import Figure
        from matplotlib.gridspec import GridSpec

        curves, pictures = self._curves(), self.reference.ndim == 4 and self.reference.shape[1] in (1, 3)
        strips = [(f"{row.solver}, {row.grid}: {row.evaluations}", row.x) for row in self.rows] if pictures else []
        strips += [(self.against, self.reference)] if pictures else []
        figure = Figure(figsize=(8, 4.75 + 0.8 * len(strips)))
        places = GridSpec(
            2 + len(strips), 1, height_ratios=[4.5, 0.25, *[0.8] * len(strips)], hspace=0.12, figure=figure
        )
        axes = figure.add_subplot(places[0])
        for name, rows in curves.items():
            known = [(row.evaluations, row.error) for row in rows if row.error is not None]
            if known:
                axes.loglog(*zip(*known, strict=True), "o-", label=name)
        counts = sorted({row.evaluations for row in self.rows})
        axes.set_xticks(counts, [str(n) for n in counts])
        axes.minorticks_off()
        axes.set_title(f"median RMSE to {self.against}, against evaluations a sample", fontsize=10)
        axes.grid(True, alpha=0.3)
        if axes.lines:  # samplers that draw noise have no error to show
            axes.legend(fontsize=8)
        for i, (name, x) in enumerate(strips):
            place = figure.add_subplot(places[i + 2])
            place.imshow(grid_of(x[:SHOWN], self.limits, min(SHOWN, len(x))), cmap="gray", interpolation="nearest")
            place.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
            place.set(xticks=[], yticks=[])
        return figure


@checked
def compare(
    denoiser: Denoiser,
    solvers: Sequence[str | Solver] = ("ddim", "dpm-solver++"),
    evaluations: Sequence[int] = (5, 8, 10),
    *,
    grids: Sequence[str | Grid] = ("logsnr",),
    plans: Mapping[str, Plan] | None = None,
    n: int = 16,
    guides: Sequence[Guide] = (),
    cond: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    engine: str = "local",
    address: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> Comparison:
    """Run samplers on the same noises and measure how far each is from the exact flow.

    The reference is the flow itself where the denoiser is a world's and no guide bends it, else 100 steps of Heun's
    method (200 evaluations) with the same guides.  The samples of a latent model are decoded, and so is the reference.

    Args:
        denoiser: the model.
        solvers: names of the catalogue, or solvers; "auto" is the shipped tuned plans, on their own grids.
        evaluations: how many a sample may be spent, guidance counted; the most steps that fit are taken.
        grids: names or grids; every solver runs on each, but one whose name says a grid, such as "DPM++ 2M Karras",
            on that one alone.
        plans: further plans by name, such as tuned ones, each at its own number of evaluations.
        n: samples.
        guides, cond, seed, device: as in `sample`.
        engine: "local", or "ray": every sampler is a task of its own; seconds are then of workers side by side.
        address: of a Ray cluster; this machine's cores unless given.
        tell: called with a line after every run.

    Raises:
        ArgumentError: nothing to compare, or a bad argument of `sample`.
        MissingExtraError: engine="ray" without Ray.
    """
    where = checked_device(device)
    for name, value in (("solvers", solvers), ("evaluations", evaluations), ("grids", grids), ("guides", guides)):
        checked_list(name, value)
    if not isinstance(denoiser, Denoiser):
        raise ArgumentError(f"denoiser must be a fewstep denoiser (see fewstep.wrap), got {type(denoiser).__name__}")
    checked_count("n", n, denoiser.shape)
    for name, given in (("plans", plans), ("conditions", cond)):
        checked_list(f"the names of {name}", list(given or ()), str)
    spread = Engine(engine, address, gpus=int(where.type == "cuda"))
    if not (solvers and grids and evaluations) and not plans:
        raise ArgumentError("give at least one solver, one grid and one number of evaluations, or plans")
    same: dict[str, Any] = {"guides": guides, "cond": cond, "seed": seed, "device": device}
    wanted = _wanted(solvers, grids, evaluations, plans or {})
    noise = KeyedNoise(seed, range(n), denoiser.shape, torch.float32, device).start()
    start = noise * denoiser.path.sigma(1.0).to(device, torch.float32)
    reference, against, _ = reference_ends(denoiser, start, cond, guides)
    reference = _pictures(denoiser, reference)
    found: dict[int, Compared] = {}
    shared = (denoiser, n, same, reference)
    for (place, *_), row in spread.spread(_measured, [(i, *one) for i, one in enumerate(wanted)], shared):
        found[place] = row
        if tell is not None:
            tell(f"{row.solver}, {row.grid}: {row.evaluations} evaluations, {row.seconds:.2f} s")
    return Comparison([found[place] for place in sorted(found)], reference, against, denoiser.limits)


def _wanted(
    solvers: Sequence[str | Solver], grids: Sequence[str | Grid], evaluations: Sequence[int], plans: Mapping[str, Plan]
) -> list[tuple[str, str, dict[str, Any]]]:
    """(solver, grid, the options of `sample`) of every run that is compared."""
    wanted: list[tuple[str, str, dict[str, Any]]] = []
    for solver in solvers:
        if solver == "auto":  # the tuned plans have grids of their own
            wanted += [("auto", "tuned", {"solver": "auto", "evaluations": count}) for count in evaluations]
            continue
        its = named(solver, None)[1] if isinstance(solver, str) else None
        for grid in grids if its is None else (its,):
            names = [v if isinstance(v, str) else type(v).__name__ for v in (solver, grid)]
            wanted += [
                (names[0], names[1], {"solver": solver, "grid": grid, "evaluations": count}) for count in evaluations
            ]
    for name, plan in plans.items():
        if not isinstance(plan, Plan):
            raise ArgumentError(f"plans must be plans (see fewstep.make_plan), got {plan!r} as {name!r}")
        wanted.append((name, str(plan.source.get("grid", "")), {"plan": plan}))
    return wanted


def _measured(
    shared: tuple[Denoiser, int, dict[str, Any], Tensor], one: tuple[int, str, str, dict[str, Any]]
) -> Compared:
    """One sampler's row."""
    (denoiser, n, same, reference), (_, name, grid, options) = shared, one
    out = sample(denoiser, n, **options, **same)
    x, spent = _pictures(denoiser, out.x), out.stats.evaluations
    error = (x.double() - reference.to(x.device)).flatten(1).square().mean(1).sqrt().median()
    return Compared(name, grid, spent, None if out.plan.stochastic else float(error), out.stats.seconds, x)


def _pictures(denoiser: Denoiser, states: Tensor) -> Tensor:
    """What states show: themselves, or of a latent model decoded."""
    if not denoiser.latent:
        return states
    with torch.no_grad():
        return denoiser.decode(states.float())
