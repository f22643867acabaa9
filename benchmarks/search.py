"""What searching costs a particle-step beside plain sampling at the same batch, and how its error falls with particles.

The network is the shipped digits model, and for the samplers' own time one that costs nothing.  Both samplers take
turns; times are the least of many rounds' processor time, and the ratio is told of these, as the median over rounds and
from the samplers' own times, which chance moves least.
Errors are against exact targets: two modes with r = x, and for AFDPS a posterior of three Gaussians in the plane.
Writes benchmarks/search.md, the section that is not run as it stood, and with the errors docs/search.svg.

    python benchmarks/search.py [times | errors …]
"""

import math
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import fewstep  # noqa: E402
from claims.search.bench import MODEL, TILT, first, plan, value  # noqa: E402
from claims.search.weighted_ensemble import MATRIX, NOISE, WORLD, Y  # noqa: E402
from fewstep import VE, VP, Denoiser, make_plan, sample, wrap  # noqa: E402
from fewstep.metrics import sliced_w2  # noqa: E402
from fewstep.restoration import AverageDownsample, Gaussian, Matrix, Measurement  # noqa: E402
from fewstep.search import AFDPS, SVDD, EnKG, FKSteering, RandomSearch, Search  # noqa: E402
from fewstep.worlds import GaussianMixture  # noqa: E402

STEPS, PARTICLES = 50, 16
COUNTS = (4, 8, 16, 32, 64, 128, 256, 512)
RUNS = 64
Rows = list[tuple[int, float, float]]


def brightness(x: Tensor) -> Tensor:
    """A reward that costs next to nothing."""
    return x.flatten(1).mean(1)


def methods() -> dict[str, Search]:
    """Each with 16 particles in a run."""
    seen = Measurement(AverageDownsample(4), torch.zeros(1, 1, 7, 7), Gaussian(0.5))
    return {
        "FK steering": FKSteering(brightness, 1.0, PARTICLES),
        "SVDD": SVDD(brightness, 1.0, PARTICLES),
        "AFDPS": AFDPS(seen, PARTICLES, STEPS // 2, annealed=True, norm=0.25),
        "EnKG": EnKG(lambda x: x.mean((1, 2, 3))[:, None], torch.zeros(1, 1), PARTICLES, updates=1, inner=1, steps=25),
        "random search": RandomSearch(brightness, PARTICLES),
    }


def times(denoiser: Denoiser, search: Search, rounds: int, **options: object) -> tuple[float, float, float]:
    """Microseconds of processor time a particle and evaluation: plain, searching; and the median ratio of rounds."""
    table = search.opening(denoiser.path)
    if table is None:
        solver = "ddim" if isinstance(search, RandomSearch) else "ddpm"
        table = make_plan(denoiser.path, solver, "logsnr", STEPS)
        options = {**options, "plan": table}
    plain = {**options, "plan": table}
    calls: list[Callable[[], object]] = [
        lambda: sample(denoiser, PARTICLES, **plain), lambda: sample(denoiser, 1, search=search, **options)
    ]  # fmt: skip
    asked = table.evaluations, sample(denoiser, 1, search=search, **options).stats.evaluations / PARTICLES
    calls[0]()
    spent = torch.zeros(rounds, 2, dtype=torch.float64)
    for turn in range(rounds):
        # Who goes first changes too, as the first may warm what the second uses.
        for i, call in list(enumerate(calls))[:: 1 - 2 * (turn % 2)]:
            began = time.process_time()
            call()
            spent[turn, i] = (time.process_time() - began) / asked[i] / PARTICLES * 1e6
    least = spent.min(0).values
    return float(least[0]), float(least[1]), float((spent[:, 1] / spent[:, 0]).median())


def drawn(particles: Tensor, shares: Tensor) -> Tensor:
    """As many draws of the weighted particles of all runs as there are particles, (draws, d)."""
    flat, weights = particles.flatten(0, 1), (shares / len(shares)).flatten()
    points = (torch.arange(len(flat)) + 0.5) / len(flat)
    return flat[torch.searchsorted(weights.cumsum(0), points.to(weights)).clamp_max(len(flat) - 1)]


def apart(found: tuple[Tensor, Tensor], exact: GaussianMixture) -> tuple[float, float]:
    """RMSE of a run's mean over all runs, and the sliced W2 of a run's particles to 4,000 draws, over 8 runs."""
    particles, shares = found
    rmse = ((shares[..., None] * particles).sum(1) - exact.mean).square().mean().sqrt()
    truth = exact.sample(4000, seed=1)
    w2 = [sliced_w2(drawn(particles[i : i + 1], shares[i : i + 1]), truth) for i in range(8)]
    return float(rmse), float(torch.stack(w2).mean())


def steered() -> Rows:
    """FK steering on two modes."""
    rows = []
    for k in COUNTS:
        search = FKSteering(first, particles=k, below=0.5)
        out = sample(MODEL, RUNS, search=search, plan=plan(60, "sde-dpm-solver++"), dtype=torch.float64)
        rows.append((k, *apart((out.particles, out.weights.shares), TILT.target)))
    return rows


def decoded() -> Rows:
    """SVDD on two modes: independent chains of 32 candidates, as many in a run as the others have particles."""
    most = COUNTS[-3]
    chains = sample(MODEL, RUNS * most, search=SVDD(first, 1.0, 32, value), plan=plan(60), dtype=torch.float64).x
    rows = []
    for k in COUNTS[:-2]:
        runs = chains[: RUNS * k].reshape(RUNS, k, 1)
        rows.append((k, *apart((runs, torch.full((RUNS, k), 1 / k, dtype=torch.float64)), TILT.target)))
    return rows


def ensembles() -> Rows:
    """AFDPS on a posterior of three Gaussians."""
    seen, exact, rows = Measurement(Matrix(MATRIX, (2,)), Y, Gaussian(NOISE)), WORLD.posterior(MATRIX, Y[0], NOISE), []
    for k in COUNTS:
        search = AFDPS(seen, k, steps=60, corrections=4, norm=1.118, data_variance=2.0, sigma_max=8.0)
        out = sample(WORLD.denoiser(VE(8.0)), RUNS, search=search, dtype=torch.float64)
        rows.append((k, *apart((out.particles, out.weights.shares), exact)))
    return rows


def effective(particles: int = 1024) -> dict[str, list[float]]:
    """The effective size as a share of the particles, at every weighing."""
    found = {}
    for name, options in {
        "difference, resampled at ½": {"below": 0.5}, "difference, never resampled": {"below": 0.0},
        "max": {"potential": "max", "below": 0.5}, "sum": {"potential": "sum", "below": 0.5},
    }.items():  # fmt: skip
        out = sample(MODEL, 16, search=FKSteering(first, 1.0, particles, **options), plan=plan(60), dtype=torch.float64)
        found[name] = [float(size.mean()) / particles for size in out.weights.effective]
    return found


def draw(found: dict[str, Rows], sizes: dict[str, list[float]], file: Path) -> None:
    """RMSE, sliced W2 and effective sizes."""
    figure = Figure(figsize=(12.5, 3.8), layout="constrained")
    rate, far, size = figure.subplots(1, 3)
    for name, rows in found.items():
        counts = [k for k, _, _ in rows]
        line = rate.loglog(counts, [e for _, e, _ in rows], "o-", ms=4, label=name)[0]
        far.loglog(counts, [w for _, _, w in rows], "o-", ms=4, color=line.get_color(), label=name)
    start = 0.9 * max(rows[2][1] for rows in found.values()) * 4
    rate.loglog(COUNTS, [start / k**0.5 for k in COUNTS], "k:", label="slope −½")
    for name, shares in sizes.items():
        size.plot(range(1, len(shares) + 1), shares, "o-", ms=3, label=name)
    rate.set(xlabel="particles a run", ylabel="RMSE of a run's mean", title="the mean against the exact one, 64 runs")
    far.set(xlabel="particles a run", ylabel="sliced W2", title="a run's particles against the exact target")
    size.set(xlabel="weighing", ylabel="effective size / k", title="FK steering, 1,024 particles", ylim=(0, 1.05))
    for axes in (rate, far, size):
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=8)
    with matplotlib.rc_context({"svg.hashsalt": "fewstep"}):
        figure.savefig(file, metadata={"Date": None})


