"""What `deterministic=True` costs on the CPU: the time of a run with it, as a ratio to the same run without.

Three runs take turns, round after round, each beginning in its turn: plain, plain once more, whose ratio to the first
tells how far chance moves a ratio here, and deterministic.  A ratio is the median over the rounds, of processor times.
Everything was called once before; the first deterministic run of a process also imports the settings of torch's
compiler, whose time is told apart.  That the bits are equal is looked at, not assumed.

    python benchmarks/determinism.py
"""

import time
from pathlib import Path
from statistics import median, quantiles

import torch
from sections import about, put

from fewstep import load, sample
from fewstep.denoisers import Denoiser

FILE = Path(__file__).with_suffix(".md")
STEPS, ROUNDS = 8, 61
# The batch of each model, so that a run takes about as long.
BATCHES = {"mnist": 16, "cifar10": 4}


def seconds(denoiser: Denoiser, batch: int, deterministic: bool) -> tuple[float, torch.Tensor]:
    """(processor seconds, samples) of a run."""
    cond = {"label": [i % 10 for i in range(batch)]}
    began = time.process_time()
    x = sample(denoiser, batch, steps=STEPS, cond=cond, deterministic=deterministic).x
    return time.process_time() - began, x


def row(name: str, batch: int) -> str:
    """A row of the table."""
    denoiser = load(name)
    kinds = {"plain": False, "again": False, "deterministic": True}
    ends = [seconds(denoiser, batch, flag)[1] for flag in kinds.values()]
    equal = all(torch.equal(ends[0], x) for x in ends[1:])
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(ROUNDS):
        order = list(kinds)[number % 3 :] + list(kinds)[: number % 3]
        for kind in order:
            taken[kind].append(seconds(denoiser, batch, kinds[kind])[0])
    told = []
    for kind in ("again", "deterministic"):
        ratios = [one / plain for one, plain in zip(taken[kind], taken["plain"], strict=True)]
        low, _, high = quantiles(ratios, n=4)
        told.append(f"{median(ratios):.3f} ({low:.3f} … {high:.3f})")
    run = 1000 * median(taken["plain"])
    return f"| {name} | {batch} | {run:.0f} ms | {told[0]} | {told[1]} | {'equal' if equal else 'differ'} |"


def main() -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    from torch._inductor import config  # noqa: F401

    first = time.perf_counter() - began
    rows = [row(name, batch) for name, batch in BATCHES.items()]
    put(FILE, "The price of the same bits", "On the CPU", [
        about(),
        "",
        f"{STEPS} steps, {ROUNDS} rounds in turns, processor time; median ratio to the plain run, and quartiles.",
        f"Once a process, the import of the compiler's settings: {first:.1f} s.  Not measured on a GPU.",
        "",
        "| model | batch | plain | plain again | deterministic | bits with and without |",
        "|---|---|---|---|---|---|",
        *rows,
    ])  # fmt: skip


if __name__ == "__main__":
    main()
