"""Every tuner of the catalogue, untuned plans and the best of the peers, at the same evaluations.

On worlds a tuner sees one mixture, and its plan is judged on another of the same family by the median over samples of
the RMSE to the exact flow; beside it stand the plan that it began with and what it spent.  The peers' best is that of
all deterministic samplers and spacings of diffusers and k-diffusion, found in the same run.  On trained models the
figure is the median RMSE to the model's own flow (100 steps of Heun), and the Fréchet distance, in a classifier's
features, to many steps of the same model from other noises; peers that run on a VP path are shown the model in λ.
There a tuner may spend only so much, as each evaluation costs.

    python benchmarks/tuned.py [mixtures] [mnist] [cifar10] [tuner …] [family=NAME …]

Parts not named are left as they are.  The file itself is what a stopped run goes on from: a tuner's row is written as
soon as it is measured, with the date and the commit, and a row that stands there is kept unless the tuner is named.
"""

import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import ship_tables
import torch
from error_per_evaluation import PATH, PEERS, SPACINGS, TWICE, Row, best, error, k_rows, peer, peer_rows
from rich.console import Console
from sections import about
from torch import Tensor

import fewstep.tuning.problem as problems
from fewstep import load, make_plan, methods, sample, tune
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.metrics import frechet_distance
from fewstep.networks.features import load_features
from fewstep.noise import KeyedNoise
from fewstep.plan import Plan
from fewstep.tuning import Problem, Tuner
from fewstep.tuning.auto_diffusion import AutoDiffusion
from fewstep.tuning.random_mixtures import mixtures
from fewstep.tuning.single import tuner_named

COUNTS = (4, 5, 6, 8, 10)
JUDGED, NOISES, DATA = 128, 32, 1024
FAMILIES = ("20 close modes", "20 modes", "20 separated modes", "variances from 100 to 0.03")
# The family on which every tuner is run; on the others those that take seconds, and two of ours.
WHOLE, ELSEWHERE = 1, ("spectral", "trajectory")
# Tuners that take long, cheap to dear: all others come before them.
DEAR = (
    "dc-solver", "timestep-aligner", "usf", "bespoke-rk1", "bespoke", "autodiffusion", "trajectory", "epd-plugin",
    "epd", "gs", "worlds", "gas",
)  # fmt: skip
MODELS = {"mnist": 256, "cifar10": 96}  # pictures of the Fréchet distance
# Evaluations that a tuning on a model may spend, and noises that it sees: with fewer a fit is worse, with more the
# ends of their flow are most of what is spent.
BUDGET = {"mnist": 20_000, "cifar10": 12_000}
SEEN = {"mnist": 32, "cifar10": 16}
# Pictures that a fitness of AutoDiffusion's is measured on there, and what it may spend.
FITNESS = {"mnist": (256, 100_000), "cifar10": (64, 12_000)}
UNTUNED = (("dpm-solver++", "logsnr"), ("unipc", "logsnr"), ("ipndm", "logsnr"), ("ddim", "uniform"))
ANY, OWN = "**auto**, as for any model", "**auto**, the model's own"
RANKED, FLOWN, FINALISTS, FINE = 4, 16, 3, 20
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FILE = Path(__file__).parent / "tuned.md"
console = Console(stderr=True)


def ran(denoiser: Denoiser, plan: Plan, start: Tensor, exact: Tensor) -> float:
    return error(sample(denoiser, start=start, plan=plan).x, exact)


