"""What steering costs a particle-step beside plain sampling at the same batch, and how its error falls with particles.

The network is the shipped digits model, and for the samplers' own time one that costs nothing.  Both samplers take
turns, and every figure is the least of many runs.  Writes benchmarks/search.md and docs/search.svg.

    python benchmarks/search.py
"""

import math
import platform
import subprocess
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

import fewstep
from fewstep import VE, VP, Denoiser, make_plan, sample, wrap
from fewstep.search import FKSteering, TiltedMixture
from fewstep.worlds import GaussianMixture

HERE = Path(__file__).parent
STEPS, PARTICLES = 50, 16


def brightness(x: Tensor) -> Tensor:
    """A reward that costs next to nothing."""
    return x.flatten(1).mean(1)


def times(denoiser: Denoiser, runs: int, **options: object) -> tuple[float, float]:
    """Microseconds a particle-step: plain sampling of 16 samples, and one run of 16 particles."""
    table = make_plan(denoiser.path, "ddpm", "logsnr", STEPS)
    searches: list[Callable[[], object]] = [
        lambda: sample(denoiser, PARTICLES, plan=table, **options),
        lambda: sample(denoiser, 1, plan=table, search=FKSteering(brightness, 1.0, PARTICLES), **options),
    ]
    best = [float("inf")] * 2
    for _ in range(runs):
        for i, search in enumerate(searches):
            began = time.perf_counter()
            search()
            best[i] = min(best[i], time.perf_counter() - began)
    return best[0] / STEPS / PARTICLES * 1e6, best[1] / STEPS / PARTICLES * 1e6


def errors() -> dict[int, float]:
    """RMSE of a run's weighted mean on the bench of two modes, by particles."""
    world, found = GaussianMixture([0.6, 0.4], torch.tensor([[-1.5], [1.5]]), torch.tensor([[0.3], [0.15]])), {}
    tilt, levels = TiltedMixture(world, torch.ones(1)), torch.logspace(0, math.log10(5e-4), 61, dtype=torch.float64)
    table = make_plan(VE(10.0), "sde-dpm-solver++", torch.cat([levels, torch.zeros(1)]))
    for k in (4, 8, 16, 32, 64, 128, 256, 512, 1024):
        search = FKSteering(tilt.reward, particles=k, below=0.5)
        out = sample(world.denoiser(VE(10.0)), 64, search=search, plan=table, dtype=torch.float64)
        means = (out.weights.shares * out.particles[..., 0]).sum(1)
        found[k] = float((means - tilt.target.mean).square().mean().sqrt())
    return found


def draw(found: dict[int, float], file: Path) -> None:
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes, counts = figure.subplots(), list(found)
    axes.loglog(counts, list(found.values()), "o-", label="FK steering, difference, V from x̂₀")
    axes.loglog(counts, [found[64] * (64 / k) ** 0.5 for k in counts], "k:", label="slope −½")
    axes.set(xlabel="particles a run", ylabel="RMSE of a run's mean", title="Towards p·eˣ on two modes, 64 runs")
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    with matplotlib.rc_context({"svg.hashsalt": "fewstep"}):
        figure.savefig(file, metadata={"Date": None})


def main() -> None:
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    found = errors()
    draw(found, HERE.parent / "docs" / "search.svg")
    free = wrap(lambda x, t: x, VP.from_betas("linear"), "eps", shape=(1, 28, 28))
    lines = [
        "# Steering beside plain sampling",
        "",
        f"{date.today()}, commit {commit}, {platform.machine()} CPU, one thread, torch {torch.__version__}.",
        f"Microseconds a particle-step, {PARTICLES} particles of 1×28×28 as one batch, {STEPS} steps, 10 weighings.",
        "",
        "| network | plain | steered | steered / plain |",
        "|---|---|---|---|",
    ]
    for name, den, runs, options in (
        ("shipped digits model", fewstep.load("mnist"), 6, {"cond": {"label": 10}}),
        ("one that costs nothing", free, 40, {}),
    ):
        a, b = times(den, runs, **options)
        lines.append(f"| {name} | {a:.2f} | {b:.2f} | {b / a:.3f} |")
    lines += ["", "RMSE of a run's mean on the bench of two modes, 64 runs:", "", "| particles | RMSE |", "|---|---|"]
    lines += [f"| {k} | {value:.4f} |" for k, value in found.items()]
    text = "\n".join(lines)
    print(text)
    (HERE / "search.md").write_text(text + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
