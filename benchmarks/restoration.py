"""Restoring CIFAR-10 test pictures with the shipped models, and beside deepinv's DPS, DiffPIR and DDRM.

24 pictures, noise 0.05 of pictures in [−1, 1], 40 evaluations a sample for all, one thread.  PSNR and SSIM to the truth
(higher is better), the distance to it in the features of the shipped classifier (lower), processor seconds a sample.
Phase retrieval is of 8 pictures' light padded to twice their side, 100 evaluations from each of 4 starts, of which the
best fit to y is kept; a picture and its mirror image about the middle have the same y, so the nearer of the two is
judged.

    python benchmarks/restoration.py ../shared/data/cifar10-test.parquet            goes on where a stopped run ended
    python benchmarks/restoration.py ../shared/data/cifar10-test.parquet --fresh    begins anew
    python benchmarks/restoration.py ../shared/data/cifar10-test.parquet --sheet    draws the sheet of pictures
"""

import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import deep_inverse
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from fewstep import load
from fewstep.denoisers import Denoiser
from fewstep.errors import FewstepError
from fewstep.grids import Karras
from fewstep.metrics import psnr
from fewstep.networks.features import load_features
from fewstep.pictures import grid_of
from fewstep.restoration import (
    AverageDownsample,
    Blur,
    Gaussian,
    Mask,
    Measurement,
    PhaseRetrieval,
    Tomography,
    restore,
)
from fewstep.training.data import read_images

SIGMA, CALLS, COUNT, SHOWN = 0.05, 40, 24, 2
RETRIEVAL_CALLS, STARTS, RETRIEVED = 100, 4, 8
TASKS: dict[str, Any] = {
    "inpainting": Mask.random(32, 32, 0.5),
    "4× super-resolution": AverageDownsample(4),
    "deblurring": Blur.gaussian(1.5, 9),
    "8-view tomography": Tomography(32, 8),
    "phase retrieval": PhaseRetrieval(4.0, light=True),
}
Methods = list[tuple[str, dict[str, Any]]]
# deepinv's DDRM steps evenly in σ from 2 in our units and takes singular values below the noise as 0.  Its noise is
# 1/√2 as large as published, but in the coordinates of its blur, half of a Fourier plane, that is all of it.  The
# settings of our ddrm and diffpir were chosen on 40 training pictures, those of the other methods and of deepinv's on
# the first 8 of these.
WIDE, NEAR = Karras(power=1.0, rho_min=0.05, rho_max=2.0), Karras(power=1.0, rho_min=0.03, rho_max=1.0)
METHODS: Methods = [
    ("ddrm", {}),
    ("ddrm", {"temperature": 0.95, "eta": 0.8, "least": 0.03, "grid": WIDE}),
    ("ddrm", {"temperature": 0.7, "eta": 0.8, "least": 0.03, "grid": NEAR}),
    ("diffpir", {"redrawn": 1.0, "grid": NEAR}),
    ("daps", {"chain": "exact", "inner": 1, "data_variance": 0.02, "sigma_max": 10.0, "sigma_min": 0.02}),
    ("pgdm", {"published": True, "data_variance": 0.25}),
    ("dps", {"scale": 5.0}),
]


def ours_beside(method: str, task: str) -> tuple[str, dict[str, Any]]:
    """What of ours stands beside a method of deepinv's: its last row; of ddrm that with as much noise."""
    rows = [row for row in METHODS if row[0] == method]
    return rows[1] if method == "ddrm" and task == "deblurring" else rows[-1]