@dataclass(frozen=True)
class Court:
    """What a tuner is given and what its plan is judged by.

    Args:
        seen: the denoiser that it sees.
        data: samples of its data.
        cond: conditions, one for each noise in turn.
        budget: evaluations that it may spend; its own choice unless given.
        noises: that it sees.
        tuners: those with other parameters than their own.
        budgets: of those with another.
        error: of a plan, on noises that no tuner sees.
        look: what else is told of the plan that it began with and of its own.
        peers: the best peer's name and error at each number of evaluations.
    """

    seen: Denoiser
    data: Tensor
    cond: dict[str, list[int]]
    budget: int | None
    noises: int
    tuners: dict[str, Tuner]
    budgets: dict[str, int]
    error: Callable[[Plan], float]
    look: Callable[[Plan, Plan], str]
    peers: dict[int, tuple[str, float]]

    def cell(self, name: str, count: int) -> tuple[str, int, float]:
        """(what to show, evaluations spent, seconds) of one tuning."""
        try:
            tuner = self.tuners.get(name) or tuner_named(name)
            budget = self.budgets.get(name, self.budget)
            problem = Problem(self.seen, count, self.data, budget, cond=self.cond, samples=self.noises)
            before, began = tuner.untuned(problem), time.perf_counter()
            options = {"data": self.data, "budget": budget, "cond": self.cond, "samples": self.noises}
            plan = tune(self.seen, count, method=tuner, **options)
            seconds, gained = time.perf_counter() - began, plan.source["tuned"]
        except ArgumentError:  # a method that does not fit, or a budget too small; a fault is not hidden
            return "–", 0, 0.0
        if plan.stochastic or plan.evaluations > count:
            return "–", 0, 0.0
        old, new = self.error(before), self.error(plan)
        kept = "" if gained["went"] == 1 else f", {gained['went']:.0%} of the way"
        told = f"{old:.3g} → {new:.3g}{kept} (÷{self.peers[count][1] / new:.1f}){self.look(before, plan)}"
        return told, gained["spent"], seconds

    def row(self, name: str) -> str:
        """A tuner's line of a table."""
        cells = [self.cell(name, count) for count in COUNTS]
        spent, seconds = (sum(cell[k] for cell in cells) for k in (1, 2))
        shown = " | ".join(cell[0] for cell in cells)
        return f"| {name} | {shown} | {spent:,} | {seconds:.0f} | {stamp()} |"

    def table(self, title: str, head: list[str], names: list[str], again: list[str]) -> Iterator[list[str]]:
        """The lines of a table, anew after every tuner.

        Args:
            title: of the section that has them.
            head: the lines before them.
            names: of the tuners that are wanted here.
            again: of those that are measured also where a row of theirs is at hand.
        """
        known = rows_at_hand(title)
        order = sorted({*known, *names}, key=lambda n: (n in DEAR, DEAR.index(n) if n in DEAR else 0, n))
        for name in [None, *(n for n in order if n in names and (n in again or n not in known))]:
            made = {}
            if name is not None:
                console.print(f"{title}: {name}")
                made[name] = self.row(name)
            known = {**rows_at_hand(title), **made}  # another run may have written some meanwhile
            rows = [known[n] for n in sorted(known, key=lambda n: order.index(n) if n in order else len(order))]
            yield [*head, *rows, "", verdict(rows)]


def rows_at_hand(title: str) -> dict[str, str]:
    """The lines of tuners in a family's table, by name; only those that say when they were measured."""
    dated = (line for line in sections().get(title, []) if re.search(r"\| [\d-]{10}, \w+ \|$", line))
    return {line.split(" | ")[0][2:]: line for line in dated}


def verdict(rows: list[str]) -> str:
    """In how many cells of a table the tuned plan is nearer to the flow than its start, as printed."""
    pairs = [tuple(map(float, pair)) for row in rows for pair in re.findall(r"\| (\S+) → ([^ ,]+)", row)]
    less, same = sum(new < old for old, new in pairs), sum(new == old for old, new in pairs)
    more = len(pairs) - less - same
    return f"Of {len(pairs)} tunings {less} end nearer to the flow than their start, {same} as near, {more} less near."


def world_table(names: list[str], again: list[str], which: int) -> Iterator[list[str]]:
    """The rows of one family of mixtures, anew after every tuner.

    Args:
        names: of the tuners that are wanted here, cheap to dear.
        again: of those that are measured also where a row of theirs is at hand.
        which: the family.
    """
    title = FAMILIES[which]
    seen, judge = mixtures(PATH, 8, 2)[which][0], mixtures(PATH, 6, JUDGED)[which]
    rows = peer_rows(*judge, COUNTS) + k_rows(*judge, COUNTS)
    peers = {count: best(rows, count) for count in COUNTS}
    head = [
        f"| | {' | '.join(map(str, COUNTS))} | evaluations spent | seconds | measured |",
        "|---|" + "---|" * (len(COUNTS) + 3),
        "| best peer | " + " | ".join(f"{e:.2g} ({n})" for n, e in peers.values()) + " | | | |",
    ]  # fmt: skip
    for solver, grid in UNTUNED:
        found = [ran(judge[0], make_plan(PATH, solver, grid, evaluations=count), *judge[1:]) for count in COUNTS]
        head.append(f"| {solver}, {grid} | " + " | ".join(f"{e:.2g}" for e in found) + " | | | |")
    shipped = [ran(judge[0], make_plan(PATH, "auto", evaluations=count), *judge[1:]) for count in COUNTS]
    told = (f"{e:.2g} (÷{peers[c][1] / e:.1f})" for e, c in zip(shipped, COUNTS, strict=True))
    head.append("| **auto** (shipped) | " + " | ".join(told) + " | 0 | 0 | |")
    data = seen.world.sample(DATA, 1)
    court = Court(
        seen, data, {}, None, NOISES, {}, {}, lambda plan: ran(judge[0], plan, *judge[1:]), lambda *plans: "", peers
    )
    yield from court.table(title, head, names, again)


