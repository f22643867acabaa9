"""DeqIR: all noise levels of a restoration at once."""

import torch

from claims import Measured, claim
from claims.restoration.bench import PATH, patches
from fewstep.restoration import AverageDownsample, Measurement, restore
from fewstep.restoration.deep_equilibrium import DeepEquilibrium

PAPER = "Deep Equilibrium Diffusion Restoration with Parallel Sampling"


@claim(
    paper=PAPER,
    method="deq",
    says="The chain is sampled in parallel, as a fixed point that Anderson acceleration finds in few rounds.",
    figure="at most 15 rounds for 25 levels, to a relative residual of 0.001",
)
def fewer_rounds_than_steps() -> Measured:
    denoiser, truth = patches().denoiser(PATH), patches().sample(20, seed=4)
    seen = Measurement.simulate(AverageDownsample(2), truth)
    told, holds = [], True
    for steps in (25, 50, 100):
        chain = restore(denoiser, seen, "ddnm", evaluations=steps, eta=0.0, dtype=torch.float64).x
        size = float(chain.norm())
        for memory in (1, 5):
            out = restore(
                denoiser, seen, "deq", steps=steps, rounds=steps, memory=memory, tolerance=1e-3, dtype=torch.float64
            )
            off = float((out.x - chain).norm()) / size
            told.append(f"{steps} steps, memory {memory}: {out.stats.rounds} rounds, off by {off:.1e}")  # type: ignore[attr-defined]
            holds &= memory == 1 or (out.stats.rounds < 0.7 * steps and off < 0.01)  # type: ignore[attr-defined]
    why = "Plain rounds need hardly more where steps are few: the system is triangular."
    return Measured("8×8 pictures from 4×4, the slowest of 20: " + "; ".join(told), holds, why)


@claim(
    paper=PAPER,
    method="deq",
    says="The start can be optimised by the gradient of the fixed point, which improves the restored picture.",
    figure="no number that we could verify",
)
def the_start_can_be_optimised() -> Measured:
    denoiser, truth = patches().denoiser(PATH), patches().sample(20, seed=4)
    seen = Measurement.simulate(AverageDownsample(2), truth)
    loop = DeepEquilibrium(seen, steps=12, rounds=12)
    # What can be had without the truth: the mean of what other starts give.
    target = restore(denoiser, seen, "ddnm", evaluations=12, eta=0.0, samples=8).mean.double()
    start = torch.randn(20, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    descent, off = torch.optim.Adam([start], 0.05), []
    for _ in range(25):
        made = loop.from_start(denoiser, start)
        off.append(float((made.detach() - truth).square().mean()))
        descent.zero_grad()
        (made - target).square().sum().backward()
        descent.step()
    figure = (
        f"towards the mean of 8 other restorations, 25 steps of Adam: MSE to the truth {off[0]:.4f} → {off[-1]:.4f}"
    )
    return Measured(figure, off[-1] < 0.9 * off[0])
