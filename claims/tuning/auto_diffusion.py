"""AutoDiffusion: what its paper claims of times that an evolution found, and of layers left out."""

import random

import torch

from claims import Measured, claim
from claims.tuning.worlds import world
from fewstep import VP, load, make_plan, tune
from fewstep.metrics import frechet_distance
from fewstep.plan import Plan
from fewstep.tuning.auto_diffusion import AutoDiffusion, Species
from fewstep.tuning.problem import Problem
from fewstep.tuning.random_mixtures import mixtures

PAPER = (
    "AutoDiffusion: Training-Free Optimization of Time Steps and Architectures for Automated Diffusion Model "
    "Acceleration"
)
SEARCH = AutoDiffusion(population=30, generations=8, samples=128)


def _distance(which: int, plan: Plan, seed: int = 8) -> float:
    """The Fréchet distance of 1,024 samples, from noises that no search saw, to as many of the data."""
    denoiser = world(VP(), which)[0] if seed == 8 else mixtures(VP(), seed, 2)[which][0]
    start = torch.randn(1024, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    start = start * VP().sigma(1.0)
    return float(frechet_distance(Problem(denoiser, 4).run(plan, start), denoiser.world.sample(1024, 77)))


@claim(
    paper=PAPER,
    method="autodiffusion",
    says="With DDIM at four steps the times found are much better than uniform ones, and carry over to another model.",
    figure="ImageNet-64, ADM-G, 4 steps: FID 17.86, DDIM on uniform times 138.66",
)
def evolved_times_beat_uniform_ones_and_carry_over() -> Measured:
    told, holds, uniform = [], True, make_plan(VP(), "ddim", "uniform", 4)
    for which, name in ((1, "overlapping modes"), (2, "separated modes"), (3, "scales like pictures")):
        found = tune(world(VP(), which)[0], 4, method=SEARCH, samples=32, settle=False)
        here, there = ([_distance(which, p, seed) for p in (uniform, found)] for seed in (8, 10))
        told.append(f"{name} {here[0]:.3g} → {here[1]:.3g}, on another such world {there[0]:.3g} → {there[1]:.3g}")
        holds = holds and here[1] < here[0] and there[1] < there[0]
    figure = "Fréchet distance of 1,024 samples to data, 64 dimensions, VP, DDIM, 4 steps, uniform → found: "
    why = "" if not holds else (
        "By less than in the paper: with exact denoisers uniform times of VP are not as bad, and 128 samples measure "
        "a fitness in 64 dimensions only roughly."
    )  # fmt: skip
    return Measured(figure + "; ".join(told), holds, why)


@claim(
    paper=PAPER,
    method="autodiffusion",
    says="The evolution finds better times than random search of the same cost.",
    figure="the paper compares with random search in a picture; figures were not at hand",
)
def evolution_beats_random_search() -> Measured:
    denoiser, told, wins = world(VP(), 1)[0], [], 0
    species = Species(4, 1000, 0, 0.25)
    for seed in range(3):
        found = tune(denoiser, 4, method=SEARCH, samples=32, seed=seed, settle=False)
        best = min(value for _, value in found.source["tuned"]["history"])
        problem, rng, least = Problem(denoiser, 4, seed=seed), random.Random(seed), float("inf")
        start, data = problem.starts(SEARCH.samples, part=1), problem.clean(SEARCH.samples)
        while problem.spent < found.source["tuned"]["spent"]:
            plan = SEARCH._plan(VP(), species, species.drawn(rng, 0), [])
            least = min(least, float(frechet_distance(problem.run(plan, start).float().double(), data)))
        told.append(f"{least:.4f} and {best:.4f}")
        wins += best < least
    figure = (
        f"least Fréchet distance of 128 samples, 240 candidates of four steps, random and evolved: {'; '.join(told)}"
    )
    return Measured(figure, wins >= 2, "" if wins == 3 else "One of three seeds goes the other way.")


@claim(
    paper=PAPER,
    method="autodiffusion",
    says="A part of the layers can be left out at times that the search finds, at nearly no loss.",
    figure="ImageNet-64, 10 steps with times and layers found together; figures were not at hand",
)
def some_layers_can_be_left_out() -> Measured:
    model, labels = load("mnist"), {"label": list(range(10))}
    problem = Problem(model, 4, cond=labels, seed=9)
    data = problem.run(make_plan(model.path, "dpm-solver++", "logsnr", 20), problem.starts(120, part=4))
    start, found = problem.starts(80, part=5), {}
    for skip in (0.0, 0.1):
        search = AutoDiffusion(population=6, generations=4, samples=40, skip=skip)
        given = Problem(model, 4, data=data[:40], cond=labels)
        found[skip] = float(frechet_distance(problem.run(search(given), start), data[40:]))
    uniform = float(frechet_distance(problem.run(make_plan(model.path, "ddim", "uniform", 4), start), data[40:]))
    figure = (
        f"shipped mnist model, DDIM, 4 steps, Fréchet distance to samples of 20 steps: uniform {uniform:.1f}, "
        f"times found {found[0.0]:.1f}, with a tenth of the layers left out {found[0.1]:.1f}"
    )
    return Measured(figure, found[0.1] < uniform)