def shown_to_peers(denoiser: Denoiser, labels: list[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """A model as peers ask it: x on PATH and its time."""

    def asked(x: Tensor, time: Tensor | float) -> Tensor:
        time = torch.as_tensor(time, dtype=torch.float64)
        t = denoiser.path.t_of_lam(PATH.lam(time))
        size = float(denoiser.path.alpha(t) / PATH.alpha(time))
        with torch.no_grad():
            told = torch.tensor(labels[: len(x)], device=DEVICE)
            return denoiser((size * x).float().to(DEVICE), t.float().to(DEVICE), label=told).double().cpu()

    return asked


def finalists(denoiser: Denoiser, start: Tensor, ends: Tensor) -> dict[int, tuple[str, float]]:
    """The best peer at each number of evaluations: all on a few noises, the best of those on all."""
    asked: Denoiser = shown_to_peers(denoiser, [i % 10 for i in range(len(start))])  # type: ignore[assignment]
    noise = start / denoiser.path.sigma(1.0)
    first: list[Row] = peer_rows(asked, noise[:RANKED], ends[:RANKED], COUNTS)
    found = {}
    for count in COUNTS:
        names = [n for n, c, _ in sorted(first, key=lambda r: r[2]) if c == count][:FINALISTS]
        errors = {name: error(run_peer(asked, noise, name, count), ends) for name in names}
        found[count] = min(errors.items(), key=lambda one: one[1])
    return found


def run_peer(asked: Denoiser, noise: Tensor, label: str, count: int) -> Tensor:
    """The samples of a diffusers scheduler by its label in `peer_rows`."""
    name, spacing = label.rsplit(", ", 1)
    assert spacing in SPACINGS
    kind, options = PEERS[name]
    steps = (count + 1) // 2 if kind in TWICE else count
    return peer(asked, noise, kind, {**options, "timestep_spacing": spacing}, steps)[0]


def model_tables(name: str, names: list[str], again: list[str]) -> Iterator[tuple[str, list[str]]]:
    """(title, lines) of a trained model's sections: what ships beside the peers, then every tuner."""
    console.print(name)
    denoiser, features, n = load(name, device=DEVICE), load_features(name, device=DEVICE), MODELS[name]
    problem = Problem(denoiser, 10, cond={"label": list(range(10))}, samples=FLOWN)
    start, ends = problem.pairs(FLOWN, part=0)
    peers = finalists(denoiser, start, ends)
    console.print(peers)
    kinds = {f"{s}, {g}": [make_plan(denoiser.path, s, g, evaluations=c) for c in COUNTS] for s, g in UNTUNED}
    # What ships for any model is the plan of one that no tuning saw.
    for label, model in ((ANY, ""), (OWN, name)):
        kinds[label] = [make_plan(denoiser.path, "auto", evaluations=c, model=model) for c in COUNTS]
    errors = {label: [problem.error(plan, start, ends) for plan in plans] for label, plans in kinds.items()}
    head = [f"| | {' | '.join(map(str, COUNTS))} |", "|---|" + "---|" * len(COUNTS)]
    lines = [
        f"Median RMSE to the model's flow, {FLOWN} noises.", "", *head,
        "| best peer | " + " | ".join(f"{e:.2g} ({label})" for label, e in peers.values()) + " |",
    ]  # fmt: skip
    for label, found in errors.items():
        ratio = [
            f" (÷{peers[c][1] / e:.1f})" if label in (ANY, OWN) else "" for c, e in zip(COUNTS, found, strict=True)
        ]
        lines.append(f"| {label} | " + " | ".join(f"{e:.2g}{r}" for e, r in zip(found, ratio, strict=True)) + " |")
    # Fréchet: the best peer of each column, the best untuned plan of each, and what ships.
    plain = [min((errors[f"{s}, {g}"][i], f"{s}, {g}") for s, g in UNTUNED)[1] for i in range(len(COUNTS))]
    labels = [i % 10 for i in range(n)]

    def noises(first: int) -> Tensor:
        return KeyedNoise(1, range(first, first + n), denoiser.shape, torch.float32, "cpu").start()

    def pictures(plan: Plan, first: int = 0) -> Tensor:
        x = noises(first) * float(denoiser.path.sigma(1.0))
        return sample(denoiser, start=x.to(DEVICE), plan=plan, cond={"label": labels}).x.clamp(-1, 1)

    def distance(x: Tensor) -> float:
        return float(frechet_distance(x, reference, features))

    fine = make_plan(denoiser.path, "dpm-solver++3m", "logsnr", FINE)
    reference = pictures(fine, first=n)
    asked: Denoiser = shown_to_peers(denoiser, labels)  # type: ignore[assignment]
    theirs = [
        distance(run_peer(asked, noises(0).double(), peers[c][0], c).float().clamp(-1, 1).to(DEVICE)) for c in COUNTS
    ]
    lines += [
        "", f"Fréchet distance of {n} pictures to {n} of {FINE} steps from other noises; {FINE} steps from the same "
        f"noises: {distance(pictures(fine)):.3f}.", "", *head,
        "| best peer by RMSE | " + " | ".join(f"{d:.3f}" for d in theirs) + " |",
    ]  # fmt: skip
    untuned = [distance(pictures(kinds[label][i])) for i, label in enumerate(plain)]
    told = (f"{d:.3f} ({p})" for d, p in zip(untuned, plain, strict=True))
    lines.append(f"| best untuned by RMSE | {' | '.join(told)} |")
    for label in (ANY, OWN):
        mine = [distance(pictures(plan)) for plan in kinds[label]]
        told = (f"{d:.3f} (÷{t / d:.2f})" for d, t in zip(mine, theirs, strict=True))
        lines.append(f"| {label} | {' | '.join(told)} |")
    yield name, lines
    title = f"{name}, every tuner"
    pictured, allowed = FITNESS[name]
    batches = {tuner: tuner_named(tuner, batch=min(32, SEEN[name])) for tuner in ("epd", "epd-plugin", "gs", "gas")}
    head = [
        f"Untuned → tuned, the ratio to the best peer, and the Fréchet distances of {n} pictures as above. A tuning "
        f"may spend {BUDGET[name]:,} evaluations and sees {SEEN[name]} noises; – is a method that needs more, that "
        f"draws noise, or that does not fit. The data that it is given are {n} further pictures of {FINE} steps. "
        f"AutoDiffusion's fitness is the Fréchet distance of {pictured} pictures to them in the same features; it may "
        f"spend {allowed:,}.", "",
        f"| | {' | '.join(map(str, COUNTS))} | evaluations spent | seconds | measured |",
        "|---|" + "---|" * (len(COUNTS) + 3),
    ]  # fmt: skip
    court = Court(
        denoiser, pictures(fine, first=2 * n).cpu(), {"label": list(range(10))}, BUDGET[name], SEEN[name],
        {**batches, "autodiffusion": AutoDiffusion(samples=pictured, features=features)}, {"autodiffusion": allowed},
        lambda plan: problem.error(plan, start, ends),
        lambda *plans: "; " + " → ".join(f"{distance(pictures(plan)):.3f}" for plan in plans), peers,
    )  # fmt: skip
    for lines in court.table(title, head, names, again):
        yield title, lines


def stamp() -> str:
    """When, and after which commit."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return f"{date.today()}, {commit}"


def sections() -> dict[str, list[str]]:
    """The lines of every section that the file has, by title."""
    old = FILE.read_text(encoding="utf8").split("\n## ")[1:] if FILE.is_file() else []
    return {text.split("\n", 1)[0]: ("## " + text).strip().split("\n") for text in old}


def written(title: str, lines: list[str]) -> None:
    """Write the file with one section new and the others as they were, so that a kill loses little."""
    known = {**sections(), title: [f"## {title}", "", *lines, "", about()]}
    head = [
        "# Tuned plans", "",
        f"Worlds: median over {JUDGED} samples of the RMSE to the exact flow, in 64 dimensions, on a mixture that no "
        f"tuning saw. Tuners saw another mixture of the family, {NOISES} noises and {DATA:,} samples of it: untuned → "
        "tuned, how far it paid to go, and in brackets how many times smaller than the best peer's. Cost: of all "
        "columns together; an empty cell was not measured. "
        "Models: auto in brackets against the best peer, found on the model itself.",
    ]  # fmt: skip
    titles = [*FAMILIES, *(title for name in MODELS for title in (name, f"{name}, every tuner"))]
    order = [name for name in titles if name in known]
    text = "\n\n".join(["\n".join(head), *("\n".join(known[name]) for name in order)])
    FILE.write_text(text + "\n", encoding="utf8")


def main(arguments: list[str]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    problems.reference_ends = ship_tables.remembered
    everything = [m.name for m in methods() if m.family == "tuning"]
    parts = [a for a in arguments if a in ("mixtures", *MODELS)] or ["mixtures", *MODELS]
    again = [a for a in arguments if a in everything]
    families = [a.removeprefix("family=") for a in arguments if a.startswith("family=")] or list(FAMILIES)
    for part in parts:
        if part != "mixtures":
            for title, lines in model_tables(part, again or everything, again):
                written(title, lines)
            continue
        for which, title in enumerate(FAMILIES):
            quick = [n for n in everything if which == WHOLE or n in ELSEWHERE or n not in DEAR]
            if title in families:
                for lines in world_table([n for n in quick if not again or n in again], again, which):
                    written(title, lines)
    print(FILE.read_text(encoding="utf8"))


if __name__ == "__main__":
    main(sys.argv[1:])
