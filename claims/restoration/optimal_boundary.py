"""Optimal boundary conditions: one start of the flow that serves all measurements."""

import torch

from claims import Measured, claim
from claims.restoration.bench import PATH, patches
from fewstep.restoration import AverageDownsample, Measurement, restore
from fewstep.restoration.optimal_boundary import OptimalBoundary

PAPER = "Solving Diffusion ODEs with Optimal Boundary Conditions for Better Image Super-Resolution"


@claim(
    paper=PAPER,
    method="optimal-boundary",
    says="A start found on a few references restores other pictures better than chance starts: it hardly depends on y.",
    figure="no number that we could verify",
)
def one_start_serves_all() -> Measured:
    denoiser, operator, steps = patches().denoiser(PATH), AverageDownsample(2), 10
    truth = patches().sample(60, seed=8)
    seen = Measurement.simulate(operator, truth)
    search = OptimalBoundary(seen, steps=steps, truths=patches().sample(20, seed=9), candidates=100)
    found = search.search(denoiser)
    halves = [half.mean(1).argsort().argsort().double() for half in found.scores.split(10, 1)]
    rank = float(torch.corrcoef(torch.stack(halves))[0, 1])
    best = restore(denoiser, seen, "optimal-boundary", start=found.start, steps=steps).x
    none = restore(denoiser, seen, "optimal-boundary", start=torch.zeros_like(found.start), steps=steps).x
    drawn = restore(denoiser, seen, "ddnm", evaluations=steps, eta=0.0, samples=40).x
    off = (drawn - truth.repeat_interleave(40, 0)).square().flatten(1).mean(1).reshape(60, 40)
    ours, zero = (float((x - truth).square().mean()) for x in (best, none))
    # A chance start that is shared by all pictures, at its 5 % quantile over starts.
    shared = torch.stack(
        [
            (restore(denoiser, seen, "optimal-boundary", start=start[None], steps=steps).x - truth).square().mean()
            for start in torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(3))
        ]
    )
    figure = (
        f"8×8 pictures from 4×4, ten steps, mean squared error: found {ours:.5f}, chance {float(off.mean()):.5f} "
        f"(best 5 % of shared starts {float(shared.quantile(0.05)):.5f}), the start 0 {zero:.5f}; ranks of starts on "
        f"two sets of references correlate by {rank:.2f}"
    )
    holds = ours < float(off.mean()) and ours < float(shared.quantile(0.25)) and rank > 0
    return Measured(figure, holds)