NONLINEAR: Methods = [
    ("daps", {"inner": 1, "moves": 40, "step_size": 2e-3, "sigma_max": 20.0, "sigma_min": 0.02}),
    ("dps", {"scale": 10.0}),
]
# deepinv's defaults, and what served it best here: its DiffPIR with the same ζ as ours, its DPS with more weight.
DIFFPIR, DPS = [("diffpir", {}), ("diffpir", {"zeta": 1.0})], [("dps", {}), ("dps", {"weight": 40.0})]
PEERS: Methods = [("ddrm", {}), *DIFFPIR, *DPS]
COMPARED = ("inpainting", "4× super-resolution", "deblurring")
HEAD = ["| task | method | evaluations | PSNR | SSIM | features | s a sample |", "|---|---|---|---|---|---|---|"]


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """The structural similarity of pictures in [−1, 1], (batch,): Gaussian windows of 11 pixels, deviation 1.5."""
    line = torch.exp(-0.5 * ((torch.arange(11) - 5) / 1.5) ** 2)
    window = (line[:, None] * line / line.sum() ** 2).expand(3, 1, 11, 11)

    def smooth(x: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(x.float(), window, groups=3)

    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b, both = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2, smooth(a * b) - mean_a * mean_b
    low, high = 0.02**2, 0.06**2
    value = (2 * mean_a * mean_b + low) * (2 * both + high)
    return (value / ((mean_a**2 + mean_b**2 + low) * (var_a + var_b + high))).flatten(1).mean(1)


class Judge:
    """Figures of restored pictures, of the first of the truths."""

    def __init__(self, truth: Tensor) -> None:
        self.truth, self.features = truth, load_features("cifar10")
        self.seen = self.features(truth.float())

    def __call__(self, x: Tensor) -> tuple[float, float, float]:
        x, truth = x.float().clamp(-1, 1), self.truth[: len(x)].float()
        far = torch.linalg.vector_norm(self.features(x) - self.seen[: len(x)], dim=1).mean()
        return float(psnr(x, truth).mean()), float(ssim(x, truth).mean()), float(far)


Figures = tuple[float, float, float]


def row(task: str, label: str, asked: int, figures: Figures, seconds: float) -> str:
    """A row; the seconds are a sample's."""
    return f"| {task} | {label} | {asked} | {figures[0]:.2f} | {figures[1]:.3f} | {figures[2]:.2f} | {seconds:.3f} |"


def parsed(line: str) -> tuple[Figures, float]:
    """(the figures, seconds a sample) of a row."""
    cells = [cell.strip() for cell in line.split("|")[4:8]]
    return (float(cells[0]), float(cells[1]), float(cells[2])), float(cells[3])


def named(method: str, options: dict[str, Any]) -> str:
    """A method with its options, for a table."""
    return f"`{method}`" + "".join(f" {k}={v}" for k, v in options.items())


def ours(model: Denoiser, seen: Measurement, method: str, options: dict[str, Any]) -> tuple[Tensor, int]:
    """(the restored pictures, evaluations a picture)."""
    starts, calls = (1, CALLS) if seen.linear else (STARTS, RETRIEVAL_CALLS)
    rows = len(seen.y)
    label = {"label": [model.null["label"]] * (starts * rows)} if "label" in model.null else None
    out = restore(model, seen, method, evaluations=calls, samples=starts, cond=label, seed=1, **options)
    if starts == 1:
        return out.x, out.stats.evaluations
    misfit = seen.repeated(starts).residual(out.x).flatten(1).square().sum(1).reshape(rows, starts)
    best = out.x.reshape(rows, starts, *out.x.shape[1:])[torch.arange(rows), misfit.argmin(1)]
    return best, starts * out.stats.evaluations


def upright(x: Tensor, truth: Tensor) -> Tensor:
    """Of every picture and its mirror image about the middle the one that is nearer to the truth."""
    mirrored = x.flip(-1, -2)
    nearer = (mirrored - truth).flatten(1).norm(dim=1) < (x - truth).flatten(1).norm(dim=1)
    return torch.where(nearer[:, None, None, None], mirrored, x)


class Page:
    """The page, section by section; rows of an earlier run are kept."""

    def __init__(self, title: list[str], fresh: bool) -> None:
        self.lines, self.section, self.file = title, "", Path(__file__).with_suffix(".md")
        self.before: dict[tuple[str, str, str], str] = {}
        section = ""
        for line in [] if fresh or not self.file.exists() else self.file.read_text(encoding="utf8").splitlines():
            section = line[3:] if line.startswith("## ") else section
            if line.startswith("| ") and not line.startswith("| task"):
                self.before[section, *self._key(line)] = line

    @staticmethod
    def _key(line: str) -> tuple[str, str]:
        return line.split(" | ")[0][2:], line.split(" | ")[1]

    def begin(self, section: str, *lines: str) -> None:
        self.section = section
        self.lines += ["", f"## {section}", "", *lines]

    def row(self, task: str, label: str, make: Callable[[], str]) -> str:
        """The row of an earlier run, or what `make` measures; the page is written after each."""
        key = (self.section, task, label)
        if key not in self.before:
            self.before[key] = make()
        self.lines.append(self.before[key])
        self.to_file()
        return self.before[key]

    def to_file(self) -> None:
        """What there is, and under their own headings the rows of an earlier run that this one has not come to."""
        written = set(self.lines)
        rest: dict[str, list[str]] = {}
        for (section, *_), line in self.before.items():
            if line not in written:
                rest.setdefault(section, []).append(line)
        here = rest.pop(self.section, [])
        more = [text for section, rows in rest.items() for text in ("", f"## {section}", "", *rows)]
        self.file.write_text("\n".join([*self.lines, *here, *more]) + "\n", encoding="utf8")


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if len(sys.argv) < 2:
        raise SystemExit("usage: python benchmarks/restoration.py cifar10-test.parquet [--fresh | --sheet]")
    dinv = deep_inverse.deepinv()
    truth = read_images(sys.argv[1])[0][:COUNT].float() / 127.5 - 1
    judge = Judge(truth)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    title = [
        "# Restoring CIFAR-10 test pictures", "", f"{date.today()}, commit {commit}, {platform.machine()} CPU, one "
        f"thread, torch {torch.__version__}, deepinv {dinv.__version__ if dinv else 'not installed'}. {COUNT} pictures "
        f"of the test set ({RETRIEVED} for phase retrieval), noise {SIGMA}, {CALLS} evaluations a sample; the "
        "settings of ddrm and diffpir were chosen on training pictures. `benchmarks/restoration.py` says what the "
        "columns are; one sample each, of "
        "a posterior: averages of samples have a higher PSNR.", "",
        "Pictures, a row a task: truth, measurement, then the methods in the order of the tables; of `cifar10`:", "",
        "![restored with cifar10](../docs/pictures/restoration.jpg)", "", "and of `cifar10-lowrank`:", "",
        "![restored with cifar10-lowrank](../docs/pictures/restoration-lowrank.jpg)",
    ]  # fmt: skip
    page = Page(title, "--fresh" in sys.argv)
    seen = {}
    for name, operator in TASKS.items():
        count = RETRIEVED if isinstance(operator, PhaseRetrieval) else COUNT
        seen[name] = Measurement.simulate(operator, truth[:count], Gaussian(SIGMA), seed=2)
    if "--sheet" in sys.argv:
        sheet("cifar10", seen, truth, "restoration.jpg")
        sheet("cifar10-lowrank", seen, truth, "restoration-lowrank.jpg")
        return
    found = table(page, "cifar10", seen, judge)
    if dinv is not None:
        beside(dinv, page, seen, judge, found)
    table(page, "cifar10-lowrank", seen, judge)
    page.file.write_text("\n".join(page.lines) + "\n", encoding="utf8")
    print("\n".join(page.lines))


def table(page: Page, name: str, seen: dict[str, Measurement], judge: Judge) -> dict[tuple[str, str], str]:
    """The table of a model: the row of every (task, method)."""
    model, rows = load(name), {}
    page.begin(name, *HEAD)
    for task, measurement in seen.items():
        for method, options in methods_for(measurement):
            make = partial(measured, model, task, measurement, method, options, judge)
            rows[task, named(method, options)] = page.row(task, named(method, options), make)
    return rows


def methods_for(measurement: Measurement) -> Methods:
    return METHODS if measurement.linear else NONLINEAR


def measured(model: Denoiser, task: str, seen: Measurement, method: str, options: dict[str, Any], judge: Judge) -> str:
    """The row of a method of ours."""
    Console(stderr=True).print(model.name, task, method)
    began = time.process_time()
    try:
        x, asked = ours(model, seen, method, options)
    except FewstepError as error:
        return f"| {task} | {named(method, options)} | {str(error)[:60]} | | | | |"
    took = time.process_time() - began
    x = x if seen.linear else upright(x, judge.truth[: len(x)])
    return row(task, named(method, options), asked, judge(x), took / len(x))


def sheet(name: str, seen: dict[str, Measurement], truth: Tensor, file: str) -> None:
    """The sheet of pictures: a row a task; the same pictures in every block: truth, measurement, the methods."""
    model, blocks = load(name), []
    for measurement in seen.values():
        few = replace(measurement, y=measurement.y[:SHOWN])
        made = [ours(model, few, method, options)[0].float() for method, options in methods_for(measurement)]
        made = made if measurement.linear else [upright(x, truth[:SHOWN]) for x in made]
        blocks.append([truth[:SHOWN], shown(few, truth[:SHOWN]), *made])
    width = max(map(len, blocks))
    blank = torch.ones_like(truth[:SHOWN])
    cells = [cell.float() for row in blocks for cell in [*row, *[blank] * (width - len(row))]]
    image = grid_of(torch.cat(cells), columns=width * SHOWN)
    image = image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST)
    where = Path(__file__).parents[1] / "docs" / "pictures" / file
    where.parent.mkdir(exist_ok=True)
    image.save(where, quality=80)


