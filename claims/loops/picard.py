"""ParaDiGMS: few rounds one after another in place of many steps, and the same samples."""

from claims import Measured, claim
from claims.worlds import twenty_modes
from fewstep import VP, sample
from fewstep.loops.picard import ParallelStats, Picard
from fewstep.metrics import sliced_w2

PAPER = "Parallel Sampling of Diffusion Models"


@claim(
    paper=PAPER,
    method="paradigms",
    says="Picard iteration needs few rounds, for two to three times the evaluations, and no quality is lost.",
    figure="Stable Diffusion v2, DDPM 1000 steps: 44 rounds, 2,040 evaluations; DDIM 200 steps: 16 rounds, 425",
)
def few_rounds_and_the_same_samples() -> Measured:
    denoiser, exact = twenty_modes().denoiser(VP()), twenty_modes().sample(2000, seed=9)
    told, good = [], True
    for solver, steps in (("ddpm", 1000), ("ddim", 200)):
        out = Picard(solver, "uniform", steps, tolerance=0.1, window=80)(denoiser, 200)
        one_by_one = sample(denoiser, 200, solver=solver, grid="uniform", steps=steps).x
        assert isinstance(out.stats, ParallelStats)
        mean = sum(out.stats.each) / len(out.stats.each)
        far, near = (float(sliced_w2(x.double(), exact)) for x in (out.x, one_by_one))
        told.append(
            f"{solver} {steps} steps: {out.stats.rounds} rounds, {mean:.0f} evaluations a sample, "
            f"sliced W2 {far:.3f} ({near:.3f} one after another)"
        )
        good = good and out.stats.rounds < steps / 10 and far < 1.05 * near
    return Measured(f"20 modes in 64 dimensions, 200 samples, tolerance 0.1, window 80; {'; '.join(told)}", good)
