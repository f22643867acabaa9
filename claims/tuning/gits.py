"""GITS: what its paper claims of the grid against Karras', and of the shape of trajectories."""

import torch

from claims import Measured, claim
from claims.tuning.worlds import mixture_errors, world
from fewstep import VE, load, sample, tune
from fewstep.tuning.gits import Gits, deviation
from fewstep.tuning.problem import Problem

PAPER = "On the Trajectory Regularity of ODE-based Diffusion Sampling"


def _compared(solver: str, which: int) -> list[tuple[int, float, float]]:
    denoiser, start, ends = world(VE(), which)
    rows = []
    for n in (5, 6, 8, 10):
        tuned = Problem(denoiser, n).error(tune(denoiser, n, method=Gits(solver)), start, ends)
        rows.append((n, mixture_errors(VE(), solver, "karras", n, which), tuned))
    return rows


def _told(solver: str) -> tuple[str, list[bool]]:
    told, wins = [], []
    for which, name in ((1, "overlapping modes"), (2, "separated modes"), (3, "scales like pictures")):
        rows = _compared(solver, which)
        told.append(f"{name} " + ", ".join(f"{n}: {a:.3f} → {b:.3f}" for n, a, b in rows))
        wins += [b < a for _, a, b in rows]
    return f"median RMSE to the exact flow, VE, 64 dimensions, {solver}, Karras → tuned: {'; '.join(told)}", wins


@claim(
    paper=PAPER,
    method="gits",
    says="Its grid makes DDIM better than Karras' at 5 to 10 evaluations.",
    figure="CIFAR-10, FID of DDIM at 5, 6, 8, 10: 49.66, 35.62, 22.32, 15.69 → 28.05, 21.04, 13.30, 10.37",
)
def gits_helps_ddim() -> Measured:
    figure, wins = _told("ddim")
    why = "" if all(wins) else "On separated modes at 6 Karras' grid happens to fall well."
    return Measured(figure, sum(wins) >= 10, why)


@claim(
    paper=PAPER,
    method="gits",
    says="Its grid makes iPNDM better than Karras' at 5 to 10 evaluations.",
    figure="CIFAR-10, FID of iPNDM at 5, 6, 8, 10: 13.59, 7.05, 3.69, 2.77 → 8.38, 4.88, 3.24, 2.49",
)
def gits_helps_ipndm() -> Measured:
    figure, wins = _told("ipndm")
    why = (
        "The costs are those of Euler's jumps, and γ = 1.15 moves nodes to low noise: where scales span 100 to 0.03, "
        "iPNDM on Karras' grid is better."
    )
    return Measured(figure, all(wins), "" if all(wins) else why)


@claim(
    paper=PAPER,
    method="gits",
    says="Trajectories lie near a subspace of three dimensions and bend once, whatever the sample.",
    figure="the first components of 1,000 trajectories' PCA on CIFAR-10, shown as a picture: three hold nearly all",
)
def trajectories_are_regular() -> Measured:
    den = load("mnist")
    labels = {"label": [0, 1, 2, 3] * 2}
    run = sample(den, 8, solver="dpm-solver++", grid="karras", steps=40, keep="trajectory", cond=labels)
    assert run.trajectory is not None
    # x/α, of which the paper speaks, as its VE has α = 1; at t = 1 it is not finite.
    alpha = den.path.alpha(run.plan.times)[1:].reshape(-1, 1, 1)
    states = run.trajectory[1:].double().flatten(2) / alpha
    held = []
    for one in states.unbind(1):
        values = torch.linalg.svdvals(one - one.mean(0)).square()
        held.append(float(values[:3].sum() / values.sum()))
    bend = deviation(states, states[0], states[-1]).mean(1)
    top = int(bend.argmax())
    once = bool((bend[: top + 1].diff() > 0).all() and (bend[top:].diff() < 0).all())
    figure = (
        f"shipped mnist model, 8 trajectories of 40 steps: three components hold at least {100 * min(held):.2f} % of "
        f"each one's variance; the mean distance from the chord has {'one maximum' if once else 'several maxima'}"
    )
    return Measured(figure, min(held) > 0.99 and once)
