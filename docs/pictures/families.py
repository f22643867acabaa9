"""Pictures of the manual's family pages that no benchmark draws: python docs/pictures/families.py [family …]."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import fewstep

HERE = Path(__file__).parent
WORLD = "cifar10-lowrank"


def _saved(figure: Figure, name: str) -> None:
    figure.savefig(HERE / f"family-{name}.png", bbox_inches="tight", dpi=80)


def _errors(result: Any, counts: list[int], title: str) -> Figure:
    figure = Figure(figsize=(7.5, 4.2))
    axes = figure.subplots()
    for name in dict.fromkeys(row.solver for row in result.rows):
        rows = [row for row in result.rows if row.solver == name]
        axes.loglog([row.evaluations for row in rows], [row.error for row in rows], "o-", label=name)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set(xlabel="network evaluations a sample", ylabel="median RMSE to the exact flow", title=title)
    axes.grid(True, alpha=0.25)
    axes.legend(frameon=False, ncols=2)
    return figure


def solvers() -> None:
    """Error against evaluations of a solver of each kind."""
    names = ["ddim", "heun", "dpm-solver++", "deis", "unipc", "ipndm"]
    counts = [5, 6, 8, 10, 15, 20, 30]
    result = fewstep.compare(fewstep.load(WORLD), names, counts, n=20, cond={"label": [0, 5] * 10})
    _saved(_errors(result, counts, f"{WORLD}, grid logsnr"), "solvers")


def tuning() -> None:
    """Shipped tuned plans beside untuned ones, on a mixture that no tuning saw."""
    from fewstep.worlds import GaussianMixture

    generator = torch.Generator().manual_seed(11)
    means = torch.randn(20, 64, generator=generator, dtype=torch.float64)
    world = GaussianMixture([0.05] * 20, means, torch.full((20, 64), 0.05, dtype=torch.float64))
    denoiser = world.denoiser(fewstep.VP.from_betas("linear"))
    counts = [4, 5, 6, 8, 10]
    result = fewstep.compare(denoiser, ["dpm-solver++", "unipc", "ipndm", "auto"], counts, n=64)
    _saved(_errors(result, counts, "20 modes in 64 dimensions; auto: the tuned plans that ship"), "tuning")


def loops() -> None:
    """How many rounds the Picard iteration takes, one after another, for as many steps."""
    model, counts = fewstep.load(WORLD), (16, 32, 64, 128)
    rounds = []
    for steps in counts:
        out = fewstep.sample(model, 2, solver="paradigms", steps=steps, cond={"label": [1, 8]})
        rounds.append(out.stats.rounds)
    figure = Figure(figsize=(6, 3.4))
    axes = figure.subplots()
    axes.plot(counts, counts, "o--", color="0.6", label="one step after another")
    axes.plot(counts, rounds, "o-", label="paradigms")
    axes.set(xlabel="steps of ddim", ylabel="rounds of the network, one after another", xticks=counts)
    axes.legend(frameon=False)
    _saved(figure, "loops")


FAMILIES: dict[str, Callable[[], None]] = {"solvers": solvers, "tuning": tuning, "loops": loops}

if __name__ == "__main__":
    for family in sys.argv[1:] or FAMILIES:
        FAMILIES[family]()
