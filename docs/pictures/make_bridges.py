"""The picture of the manual's section on bridges: digits made coarse, and what the restoration models make of them.

    python docs/pictures/make_bridges.py

Rows: the coarse digits; RDDM in 5 steps; ResShift in 15 and in 4; the mean-reverting model in 5 steps of first order;
the diffusion bridge in 5 evaluations; 119 evaluations of the sampler that it had before; the true digits.
"""

import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from make import sheet  # noqa: E402

from claims.bridges.digits import model, pairs, restored  # noqa: E402
from claims.bridges.hybrid_heun import hybrid_heun  # noqa: E402
from claims.bridges.mean_reverting import levels  # noqa: E402
from fewstep import make_plan  # noqa: E402
from fewstep.paths import ResShift  # noqa: E402

SHOWN = 20


def main() -> None:
    torch.set_num_threads(1)
    x0, y = pairs()
    every = len(x0) // SHOWN
    few, shifting = model("rddm"), model("resshift")
    four, reverting, bridge = shifting.along(ResShift(4, 0.2)), model("mean-reverting"), model("diffusion-bridge")
    plans = {
        few: make_plan(few.path, "ddim", "uniform", 5),
        shifting: make_plan(shifting.path, "random-walk", "uniform", 15),
        four: make_plan(four.path, "random-walk", "uniform", 4),
        reverting: make_plan(reverting.path, "ddim", levels(5)),
        bridge: make_plan(bridge.path, "dbim", "uniform", 4),
    }
    rows = [y, *(restored(den, plan) for den, plan in plans.items())]
    with torch.no_grad():
        rows.append(hybrid_heun(bridge, y[::every], 40))
    shown = [row if len(row) == SHOWN else row[::every] for row in (*rows, x0)]
    sheet(shown, 2).save(Path(__file__).with_name("bridges.png"), optimize=True)


if __name__ == "__main__":
    main()
