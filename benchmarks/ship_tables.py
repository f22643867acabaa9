"""Tune the tables that ship, src/fewstep/assets/tuned.json: benchmarks/ship_tables.py [NAME …] [evaluations …].

NAME is vp, flow or ve (tables of worlds, for any model) or a shipped model (on its own trajectories).  A table that is
there is refined, and replaced only if the new one is better on noises that neither saw; the time that both took is
kept.
The ends of a model's flow, which are most of the cost, serve all numbers of evaluations, and later runs, from out/tune.
"""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

import fewstep.tuning.problem as problems
from fewstep import VE, VP, Flow, load, tune
from fewstep.denoisers import Denoiser
from fewstep.solvers.free_multistep import Table, table_of
from fewstep.solvers.tuned import FILE, read_tables, shipped_tables, write_tables
from fewstep.tuning.descent import Trajectory, Worlds, mixtures

COUNTS = (4, 5, 6, 8, 10)
NOISES, ROUNDS, REFINING = 16, 160, 15
KEPT = Path("out/tune")
console = Console(stderr=True)
solve = problems.reference_ends


def remembered(denoiser: Denoiser, start: Tensor, *args: Any) -> Any:
    """The ends of a shipped model's flow, solved once."""
    if not denoiser.name:
        return solve(denoiser, start, *args)
    digest = hashlib.sha256(start.numpy().tobytes()).hexdigest()[:16]
    file = KEPT / f"{denoiser.name}-{digest}.pt"
    if not file.is_file():
        KEPT.mkdir(parents=True, exist_ok=True)
        torch.save(solve(denoiser, start, *args), file)
    return torch.load(file)


def at_hand(model: str, first: float, evaluations: int) -> Table | None:
    """The table of a model and a path's first λ, if there is one."""
    tables = read_tables(FILE) if FILE.is_file() else ()
    same = (t for t in tables if (t.about["model"], t.first, len(t.weights)) == (model, first, evaluations))
    return next(same, None)


def keep(denoiser: Denoiser, evaluations: int, method: Worlds | Trajectory, **options: Any) -> Table:
    """Tune once and write the table if it is better than the one at hand."""
    plan = tune(denoiser, evaluations, method=method, **options)
    console.print(str(tune.report(plan)))  # type: ignore[attr-defined]
    made = table_of(plan)
    made.about.pop("history", None)
    old = at_hand(denoiser.name, made.first, evaluations)
    begun = method.begin if isinstance(method, Worlds) else old
    if begun is not None:
        about = {**made.about, "seconds": round(made.about["seconds"] + begun.about["seconds"], 2)}
        made = replace(made, about=about)
    if old is not None and made.about["after"] >= old.about["after"]:
        return old
    tables = read_tables(FILE) if FILE.is_file() else ()
    write_tables(FILE, [*(t for t in tables if t != old), made])
    shipped_tables.cache_clear()
    return made


def main(wanted: list[str]) -> None:
    """Tune what is named."""
    torch.set_num_threads(1)
    problems.reference_ends = remembered
    paths = {"vp": VP(), "flow": Flow(), "ve": VE()}
    counts = [int(word) for word in wanted if word.isdigit()] or COUNTS
    for name in [w for w in wanted if not w.isdigit()] or [*paths, "mnist", "cifar10", "cifar10-lowrank"]:
        for count in counts:
            if name not in paths:
                denoiser = load(name)
                cond = {} if name == "cifar10-lowrank" else {"label": list(range(10))}
                keep(denoiser, count, Trajectory(rounds=REFINING), cond=cond, samples=NOISES)
                continue
            # In λ all paths are alike, so that the table of one is where the others begin.
            begin = at_hand("", float(paths[name].lam(1.0)), count) or at_hand("", float(paths["vp"].lam(1.0)), count)
            freed = begin is not None and bool(begin.scales)
            rounds = REFINING if freed else ROUNDS
            keep(mixtures(paths[name], 4, 8)[1][0], count, Worlds(rounds, begin=begin if freed else None))


if __name__ == "__main__":
    main(sys.argv[1:])
