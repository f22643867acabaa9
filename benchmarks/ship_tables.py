"""Tune the tables that ship, src/fewstep/assets/tuned.json: benchmarks/ship_tables.py [NAME …] [evaluations …].

NAME is vp, flow, ve or scaled-linear (tables of worlds, for any model; the last for paths that end as Stable
Diffusion's, with λ = −2.7) or a shipped model (on its own trajectories).  A table that is there is refined, and
replaced only if the new one is better on noises that neither saw, which are not those of benchmarks/tuned.py either;
the time that both took is kept.
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
from fewstep.tuning.descent import Trajectory, Worlds
from fewstep.tuning.random_mixtures import mixtures

COUNTS = (4, 5, 6, 8, 10, 15)
NOISES, ROUNDS, REFINING = 32, 160, 40
# Of the noises that a model's table is tuned and judged on; benchmarks/tuned.py takes those of seed 0.
SEED = 1
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
    plan = tune(denoiser, evaluations, method=method, settle=False, **options)
    console.print(str(tune.report(plan)))  # type: ignore[attr-defined]
    made = table_of(plan)
    made.about.pop("history", None)
    old = at_hand(denoiser.name, made.first, evaluations)
    begun = method.begin if isinstance(method, Worlds) else old
    if begun is not None:
        about = {**made.about, "seconds": round(made.about["seconds"] + begun.about["seconds"], 2)}
        made = replace(made, about=about)
    if old is not None:
        problem = problems.Problem(denoiser, evaluations, **options)
        judged = problem.pairs(min(64, problem.samples), part=0)
        before, after = (problem.error(table.plan(denoiser.path), *judged) for table in (old, made))
        console.print(f"on the same noises: {before:.3g} at hand, {after:.3g} now")
        if after >= before:
            return old
    tables = read_tables(FILE) if FILE.is_file() else ()
    write_tables(FILE, [*(t for t in tables if t != old), made])
    shipped_tables.cache_clear()
    return made


def main(wanted: list[str]) -> None:
    """Tune what is named."""
    torch.set_num_threads(1)
    problems.reference_ends = remembered
    paths = {"vp": VP(), "flow": Flow(), "ve": VE(), "scaled-linear": VP.from_betas("scaled_linear")}
    counts = [int(word) for word in wanted if word.isdigit()] or COUNTS
    for name in [w for w in wanted if not w.isdigit()] or [*paths, "mnist", "cifar10", "cifar10-lowrank"]:
        for count in counts:
            if name not in paths:
                denoiser = load(name)
                cond = {} if name == "cifar10-lowrank" else {"label": list(range(10))}
                keep(denoiser, count, Trajectory(rounds=REFINING), cond=cond, samples=NOISES, seed=SEED)
                continue
            # In λ all paths are alike, so that the table of one is where the others begin: but for a first told level
            # where states grow on the way to noise.
            begin = at_hand("", float(paths[name].lam(1.0)), count)
            if name != "ve" and begin is None:
                begin = at_hand("", float(paths["vp"].lam(1.0)), count)
            if begin is not None and begin.nodes[0] <= paths[name].lam(1.0):
                begin = None  # its first node lies before the path
            keep(mixtures(paths[name], 4, 8)[1][0], count, Worlds(REFINING if begin else ROUNDS, begin=begin))


if __name__ == "__main__":
    main(sys.argv[1:])
