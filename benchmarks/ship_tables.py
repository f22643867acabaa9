"""Tune the tables that ship, src/fewstep/assets/tuned.json: benchmarks/ship_tables.py [vp | flow | ve | MODEL …].

Each table is kept only if it beats the one that is there for the same path, model and evaluations.
"""

import sys

import torch
from rich.console import Console

from fewstep import VE, VP, Flow, load, tune
from fewstep.denoisers import Denoiser
from fewstep.solvers.free_multistep import table_of
from fewstep.solvers.tuned import FILE, read_tables, write_tables
from fewstep.tuning.descent import Trajectory, Worlds, mixtures

COUNTS = (4, 5, 6, 8, 10)
console = Console(stderr=True)


def keep(denoiser: Denoiser, evaluations: int, method: Worlds | Trajectory, **options: object) -> None:
    """Tune once and write the table if it is better than the one at hand."""
    plan = tune(denoiser, evaluations, method=method, **options)  # type: ignore[arg-type]
    console.print(str(tune.report(plan)))  # type: ignore[attr-defined]
    made = table_of(plan)
    tables = list(read_tables(FILE)) if FILE.is_file() else []
    same = [
        t for t in tables if (t.first, t.about["model"], len(t.weights)) == (made.first, denoiser.name, evaluations)
    ]
    if all(made.about["after"] < t.about["after"] for t in same):
        write_tables(FILE, [*(t for t in tables if t not in same), made])


def main(wanted: list[str]) -> None:
    """Tune what is named: vp, flow, ve (on worlds), or shipped models (on their trajectories)."""
    torch.set_num_threads(1)
    paths = {"vp": VP(), "flow": Flow(), "ve": VE()}
    for name in wanted or [*paths, "mnist", "cifar10"]:
        if name in paths:
            judge = mixtures(paths[name], 4, 8)[1][0]
            for count in COUNTS:
                keep(judge, count, Worlds(rounds=500))
        else:
            labels = {"label": list(range(10))}
            for count in COUNTS:
                keep(load(name), count, Trajectory(), cond=labels)


if __name__ == "__main__":
    main(sys.argv[1:])
