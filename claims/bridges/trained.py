"""What the papers of bridges say of their samplers, on trained models: 4× super-resolution of 200 real digits.

The models ship (docs/models.md); each has the same small network and saw the same pictures.  A triple is what
`claims.bridges.digits` measures: PSNR/distance of features/Fréchet distance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from claims import Measured, claim
from claims.bridges.digits import Seen, figures, model, pairs, seen
from claims.bridges.hybrid_heun import evaluations, hybrid_heun
from claims.bridges.mean_reverting import SECOND, as_printed, euler, levels
from fewstep import make_plan
from fewstep.denoisers import Bridged
from fewstep.paths import RDDM, ResShift
from fewstep.solvers import Solver
from fewstep.solvers.bridge_boot import Booted


def run(den: Bridged, solver: str | Solver, grid: str | Tensor, steps: int | None = None) -> Seen:
    """How near a sampler brings the coarse digits on a model's own path."""
    return figures(den, make_plan(den.path, solver, grid, steps))


def told(rows: Mapping[str, Seen]) -> str:
    """The rows in words, what is not restored first."""
    return f"y itself {seen(pairs()[1])}; " + "; ".join(f"{name} {row}" for name, row in rows.items())


@claim(
    paper="ResShift: Efficient Diffusion Model for Image Super-resolution by Residual Shifting",
    method="resshift",
    says="Its 15 steps restore as well as diffusions that take 100.",
    figure="ImageNet ×4: PSNR 25.0 dB, LPIPS .23 at 15 steps; LDM at 100 steps 24.9 dB, .28",
)
def fifteen_steps_restore_digits() -> Measured:
    shifting, reverting = model("resshift"), model("mean-reverting")
    ours, peer = run(shifting, "random-walk", "uniform", 15), run(reverting, "ddpm", levels(100))
    rows = {"15 steps": ours, "posterior sampling of the mean-reverting model, 100 steps": peer}
    why = (
        "The peer is the other diffusion of ours that restores and was made for 100 steps; it begins at y too. No "
        "restorer that begins at noise was trained."
    )
    return Measured(told(rows), ours.psnr > peer.psnr and ours.frechet < 1.1 * peer.frechet, why)


@claim(
    paper="Efficient Diffusion Model for Image Restoration by Residual Shifting",
    method="resshift-4",
    says="Four steps are as good as fifteen.",
    figure="on a par with or better than the 15 steps of the earlier model in perceptual measures",
)
def four_steps_restore_digits() -> Measured:
    fifteen = model("resshift")
    # Both say x = x₀ + η(y − x₀) + κ√η·ε, and differ in which η they visit.
    rows = {
        f"{n} steps": run(den, "random-walk", "uniform", n)
        for n, den in ((4, fifteen.along(ResShift(4, 0.2))), (15, fifteen))
    }
    few, many = rows.values()
    why = (
        "One network served both: it was trained on the 15 levels with the squared error alone, and is told λ, not the "
        "index. The paper's network for 4 steps has a perceptual term in its loss."
    )
    return Measured(told(rows), few.frechet < 1.1 * many.frechet and few.features < 1.1 * many.features, why)


@claim(
    paper="MRS: A Fast Sampler for Mean Reverting Diffusion based on ODE and SDE Solvers",
    method="mr-sampler",
    says="Five to ten steps do what posterior sampling and Euler's method do in a hundred.",
    figure="low light, FID at 5/10/100 steps: MRS-1 41.8/41.1/32.9, MRS-2 34.0/36.5/32.9, posterior sampling "
    "453/432/35, Euler 447/424/37",
)
def few_steps_of_the_mean_reverting_model() -> Measured:
    den = model("mean-reverting")
    rows = {f"first order, {n}": run(den, "ddim", levels(n)) for n in (5, 10)}
    rows |= {f"second order, {n}": run(den, SECOND, levels(n)) for n in (5, 10, 20)}
    rows |= {f"posterior sampling as it was run, {n}": figures(den, as_printed(n)) for n in (10, 100)}
    rows["Euler, 20"] = figures(den, euler(20))
    rows["posterior sampling on the same coarse grid, 5"] = run(den, "ddpm", levels(5))
    slow = rows["posterior sampling as it was run, 100"]
    quick = [rows[f"first order, {n}"] for n in (5, 10)]
    why = (
        "It holds for its first order, which is DDIM. Posterior sampling does as well in 5 steps once its steps follow "
        "the coarse grid, so the factor is that of how the baseline was run. Its second order is behind the first up "
        "to 20 steps: extrapolation, we think, magnifies the errors of a small network, and few steps answer with "
        "means, which all three figures like."
    )
    holds = all(row.frechet < 1.1 * slow.frechet for row in quick)
    return Measured(f"steps: {told(rows)}", holds, why)


