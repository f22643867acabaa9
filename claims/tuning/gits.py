"""GITS: what its paper claims of the grid against Karras', and of the shape of trajectories."""

import torch

from claims import Measured, claim
from claims.tuning.worlds import told_gains, tuned_errors, world
from fewstep import VE, load, sample
from fewstep.tuning.gits import Gits, deviation
from fewstep.tuning.problem import Problem

PAPER = "On the Trajectory Regularity of ODE-based Diffusion Sampling"


def _told(solver: str) -> tuple[str, list[bool], int]:
    """The figure, where what was found is better, and how often what `tune` makes of it is no worse."""
    told, wins, fine = [], [], 0
    for which, name in ((1, "overlapping modes"), (2, "separated modes"), (3, "scales like pictures")):
        denoiser, start, ends = world(VE(), which)
        rows = [
            (n, *tuned_errors(Gits(solver, gamma=1.15, metric="dev"), Problem(denoiser, n), start, ends, n))
            for n in (5, 6, 8, 10)
        ]
        told.append(f"{name} {told_gains(rows)}")
        wins += [found < before for _, before, found, _ in rows]
        fine += sum(last <= before for _, before, _, last in rows)
    return f"median RMSE to the exact flow, VE, 64 dimensions, {solver}, Karras → tuned: {'; '.join(told)}", wins, fine


@claim(
    paper=PAPER,
    method="gits",
    says="Its grid makes DDIM better than Karras' at 5 to 10 evaluations.",
    figure="CIFAR-10, FID of DDIM at 5, 6, 8, 10: 49.66, 35.62, 22.32, 15.69 → 28.05, 21.04, 13.30, 10.37",
)
def gits_helps_ddim() -> Measured:
    figure, wins, _ = _told("ddim")
    why = "" if all(wins) else "On separated modes at 6 Karras' grid happens to fall well."
    return Measured(figure, sum(wins) >= 10, why)


@claim(
    paper=PAPER,
    method="gits",
    says="Its grid makes iPNDM better than Karras' at 5 to 10 evaluations.",
    figure="CIFAR-10, FID of iPNDM at 5, 6, 8, 10: 13.59, 7.05, 3.69, 2.77 → 8.38, 4.88, 3.24, 2.49",
)
def gits_helps_ipndm() -> Measured:
    figure, wins, fine = _told("ipndm")
    why = (
        "The costs are those of Euler's jumps, and γ = 1.15 moves nodes to low noise: where scales span 100 to 0.03, "
        "iPNDM on Karras' grid is better. Gone from that grid to the found one only as far as it pays on other "
        f"noises, as `tune` does, it is no worse at {fine} of {len(wins)}."
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
