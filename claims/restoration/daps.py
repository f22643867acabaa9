"""DAPS: phase retrieval, and the posterior when x₀ is drawn exactly."""

from typing import Any

import torch

from claims import Measured, claim
from claims.restoration import latent
from claims.restoration.bench import solve, told
from fewstep import VE, load, sample
from fewstep.metrics import psnr
from fewstep.restoration import Gaussian, Mask, Measurement, PhaseRetrieval, restore
from fewstep.worlds import GaussianMixture

PAPER = "Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing"


@claim(
    paper=PAPER,
    method="daps",
    says="On phase retrieval it is far better than DPS.",
    figure="FFHQ 256: 30.72 dB, DPS 17.64; best of 4 runs",
)
def phase_retrieval() -> Measured:
    model, rows, starts = load("cifar10"), 2, 4
    label = {"label": [model.null["label"]] * rows}
    truth = sample(model, rows, solver="unipc", steps=20, seed=4, cond=label).x.clamp(-1, 1)
    seen = Measurement.simulate(PhaseRetrieval(4.0, light=True), truth, Gaussian(0.05))
    settings: dict[str, dict[str, Any]] = {
        "daps": {"inner": 1, "moves": 40, "step_size": 2e-3, "sigma_max": 20.0, "sigma_min": 0.02},
        "dps": {"scale": 10.0},
    }
    found = {}
    for method, options in settings.items():
        label = {"label": [model.null["label"]] * (rows * starts)}
        x = restore(model, seen, method, evaluations=100, samples=starts, cond=label, **options).x
        # The run that fits y best is kept, which needs no truth; a mirrored picture has the same y.
        misfit = seen.repeated(starts).residual(x).flatten(1).square().sum(1).reshape(rows, starts)
        each = torch.maximum(*(psnr(v.clamp(-1, 1), truth.repeat_interleave(starts, 0)) for v in (x, x.flip(-1, -2))))
        each = each.reshape(rows, starts)
        found[method] = (float(each[torch.arange(rows), misfit.argmin(1)].mean()), float((each > 20).double().mean()))
    figure = ", ".join(f"{k} {v[0]:.1f} dB, {v[1]:.0%} of the runs above 20 dB" for k, v in found.items())
    return Measured(
        f"{rows} pictures that cifar10 draws, their light padded to twice the side, noise 0.05, best fit of {starts} "
        f"runs, 100 evaluations a run, up to the mirror image: {figure}",
        found["daps"][0] > found["dps"][0] + 1,
        "DPS has the best of the steps 1, 3 and 10 (14.0 and 16.3 dB with 1 and 3): with the published 1 it does not "
        "come to fit y in so few.",
    )  # fmt: skip


@claim(
    paper=PAPER,
    method="daps",
    says="Its levels anneal to the true posterior when x₀ is drawn from p(x₀ | x_t, y).",
    figure="a proposition",
)
def nearer_to_the_posterior_with_a_better_draw() -> Measured:
    common = {"evaluations": 100, "chain": "exact"}
    results = {
        "mean as the guess": solve("random", 0.1, "daps", inner=1, **common),  # type: ignore[arg-type]
        "the same, a belief as narrow as the data": solve("random", 0.1, "daps", inner=1, data_variance=0.3, **common),  # type: ignore[arg-type]
        "the flow's end as the guess": solve("random", 0.1, "daps", inner=5, **common),  # type: ignore[arg-type]
    }
    mean, _, end = results.values()
    return Measured(told("30 % of the pixels seen, noise 0.1,", results), mean.deviation < end.deviation)


@claim(
    paper=PAPER,
    method="daps",
    says="A Gaussian about the flow's end is near enough to p(x₀ | x_t).",
    figure="no number; 200 levels and 5 steps of the flow each, as published",
)
def weights_of_two_modes() -> Measured:
    modes = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    world, path = GaussianMixture([0.5, 0.5], modes, torch.full((2, 1), 0.1)), VE(100.0)
    seen = Measurement(Mask(torch.tensor([1, 0])), torch.tensor([[0.3, 0.0]], dtype=torch.float64), Gaussian(0.5))
    found = {}
    for name, inner in (("flow's end", 5), ("mean", 1)):
        common = {"chain": "exact", "inner": inner, "evaluations": 200 * inner, "samples": 600, "dtype": torch.float64}
        x = restore(world.denoiser(path), seen, "daps", **common).x  # type: ignore[arg-type]
        found[name] = float((x.sum(1) > 0).double().mean())
    figure = ", ".join(f"{k} {v:.3f}" for k, v in found.items())
    return Measured(
        f"600 samples, 200 levels, exact inner draws; weight of the nearer of two modes, guess by the {figure}; "
        "exact 0.847",
        abs(found["flow's end"] - 0.847) < 0.05,
        "The true p(x₀ | x_t) has both modes in it; drawn exactly it gives 0.84 (tests/restoration/test_sampled.py).",
    )


@claim(
    paper=PAPER,
    method="daps",
    says="It works through the decoder of a latent model, better than ReSample and PSLD.",
    figure="LatentDAPS, FFHQ: phase retrieval 29.16 dB, ReSample 21.60",
)
def through_a_decoder() -> Measured:
    shown, better = [], []
    for task, size in (("quarter", 2e-3), ("box", 2e-4)):
        ours = latent.solve(task, "daps", 30, count=4, inner=1, moves=20, step_size=size, sigma_max=10.0)
        others = {
            "psld": latent.solve(task, "psld", 30, count=4, scale=0.3, glue=0.1),
            "resample": latent.solve(task, "resample", 30, count=4, every=5),
        }
        shown.append(f"{task}: {ours[0]:.2f} dB; " + ", ".join(f"{k} {v[0]:.2f}" for k, v in others.items()))
        better.append(ours[0] > max(v[0] for v in others.values()))
    why = "Ours runs 20 Langevin moves a level from the mean; the paper's 50 of HMC, tuned to each task."
    return Measured(
        "4 pictures that cifar10-latent draws, a quarter of the sides and a box hidden, noise 0.05, 30 evaluations: "
        + "; ".join(shown),
        all(better),
        "" if all(better) else why,
    )
