"""Every tuner of the catalogue, untuned plans and the best of the peers, at the same evaluations, in one run.

On worlds a tuner sees one mixture, and its plan is judged on another of the same family by the median over samples of
the RMSE to the exact flow; beside it stand the plan that it began with and what it spent.  The peers' best is that of
all deterministic samplers and spacings of diffusers and k-diffusion.  On trained models the shipped tuned plans are
measured by the Fréchet distance, in a classifier's features, to many steps of the same model from other noises.

    python benchmarks/tuned.py [tuner …]
"""

import platform
import subprocess
import sys
import time
import warnings
from datetime import date
from pathlib import Path

import torch
from error_per_evaluation import PATH, best, error, k_rows, peer_rows
from rich.console import Console
from torch import Tensor

from fewstep import load, make_plan, methods, sample
from fewstep.denoisers import Denoiser
from fewstep.errors import FewstepError
from fewstep.metrics import frechet_distance
from fewstep.networks.features import load_features
from fewstep.plan import Plan
from fewstep.tuning import Problem
from fewstep.tuning.descent import mixtures
from fewstep.tuning.tune import tuner_named

COUNTS = (4, 5, 6, 8, 10)
JUDGED, NOISES = 128, 64
FAMILIES = ("20 close modes", "20 modes", "20 separated modes", "variances from 100 to 0.03")
MODELS = ("mnist", "cifar10")
UNTUNED = (("dpm-solver++", "logsnr"), ("unipc", "logsnr"), ("ipndm", "logsnr"), ("ddim", "uniform"))
PICTURES, FINE = 512, 50
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Cell = tuple[float, float, int, float]


def ran(denoiser: Denoiser, plan: Plan, start: Tensor, exact: Tensor) -> float:
    return error(sample(denoiser, start=start, plan=plan).x, exact)


def tuned(name: str, count: int, seen: Denoiser, judge: tuple[Denoiser, Tensor, Tensor]) -> Cell | None:
    """(untuned error, tuned error, evaluations spent, seconds), or None where the tuner has no such plan."""
    problem = Problem(seen, count, samples=NOISES)
    try:
        tuner, began = tuner_named(name), time.perf_counter()
        before, plan = tuner.untuned(problem), tuner(problem)
        seconds = time.perf_counter() - began
        if plan.stochastic or plan.evaluations > count:
            return None
        return ran(judge[0], before, *judge[1:]), ran(judge[0], plan, *judge[1:]), problem.spent, seconds
    except FewstepError:
        return None


def world_table(names: list[str], which: int, console: Console) -> list[str]:
    """The rows of one family of mixtures."""
    seen, judge = mixtures(PATH, 7, 2)[which][0], mixtures(PATH, 6, JUDGED)[which]
    rows = peer_rows(*judge, COUNTS) + k_rows(*judge, COUNTS)
    peers = {count: best(rows, count) for count in COUNTS}
    lines = [
        f"## {FAMILIES[which]}", "", f"| | {' | '.join(map(str, COUNTS))} | evaluations spent | seconds |",
        "|---|" + "---|" * (len(COUNTS) + 2),
        "| best peer | " + " | ".join(f"{e:.2g} ({n})" for n, e in peers.values()) + " | | |",
    ]  # fmt: skip
    for solver, grid in UNTUNED:
        found = [ran(judge[0], make_plan(PATH, solver, grid, evaluations=count), *judge[1:]) for count in COUNTS]
        lines.append(f"| {solver}, {grid} | " + " | ".join(f"{e:.2g}" for e in found) + " | | |")
    shipped = [ran(judge[0], make_plan(PATH, "auto", evaluations=count), *judge[1:]) for count in COUNTS]
    told = (f"{e:.2g} (÷{peers[c][1] / e:.1f})" for e, c in zip(shipped, COUNTS, strict=True))
    lines.append("| **auto** (shipped) | " + " | ".join(told) + " | 0 | 0 |")
    for name in names:
        console.print(f"{FAMILIES[which]}: {name}")
        cells = [tuned(name, count, seen, judge) for count in COUNTS]
        told = (
            "–" if cell is None else f"{cell[0]:.2g} → {cell[1]:.2g} (÷{peers[count][1] / cell[1]:.1f})"
            for cell, count in zip(cells, COUNTS, strict=True)
        )  # fmt: skip
        spent, seconds = (sum(cell[k] for cell in cells if cell is not None) for k in (2, 3))
        lines.append(f"| {name} | {' | '.join(told)} | {spent:,} | {seconds:.0f} |")
    return [*lines, ""]


def model_table(name: str, console: Console) -> list[str]:
    """The rows of one trained model."""
    console.print(name)
    denoiser, features = load(name, device=DEVICE), load_features(name, device=DEVICE)

    def pictures(plan: Plan, first: int) -> Tensor:
        cond = {"label": [i % 10 for i in range(PICTURES)]}
        return sample(denoiser, PICTURES, plan=plan, cond=cond, first=first, device=DEVICE).x.clamp(-1, 1)

    fine = make_plan(denoiser.path, "dpm-solver++3m", "logsnr", FINE)
    reference, floor = pictures(fine, PICTURES), pictures(fine, 0)
    lines = [
        f"## {name}", "",
        f"{FINE} steps from the same noises: {float(frechet_distance(floor, reference, features)):.3f}", "",
        f"| | {' | '.join(map(str, COUNTS))} |", "|---|" + "---|" * len(COUNTS),
    ]  # fmt: skip
    kinds = [(f"{solver}, {grid}", {"solver": solver, "grid": grid}) for solver, grid in UNTUNED]
    least = [float("inf")] * len(COUNTS)
    for label, options in [*kinds, ("**auto** (shipped)", {"solver": "auto", "model": name})]:
        plans = [make_plan(denoiser.path, evaluations=count, **options) for count in COUNTS]  # type: ignore[arg-type]
        found = [float(frechet_distance(pictures(plan, 0), reference, features)) for plan in plans]
        ratios = (
            [""] * len(COUNTS)
            if label in dict(kinds)
            else [f" (÷{a / b:.2f})" for a, b in zip(least, found, strict=True)]
        )
        lines.append(f"| {label} | " + " | ".join(f"{f:.3f}{r}" for f, r in zip(found, ratios, strict=True)) + " |")
        least = [min(pair) for pair in zip(least, found, strict=True)]
    return [*lines, ""]


def main(arguments: list[str]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1 if DEVICE == "cuda" else torch.get_num_threads())
    console = Console(stderr=True)
    names = arguments or [m.name for m in methods() if m.family == "tuning"]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    lines = [
        "# Tuned plans", "",
        f"{date.today()}, commit {commit}, {platform.machine()} CPU, {DEVICE} for trained models, torch "
        f"{torch.__version__}. Worlds: median over {JUDGED} samples of the RMSE to the exact flow, in 64 dimensions, "
        "on a mixture that no tuning saw; untuned → tuned, in brackets how many times smaller than the best peer's. "
        f"Cost: of all columns together. Models: Fréchet distance of {PICTURES} pictures; auto in brackets against the "
        "best untuned.", "",
    ]  # fmt: skip
    parts = [lambda which=which: world_table(names, which, console) for which in range(len(FAMILIES))]
    parts += [lambda name=name: model_table(name, console) for name in MODELS]
    for part in parts:
        lines += part()
        text = "\n".join(lines)  # written world by world, so that an interrupted run keeps what it measured
        (Path(__file__).parent / "tuned.md").write_text(text + "\n", encoding="utf8")
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