def shown(measurement: Measurement, truth: Tensor) -> Tensor:
    """What was measured as a picture: y where it has the picture's size, else A†y, else y scaled to that size."""
    if measurement.y.shape[1:] == truth.shape[1:]:
        return measurement.y.float().clamp(-1, 1)
    if measurement.inverts(measurement.operator):
        return measurement.project(measurement.y).float().clamp(-1, 1)
    return torch.nn.functional.interpolate(measurement.y.float(), truth.shape[-2:]).clamp(-1, 1)


def beside(
    dinv: Any, page: Page, seen: dict[str, Measurement], judge: Judge, found: dict[tuple[str, str], str]
) -> None:
    """deepinv's own methods on the same measurements and denoiser, and what they are to ours."""
    model, truth = load("cifar10"), judge.truth
    page.begin(
        "Beside deepinv, cifar10", "The same denoiser, y and budget. Ours is the last row of that method in the first "
        "table; deepinv's is at its defaults, and with a parameter that served it better. Its super-resolution is "
        "given the singular values that its DDRM needs. Gains are ours minus deepinv's (of features less is better), "
        "the last column deepinv's seconds over ours. The noise that its DDRM draws is 1/√2 of the published, which "
        "trades features for PSNR; in the coordinates of its blur it is all of it. So its deblurring stands beside the "
        "second row of ours, the rest beside the third. Of one sample a picture another seed moves both PSNR and "
        "features by up to 0.1.", "",
        "| task | method | deepinv: evaluations | PSNR | SSIM | features | s a sample | PSNR gained | SSIM gained | "
        "features | times as fast |", "|---|---|---|---|---|---|---|---|---|---|---|",
    )  # fmt: skip
    for task in COMPARED:
        made = deep_inverse.physics(dinv, task, TASKS[task], SIGMA)
        unit = (truth + 1) / 2
        assert torch.allclose(made.A(unit), TASKS[task].A(unit), atol=1e-4), task
        # A(1) turns the units of y as those of x.
        y = ((seen[task].y + TASKS[task].A(torch.ones_like(truth))) / 2).float()
        for method, options in PEERS:
            ours_there = parsed(found[task, named(*ours_beside(method, task))])
            make = partial(peer, dinv, model, made, y, task, method, options, judge, ours_there)
            page.row(task, named(method, options), make)


def peer(
    dinv: Any, model: Denoiser, made: Any, y: Tensor, task: str, method: str, options: dict[str, Any], judge: Judge,
    ours_there: tuple[Figures, float],
) -> str:  # fmt: skip
    """The row of a method of deepinv's."""
    Console(stderr=True).print("deepinv", task, method, options)
    denoiser = deep_inverse.denoiser_for(dinv, model)
    torch.manual_seed(1)
    began = time.process_time()
    x = deep_inverse.restored(dinv, denoiser, method, made, y, CALLS, SIGMA, **options)
    seconds = (time.process_time() - began) / len(x)
    figures, (mine, took) = judge(x), ours_there
    gains = " | ".join(f"{a - b:+.{k}f}" for a, b, k in zip(mine, figures, (2, 3, 2), strict=True))
    line = row(task, named(method, options), denoiser.asked, figures, seconds)
    return f"{line} {gains} | {seconds / took:.2f} |"


if __name__ == "__main__":
    main()
