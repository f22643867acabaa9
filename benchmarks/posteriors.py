"""Every restorer against exact posteriors: small pictures from a mixture, four linear measurements.

For 4 measurements, 200 samples each: the sliced W2 to samples of the exact posterior (beside it what two sets of exact
samples have), and the RMSE of the mean and of the standard deviation.  For 150 measurements of pictures drawn from the
prior, 19 samples each: how often the truth lies between the 5th and the 15th and between the 1st and the 19th of them,
number by number, which is 50 % and 90 % where the samples have the posterior's law (simulation-based calibration).
Samples of the prior have them too, so that coverage tells something beside the distances alone.  Processor time.

    python benchmarks/posteriors.py            goes on where a stopped run ended
    python benchmarks/posteriors.py --fresh    begins anew
"""

import platform
import subprocess
import sys
import time
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from fewstep import VP, methods
from fewstep.errors import FewstepError
from fewstep.metrics import sliced_w2
from fewstep.restoration import (
    AverageDownsample,
    Blur,
    Gaussian,
    Mask,
    Measurement,
    RandomProjection,
    Restored,
    restore,
)
from fewstep.worlds import GaussianMixture
from fewstep.worlds.masked import masked_denoiser

OUT = Path(__file__).with_suffix(".md")
PATH, SIGMA, SHAPE, CALLS = VP.from_betas("linear"), 0.1, (1, 4, 4), 100
TRUTHS, SAMPLES, LOOKED, MANY = 150, 19, 4, 200
OPERATORS: dict[str, Any] = {
    "half of the pixels": Mask.random(4, 4, 0.5),
    "blur": Blur.gaussian(0.7, 3),
    "2× super-resolution": AverageDownsample(2),
    "6 random projections": RandomProjection(SHAPE, 6),
}
HEAD = "| method | evaluations | sliced W2 | mean | std | in 50 % | in 90 % | ms a sample |"
RULE = "|---|---|---|---|---|---|---|---|"
READ = (
    "Coverage alone is met by samples of the prior too (`code` hardly looks at y): read it beside the distances. "
    "Within 3 points of 50 % and of 90 % on all four operators: `daps` with an exact inner draw from the mean, a "
    "belief as narrow as the data and levels down to 0.02. On most: `pgdm` (as the likelihood has it; with the "
    "data's variance it is the nearest in distance), `diffpir` and `noise-refined` (wide). By construction too sure"
    " on noisy y: `ddnm`, `deq`, `replacement`, `repaint`, `lanpaint`, `mcg`, which take y as exact; `red-diff` and"
    " `optimal-boundary` give one point. `ambient-dps` runs on the exact denoiser of masked states, 90 % of which "
    "it sees."
)
# What differs from the catalogue's row: a method may stand with several settings.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "daps": [
        {"step_size": 1e-3, "inner": 5}, {"chain": "exact", "inner": 5},
        {"chain": "exact", "inner": 1, "data_variance": 0.12, "sigma_min": 0.02},
    ],
    "pgdm": [{}, {"data_variance": 0.12}],
    "noise-refined": [{}, {"data_variance": 0.12}],
    "repaint": [{"repeats": 5, "jump_length": 4}],
    "dps": [{}, {"scale": 0.1}],
    "ads": [{"count": 1}],
    "ambient-dps": [{"seen": 0.9, "scale": 0.3}],
    "code": [{"level": 0.5, "step_size": 0.05}],
    "mbir": [{"weight": 0.0, "rho": 1e-3}],
    "lanpaint": [{}, {"pull": 0.0}],
}  # fmt: skip


def world() -> GaussianMixture:
    """Three correlated modes of 4×4 pictures."""
    generator = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(3, 16, 5, dtype=torch.float64, generator=generator))[0]
    means = 0.4 * torch.randn(3, 1, 1, 1, dtype=torch.float64, generator=generator).expand(3, *SHAPE)
    means = means + 0.2 * torch.randn(3, *SHAPE, dtype=torch.float64, generator=generator)
    spread = torch.tensor([0.6, 0.3, 0.15, 0.08, 0.04], dtype=torch.float64).expand(3, 5).clone()
    return GaussianMixture([0.3, 0.3, 0.4], means, torch.full((3, 1), 0.01), basis, spread)


def coverage(truth: Tensor, drawn: Tensor) -> tuple[float, float]:
    """The shares of numbers within the 50 % and the 90 % interval; drawn is (truths, 19, *shape)."""
    below = (drawn < truth[:, None]).sum(1)
    inside = [((below >= k) & (below <= SAMPLES - k)).double().mean() for k in (5, 1)]
    return float(inside[0]), float(inside[1])