def booted(den: Bridged, solvers: Mapping[str, str], evaluations: Sequence[int]) -> dict[str, Seen]:
    """Rows of a bridge's solvers, one evaluation of each going to the step that leaves y."""
    return {
        f"{name}, {count}": run(den, Booted(solver), "uniform", count - 1)
        for name, solver in solvers.items()
        for count in evaluations
    }


@claim(
    paper="Diffusion Bridge Implicit Models",
    method="dbim",
    says="It is up to 25 times faster than the sampler that diffusion bridges had.",
    figure="ImageNet 256 inpainting: 20 evaluations beat 500; Edges→Handbags FID 1.74 at 20 beside 1.83 at 118",
)
def twenty_times_faster_on_a_trained_bridge() -> Measured:
    den, (_, y) = model("diffusion-bridge"), pairs()
    rows = booted(den, {"order 1": "ddim"}, (5, 20)) | booted(den, {"order 3": "dpm-solver++3m"}, (5,))
    with torch.no_grad():
        for steps in (7, 40):
            rows[f"hybrid Heun, {evaluations(steps)}"] = seen(hybrid_heun(den, y, steps))
    ours, theirs = rows["order 1, 5"], rows[f"hybrid Heun, {evaluations(40)}"]
    holds = ours.frechet <= theirs.frechet and ours.psnr >= theirs.psnr
    why = f"Five evaluations beside {evaluations(40)}: a factor of {evaluations(40) / 5:.0f}." if holds else ""
    return Measured(f"evaluations: {told(rows)}", holds, why)


@claim(
    paper="Diffusion Bridge Implicit Models",
    method="dbim",
    says="Up to about 20 evaluations the deterministic sampler is the best.",
    figure="η = 0 is best for translation at any number, and for inpainting up to 20; η = 0.8 to 1 wins there from 50",
)
def fresh_noise_on_a_trained_bridge() -> Measured:
    rows = booted(model("diffusion-bridge"), {"none": "ddim", "all": "ddpm"}, (5, 20))
    holds = all(rows[f"none, {n}"].frechet <= rows[f"all, {n}"].frechet for n in (5, 20))
    why = (
        "Fresh noise is better here at either number: it amends, we think, what a small network gets wrong at each "
        "level, as the paper finds for its inpainting model from 50 evaluations on."
    )
    return Measured(f"share of the noise that is fresh, evaluations: {told(rows)}", holds, "" if holds else why)


@claim(
    paper="Residual Denoising Diffusion Models",
    method="rddm",
    says="Two to ten steps are enough to restore.",
    figure="5 steps for shadows and low light, 10 for raindrops (PSNR 32.5 dB)",
)
def few_steps_restore_digits() -> Measured:
    den = model("rddm")
    path = den.path
    assert isinstance(path, RDDM)
    rows = {}
    for n in (2, 5, 10, 60):
        visiting = den.along(replace(path, visits=n))
        rows[f"{n} steps"] = run(visiting, "ddim", "uniform", n)
    few, many = [rows[f"{n} steps"] for n in (2, 5, 10)], rows["60 steps"]
    holds = max(r.psnr for r in few) > many.psnr - 0.1 and min(r.frechet for r in few) < 1.1 * many.frechet
    return Measured(told(rows), holds)
