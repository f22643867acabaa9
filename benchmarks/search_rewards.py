"""What every search finds on the shipped models for how many evaluations, beside best-of-N.

A class is looked for that the model is not told: the reward is log p(class|x) of a shipped classifier, a black box but
for PAHI, which needs its slope.  EnKG takes the same as a measurement that is to be 0.  For AFDPS, which samples
posteriors, there is a second race: a picture averaged over 4×4 pixels, its reward −‖A(x) − y‖²/(2σ_y²).  What PAHI's
fit costs is shared by the runs.  Writes benchmarks/search_rewards.md, docs/search-rewards.svg and the pictures
docs/pictures/search-mnist.png and docs/pictures/search-cifar10.png.  Races that are not run stay as they stand.

    python benchmarks/search_rewards.py [digits | digit | cars | picture | pictures …]
"""

import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
sys.path.insert(0, str(HERE.parent))

import fewstep  # noqa: E402
from docs.pictures.make import sheet  # noqa: E402
from fewstep.networks.features import load_features  # noqa: E402
from fewstep.restoration import AverageDownsample, Gaussian, Measurement  # noqa: E402
from fewstep.search import (  # noqa: E402
    AFDPS,
    PAHI,
    SVDD,
    CollapseWarning,
    EnKG,
    FKSteering,
    Found,
    InverseDesign,
    PathSearch,
    RandomSearch,
    Search,
    ZeroOrderSearch,
)

NONE = 10  # the label of both models that stands for no class
NOISE = 0.3
Entrant = tuple[Search, int | None]
Function = Callable[[Tensor], Tensor]


def class_reward(name: str, digit: int, grad: bool = False) -> Callable[[Tensor], Tensor]:
    """log p(class|x)."""
    network = load_features(name).network

    def reward(x: Tensor) -> Tensor:
        with torch.set_grad_enabled(grad):
            return network(x.float()).log_softmax(1)[:, digit]

    return reward


