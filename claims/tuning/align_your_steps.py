"""Align Your Steps: what its paper claims of the tuned grid against Karras', the uniform one and that even in λ."""

from claims import Measured, claim
from claims.tuning.worlds import mixture_errors, world
from fewstep import VP, tune
from fewstep.plan import Plan
from fewstep.tuning.align_your_steps import AlignYourSteps
from fewstep.tuning.problem import Problem

PAPER = "Align Your Steps: Optimizing Sampling Schedules in Diffusion Models"
WORLDS = ((1, "overlapping"), (2, "separated"))


def _tuned(solver: str, which: int, samples: int) -> Plan:
    return tune(world(VP(), which)[0], 10, method=AlignYourSteps(solver), samples=samples, seed=1, settle=False)


@claim(
    paper=PAPER,
    method="align-your-steps",
    says="With a stochastic solver of ten steps its grid is better than Karras' and than the uniform one.",
    figure="ImageNet-256, FID of SDE-DPM-Solver++(2M) at 10 steps: Karras 8.48, uniform 8.47, tuned 6.11",
)
def aligned_steps_beat_karras_and_uniform_with_noise() -> Measured:
    told, better, solver = [], [], "sde-dpm-solver++"
    for which, name in WORLDS:
        denoiser, start, ends = world(VP(), which, 512)
        tuned = Problem(denoiser, 10).error(_tuned(solver, which, 128), start, ends)
        karras, uniform = (mixture_errors(VP(), solver, grid, 10, which, 512) for grid in ("karras", "uniform"))
        told.append(f"{name}: Karras {karras:.3f}, uniform {uniform:.3f}, tuned {tuned:.3f}")
        better.append((tuned < karras, tuned < uniform))
    why = "" if all(map(all, better)) else (
        "With an exact denoiser VP's uniform grid is already good on these worlds, whose floor of 0.1 leaves the small "
        "noise levels, on which the bound spends most, without use; and the early stop sees the sampler through a "
        "noisy distance of 128 samples (so we think)."
    )  # fmt: skip
    figure = f"sliced W2 to the exact flow's ends, 20 modes in 64 dimensions, {solver}, 10 steps, 512 samples: "
    return Measured(figure + "; ".join(told), all(map(all, better)), why)


@claim(
    paper=PAPER,
    method="align-your-steps",
    says="It helps the deterministic DPM-Solver++(2M) too: better than the grid even in λ at ten steps.",
    figure="ImageNet-256, FID of DPM-Solver++(2M) at 10 steps: even in λ 4.82, tuned 4.31",
)
def aligned_steps_beat_even_lambda() -> Measured:
    told, holds, solver = [], True, "dpm-solver++"
    for which, name in WORLDS:
        denoiser, start, ends = world(VP(), which)
        tuned = Problem(denoiser, 10).error(_tuned(solver, which, 64), start, ends)
        karras, even = (mixture_errors(VP(), solver, grid, 10, which) for grid in ("karras", "logsnr"))
        told.append(f"{name}: Karras {karras:.4f}, even in λ {even:.4f}, tuned {tuned:.4f}")
        holds = holds and tuned < min(karras, even)
    why = (
        "The bound is that of a stochastic sampler that holds its answer; a deterministic method of order two needs "
        "other nodes, for which those even in λ are already good on these worlds."
    )
    figure = f"median RMSE to the exact flow, 20 modes in 64 dimensions, {solver}, 10 steps: {'; '.join(told)}"
    return Measured(figure, holds, "" if holds else why)