class Task:
    """One operator: many measurements, and the exact posteriors of the first."""

    def __init__(self, operator: Any) -> None:
        self.truth = world().sample(TRUTHS, seed=1)
        self.seen = Measurement.simulate(operator, self.truth, Gaussian(SIGMA), seed=2)
        matrix = self.seen.matrix(SHAPE)
        kept = self.seen.y.flatten(1)[:, _measuring(operator, self.seen)]
        self.exact = [world().posterior(matrix, y, SIGMA) for y in kept[:LOOKED]]
        self.samples = [p.sample(MANY, seed=3) for p in self.exact]

    def row(self, label: str, out: Restored, many: Restored, seconds: float) -> str:
        """A row of the table."""
        drawn = many.x.double().reshape(LOOKED, MANY, *SHAPE)
        apart = sum(float(sliced_w2(a, b)) for a, b in zip(drawn, self.samples, strict=True)) / LOOKED
        off = [many.mean[k].double() - p.mean for k, p in enumerate(self.exact)]
        wide = [many.std[k].double().flatten() - p.covariance.diagonal().sqrt() for k, p in enumerate(self.exact)]
        rmse = [float(torch.stack(v).square().mean().sqrt()) for v in (off, wide)]
        inside = coverage(self.truth, out.x.double().reshape(TRUTHS, SAMPLES, *SHAPE))
        cost = 1000 * seconds / len(out.x)
        return (
            f"| {label} | {out.stats.evaluations} | {apart:.3f} | {rmse[0]:.3f} | {rmse[1]:.3f} | "
            f"{100 * inside[0]:.0f} | {100 * inside[1]:.0f} | {cost:.2f} |"
        )

    def exact_row(self) -> str:
        """What samples of the posterior itself have."""
        apart = sum(
            float(sliced_w2(p.sample(MANY, seed=4), s)) for p, s in zip(self.exact, self.samples, strict=True)
        ) / LOOKED  # fmt: skip
        return f"| *the posterior itself* | | {apart:.3f} | 0 | 0 | 50 | 90 | |"


def _measuring(operator: Any, seen: Measurement) -> Tensor:
    """Which numbers of y measure anything."""
    from fewstep.restoration.operators.matrix import dense_matrix

    return dense_matrix(operator, SHAPE).abs().amax(1) > 0


def measure(task: Task, name: str, options: dict[str, Any], label: str) -> str:
    """A row of a method; a method that cannot run says why."""
    common = {"evaluations": CALLS, "seed": 5, **options}
    looked = Measurement(task.seen.operator, task.seen.y[:LOOKED], task.seen.noise)
    denoiser = masked_denoiser(world(), PATH) if name == "ambient-dps" else world().denoiser(PATH)
    began = time.process_time()
    try:
        out = restore(denoiser, task.seen, name, samples=SAMPLES, **common)
        seconds = time.process_time() - began
        many = restore(denoiser, looked, name, samples=MANY, **common)
    except FewstepError as error:
        return f"| {label} | | {str(error).replace('|', '/')[:80]} | | | | | |"
    return task.row(label, out, many, seconds)


def plan() -> list[tuple[str, dict[str, Any], str]]:
    """(method, options, label) of every row of a table."""
    names = [m.name for m in methods() if m.family == "restoration"]
    return [
        (name, options, f"`{name}`" + "".join(f" {k}={v}" for k, v in options.items()))
        for name in names
        for options in SETTINGS.get(name, [{}])
    ]


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    console, done = Console(stderr=True), {}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    title = [
        "# Restorers against exact posteriors", "", f"{date.today()}, commit {commit}, {platform.machine()} CPU, torch "
        f"{torch.__version__}, one thread. 4×4 pictures from three correlated modes, σ_y = {SIGMA}, at most {CALLS} "
        "evaluations a sample whatever the paper spends. `benchmarks/posteriors.py` says what the columns are; 50 and "
        "90 are right, less is too sure, more too wide. Methods for noiseless measurements take y as exact.", "", READ,
    ]  # fmt: skip
    if OUT.exists() and "--fresh" not in sys.argv:
        section = ""
        for line in OUT.read_text(encoding="utf8").splitlines():
            section = line[3:] if line.startswith("## ") else section
            if line.startswith("| `"):
                done[section, line[2 : line.index(" |", 2)]] = line
    lines = list(title)
    for section, operator in OPERATORS.items():
        task = Task(operator)
        lines += ["", f"## {section}", "", HEAD, RULE, task.exact_row()]
        for name, options, label in plan():
            console.print(section, label)
            row = done.get((section, label)) or measure(task, name, options, label)
            done[section, label] = row
            lines.append(row)
            OUT.write_text("\n".join([*lines, *_rest(done, section, lines)]) + "\n", encoding="utf8")
    OUT.write_text("\n".join(lines) + "\n", encoding="utf8")


def _rest(done: dict[tuple[str, str], str], section: str, lines: list[str]) -> list[str]:
    """What an earlier run measured and this one has not come to, so that stopping loses nothing."""
    written, rest = set(lines), []
    for name in OPERATORS:
        rows = [row for (place, _), row in done.items() if place == name and row not in written]
        rest += ([] if name == section or not rows else ["", f"## {name}", "", HEAD, RULE]) + rows
    return rest


if __name__ == "__main__":
    main()