def entrants(name: str, digit: int, budget: int) -> dict[str, Entrant]:
    """Each method with about as many evaluations as the budget, and its steps; those that fit."""
    reward, n = class_reward(name, digit), budget // 20
    found: dict[str, Entrant] = {"best of N": (RandomSearch(reward, budget // 10), 10)}
    if n >= 2:
        found["FK steering"] = FKSteering(reward, 2.0, n, weighings=6, pick="best"), 20
        found["SVDD"] = SVDD(reward, 2.0, n), 20
        found["SVDD, argmax"] = SVDD(reward, 2.0, n, choice="argmax"), 20
        found["zero-order"] = ZeroOrderSearch(reward, 3, (2 * n - 1) // 3), 10
        found["inverse design"] = InverseDesign(reward, 4, 2 * n // 4 - 1), 10
        # Two paths; branches at 2, 4, 6 and 8 of 10 levels: 1 up, 3 down, and one more answer each.
        found["paths"] = PathSearch(reward, 2, max(1, round((budget - 4) / 32))), 10
    found["PAHI"] = PAHI(class_reward(name, digit, grad=True), None, 0.01, (budget - 4) // 2, RUNS[name] // 2), 4
    if n >= 8:
        aim = EnKG(lambda x: reward(x)[:, None], torch.zeros(1, 1), 16, updates=1, inner=1, steps=budget // 32)
        found["EnKG"] = aim, None
    return found


def inverse_entrants(seen: Measurement, budget: int) -> dict[str, Entrant]:
    """The same for a measurement."""

    def reward(x: Tensor) -> Tensor:
        return -0.5 * (seen.operator.A(x) - seen.y).flatten(1).square().sum(1) / NOISE**2

    n = budget // 20
    found: dict[str, Entrant] = {"best of N": (RandomSearch(reward, budget // 10), 10)}
    if n >= 2:
        found["FK steering"] = FKSteering(reward, 1.0, n, weighings=10, pick="best"), 20
        found["SVDD"] = SVDD(reward, 1.0, n), 20
        found["zero-order"] = ZeroOrderSearch(reward, 3, (2 * n - 1) // 3), 10
        found["AFDPS"] = AFDPS(seen, 2, budget // 4, annealed=True, pick="best", step_size=0.5, norm=0.25), None
    if n >= 8:
        found["EnKG"] = EnKG(seen.operator.A, seen.y, 16, updates=1, inner=1, steps=budget // 32), None
    return found


RUNS = {"mnist": 16, "cifar10": 6}
COLOURS = {
    "best of N": "black", "FK steering": "tab:blue", "SVDD": "tab:orange", "SVDD, argmax": "tab:red",
    "zero-order": "tab:purple", "inverse design": "tab:brown", "paths": "tab:pink", "PAHI": "tab:green",
    "EnKG": "tab:gray", "AFDPS": "tab:cyan",
}  # fmt: skip
Curves = dict[str, list[tuple[float, float, float]]]


def raced(name: str, made: Callable[[int], dict[str, Entrant]], budgets: tuple[int, ...], score: Function) -> Curves:
    """Per method (evaluations, mean reward, its standard error) at every budget."""
    den, runs, curves = fewstep.load(name), RUNS[name], Curves()
    for budget in budgets:
        for method, (search, steps) in made(budget).items():
            out = found_by(den, search, steps, runs)
            rewards = score(out.x)
            error = float(rewards.std() / runs**0.5)
            curves.setdefault(method, []).append((out.stats.evaluations, float(rewards.mean()), error))
            print(name, budget, method, curves[method][-1], flush=True)
    return curves


def found_by(den: fewstep.Denoiser, search: Search, steps: int | None, runs: int, seed: int = 3) -> Found:
    """One sample of each run, the model told no class."""
    options: dict[str, Any] = {} if steps is None else {"steps": steps}
    if isinstance(search, (FKSteering, SVDD)):
        options["solver"] = "sde-dpm-solver++"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)
        return fewstep.sample(den, runs, search=search, cond={"label": NONE}, seed=seed, **options)


def blurred(name: str) -> Measurement:
    """A sample of class 5, averaged over 4×4 pixels, with noise."""
    operator = AverageDownsample(4)
    x = fewstep.sample(fewstep.load(name), 1, steps=20, cond={"label": 5}, seed=11).x
    y = operator.A(x)
    return Measurement(operator, y + NOISE * torch.randn(y.shape, generator=torch.Generator().manual_seed(0)),
                       Gaussian(NOISE))  # fmt: skip


def panel(axes: Axes, curves: Curves, title: str, label: str) -> None:
    """Reward against evaluations, best-of-N in black."""
    budgets = sorted({round(points[0], -1) for points in curves["best of N"]})
    for method, points in curves.items():
        x, y, error = zip(*points, strict=True)
        style: dict[str, Any] = {"color": COLOURS[method]}
        if method == "best of N":
            style |= {"lw": 2.2, "zorder": 5}
        axes.errorbar(x, y, error, label=method, marker="o", ms=3, capsize=2, **style)
    axes.set(title=title, xlabel="evaluations a sample", ylabel=label, xscale="log")
    axes.set_xticks(budgets, [f"{b:.0f}" for b in budgets])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def pictures(name: str, digit: int, budget: int, wanted: tuple[str, ...], count: int) -> None:
    """A row of samples for each method, plain sampling first."""
    den, made = fewstep.load(name), entrants(name, digit, budget)
    rows = [fewstep.sample(den, count, steps=10, cond={"label": NONE}, seed=5).x]
    rows += [found_by(den, made[method][0], made[method][1], count, 5).x for method in wanted]
    sheet([row.float() for row in rows], 2).save(DOCS / "pictures" / f"search-{name}.png", optimize=True)


TITLES = {
    "digits": "Digits model, log p(8|x)", "digit": "Digits model, a digit averaged over 4×4 pixels",
    "cars": "CIFAR-10 model, log p(car|x)", "picture": "CIFAR-10 model, a picture averaged over 4×4 pixels",
}  # fmt: skip
BUDGETS = (20, 40, 80, 160, 320)
FILE = HERE / "search_rewards.md"


def table(curves: Curves) -> list[str]:
    """Markdown: evaluations and reward of every method."""
    lines = ["| method | evaluations: reward ± standard error |", "|---|---|"]
    for method, points in curves.items():
        lines.append(f"| {method} | " + ", ".join(f"{e:.0f}: {r:.2f} ± {s:.2f}" for e, r, s in points) + " |")
    return lines


def written() -> dict[str, list[str]]:
    """The lines of every race as the file has them."""
    parts = FILE.read_text("utf8").split("\n## ")[1:] if FILE.exists() else []
    return {title: rest.strip().splitlines() for title, _, rest in (part.partition("\n") for part in parts)}


def read(lines: list[str]) -> Curves:
    """The curves of a table."""
    curves: Curves = {}
    for line in lines:
        points = re.findall(r"(\d+): (-?[\d.]+) ± ([\d.]+)", line)
        if points:
            curves[line.split("|")[1].strip()] = [(float(e), float(r), float(s)) for e, r, s in points]
    return curves


def tell(races: dict[str, Curves]) -> None:
    """Write the table and the plot, what was not run as it stood."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    told = f"{date.today()}, commit {commit}, {platform.machine()} CPU, one thread, torch {torch.__version__}."
    sections = written()
    for name, curves in races.items():
        runs = RUNS["mnist" if "digit" in name else "cifar10"]
        sections[TITLES[name]] = [f"{told}  {runs} runs each.", "", *table(curves)]
    kept = [title for title in TITLES.values() if title in sections]
    lines = ["# Reward against evaluations on the shipped models"]
    for title in kept:
        lines += ["", f"## {title}", "", *sections[title]]
    FILE.write_text("\n".join(lines) + "\n", encoding="utf8")
    figure = Figure(figsize=(11, 8), layout="constrained")
    for axes, title in zip(figure.subplots(2, 2).flat, kept, strict=False):
        panel(axes, read(sections[title]), title, "reward, nats")
    with matplotlib.rc_context({"svg.hashsalt": "fewstep"}):
        figure.savefig(DOCS / "search-rewards.svg", metadata={"Date": None})


def race(name: str) -> Curves:
    """One of the races."""
    model = "mnist" if "digit" in name else "cifar10"
    budgets = BUDGETS if model == "mnist" else BUDGETS[:-1]
    if name in ("digits", "cars"):
        wanted = 8 if model == "mnist" else 1
        return raced(model, lambda b: entrants(model, wanted, b), budgets, class_reward(model, wanted))
    seen = blurred(model)

    def misfit(x: Tensor) -> Tensor:
        return -0.5 * (seen.operator.A(x) - seen.y).double().flatten(1).square().sum(1) / NOISE**2

    return raced(model, lambda b: inverse_entrants(seen, b), budgets, misfit)


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    names = names or [*TITLES, "pictures"]
    races = {name: race(name) for name in names if name != "pictures"}
    tell(races)
    if "pictures" in names:
        pictures("mnist", 8, 160, ("best of N", "FK steering", "SVDD, argmax", "zero-order", "PAHI"), 16)
        pictures("cifar10", 1, 160, ("best of N", "FK steering", "SVDD, argmax", "zero-order", "PAHI"), 10)


if __name__ == "__main__":
    main(sys.argv[1:])