def measured_times() -> list[str]:
    """The table of times: a row for each method and network."""
    free = wrap(lambda x, t: x, VP.from_betas("linear"), "eps", shape=(1, 28, 28))
    most, free_most = ROUNDS.values()
    lines = [
        f"Microseconds of processor time a particle and evaluation, {PARTICLES} particles of 1×28×28 as one batch, "
        f"{STEPS} evaluations; FK steering with 10 weighings, SVDD with one at every step.  The least of {most} "
        f"rounds, of {free_most} with the network that costs nothing.  Chance moves two runs of one network by "
        "percents; the last column adds what searching costs with the free network to plain sampling with the model.",
        "",
        "| method | model: plain | searching | searching / plain | median of rounds | free: plain | searching "
        "| from the parts |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, search in methods().items():
        a, b, ratio = times(fewstep.load("mnist"), search, most, cond={"label": 10})
        c, d, _ = times(free, search, free_most)
        lines.append(
            f"| {name} | {a:.0f} | {b:.0f} | {b / a:.3f} | {ratio:.3f} | {c:.1f} | {d:.1f} | {1 + (d - c) / a:.3f} |"
        )
        print(lines[-1], flush=True)
    return lines


def measured_errors() -> list[str]:
    """The table of errors, and the plot."""
    found = {"FK steering, V from x̂₀": steered(), "SVDD, M = 32": decoded(), "AFDPS": ensembles()}
    draw(found, effective(), HERE.parent / "docs" / "search.svg")
    lines = [
        "RMSE of a run's mean over 64 runs / sliced W2 of a run's particles to 4,000 exact draws.", "",
        "| method | " + " | ".join(map(str, COUNTS)) + " | slope from 16 on |", "|---" * (len(COUNTS) + 2) + "|",
    ]  # fmt: skip
    for name, rows in found.items():
        cells = [f"{e:.3f} / {w:.2f}" for _, e, w in rows] + ["–"] * (len(COUNTS) - len(rows))
        (k, low, _), (most, high, _) = rows[2], rows[-1]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {math.log(high / low) / math.log(most / k):.2f} |")
    return lines


SECTIONS = {"times": ("What a particle-step costs", measured_times), "errors": ("Errors", measured_errors)}
ROUNDS = {"shipped digits model": 24, "one that costs nothing": 40}


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    file = HERE / "search.md"
    parts = file.read_text("utf8").split("\n## ")[1:] if file.exists() else []
    kept = {title: rest.strip().splitlines() for title, _, rest in (part.partition("\n") for part in parts)}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    told = f"{date.today()}, commit {commit}, {platform.machine()} CPU, one thread, torch {torch.__version__}."
    for name in names or list(SECTIONS):
        title, measure = SECTIONS[name]
        kept[title] = [told, "", *measure()]
    lines = ["# Searching beside plain sampling"]
    for title, _ in SECTIONS.values():
        lines += ["", f"## {title}", "", *kept[title]] if title in kept else []
    file.write_text("\n".join(lines) + "\n", encoding="utf8")


if __name__ == "__main__":
    main(sys.argv[1:])
