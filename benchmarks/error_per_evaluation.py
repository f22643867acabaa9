"""Error to the exact flow against evaluations: every solver × grid of ours and the peers', on worlds, in one run.

Every sampler starts at the same noises on the path of a model trained on 1,000 discrete steps (linear β).  The figure
is the median over samples of the RMSE to the exact flow.  k-diffusion's samplers are measured where it is installed.

    python benchmarks/error_per_evaluation.py
"""

import platform
import subprocess
import warnings
from datetime import date
from pathlib import Path

import diffusers
import numpy as np
import torch
from peers import k_diffusion
from rich.console import Console
from torch import Tensor

from fewstep import VP, load, make_plan, methods, sample
from fewstep.analysis import exact_flow
from fewstep.denoisers import Denoiser
from fewstep.errors import FewstepError
from fewstep.grids import GRIDS
from fewstep.solvers import solver_named
from fewstep.tuning.random_mixtures import mixtures
from fewstep.worlds import GaussianMixture

PATH = VP.from_betas("linear")
COUNTS = (5, 6, 8, 10, 15, 20)
SAMPLES = 64
TWICE = ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler")
K_SAMPLERS = ("euler", "heun", "dpm_2", "lms", "dpmpp_2m")
K_TWICE = ("heun", "dpm_2")
SPACINGS = ("leading", "linspace", "trailing")
PEERS: dict[str, tuple[str, dict[str, object]]] = {
    "DDIM": ("DDIMScheduler", {}),
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "KDPM2": ("KDPM2DiscreteScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "DPM++ 2M Lu": ("DPMSolverMultistepScheduler", {"use_lu_lambdas": True}),
    "DPM++ 3M": ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    "DPM++ 3M Karras": ("DPMSolverMultistepScheduler", {"solver_order": 3, "use_karras_sigmas": True}),
    "DPM++ 2S": ("DPMSolverSinglestepScheduler", {}),
    "DEIS": ("DEISMultistepScheduler", {}),
    "UniPC 2": ("UniPCMultistepScheduler", {}),
    "UniPC 3": ("UniPCMultistepScheduler", {"solver_order": 3}),
    "UniPC 3 Karras": ("UniPCMultistepScheduler", {"solver_order": 3, "use_karras_sigmas": True}),
}


def worlds() -> dict[str, Denoiser]:
    """Worlds that no tuning saw: overlapping and separated modes in 64 dimensions, a plain one, an image-like one."""
    generator = torch.Generator().manual_seed(5)
    means = torch.randn(6, 2, dtype=torch.float64, generator=generator)
    plain = GaussianMixture(torch.ones(6), means, torch.full((6, 1), 0.02)).denoiser(PATH)
    close, middle, apart, steep = (denoiser for denoiser, _, _ in mixtures(PATH, 6, 2))
    pictures = load("cifar10-lowrank").world.denoiser(PATH)  # type: ignore[attr-defined]
    return {
        "2 dimensions, 6 modes": plain, "64 dimensions, 20 close modes": close, "64 dimensions, 20 modes": middle,
        "64 dimensions, 20 separated modes": apart, "64 dimensions, variances from 100 to 0.03": steep,
        "cifar10-lowrank": pictures,
    }  # fmt: skip


def peer(denoiser: Denoiser, noise: Tensor, name: str, options: dict[str, object], count: int) -> tuple[Tensor, int]:
    """A diffusers scheduler's samples on a denoiser, and the evaluations that it took."""
    scheduler = getattr(diffusers, name)(**{"beta_schedule": "linear", **options})
    scheduler.set_timesteps(count)
    x, asked = noise.float() * float(scheduler.init_noise_sigma), 0
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t)
        time = (float(t) + 1) / 1000
        x0 = denoiser(seen.double(), time)
        eps = (seen.double() - PATH.alpha(time) * x0) / PATH.sigma(time)
        x, asked = scheduler.step(eps.float(), t, x).prev_sample, asked + 1
    return x.double(), asked


def error(x: Tensor, exact: Tensor) -> float:
    value = float((x - exact).flatten(1).square().mean(1).sqrt().median())
    return value if np.isfinite(value) else float("inf")


Row = tuple[str, int, float]


def our_rows(denoiser: Denoiser, start: Tensor, exact: Tensor, tuned: bool) -> list[Row]:
    rows = []
    names = ["auto"] if tuned else [m.name for m in methods() if m.family == "solvers"]
    for name in names:
        if not tuned and solver_named(name).stochastic:
            continue
        for grid in [None] if tuned else [*GRIDS]:
            for count in COUNTS:
                try:
                    plan = make_plan(PATH, name, grid, evaluations=count)
                    out = sample(denoiser, start=start, plan=plan)
                except FewstepError:
                    continue  # fewer evaluations than one step costs, or a grid that the method refuses
                rows.append((f"{name}, {grid or 'tuned'}", count, error(out.x, exact)))
    return rows


def peer_rows(denoiser: Denoiser, start: Tensor, exact: Tensor, counts: tuple[int, ...] = COUNTS) -> list[Row]:
    rows: list[Row] = []
    for label, (name, options) in PEERS.items():
        for spacing in SPACINGS:
            for count in counts:
                steps = (count + 1) // 2 if name in TWICE else count
                try:
                    x, asked = peer(denoiser, start, name, {**options, "timestep_spacing": spacing}, steps)
                except (TypeError, ValueError, IndexError, RuntimeError, AssertionError):
                    continue  # a combination that the peer itself refuses or falls over
                if asked <= count:
                    rows.append((f"{label}, {spacing}", count, error(x, exact)))
    return rows


def k_rows(denoiser: Denoiser, start: Tensor, exact: Tensor, counts: tuple[int, ...] = COUNTS) -> list[Row]:
    rows: list[Row] = []
    low, high = (float(PATH.sigma(t) / PATH.alpha(t)) for t in (1 / 1000, 1.0))

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        t = PATH.t_of_lam(-sigma[0].double().log())
        return denoiser(x.double() * PATH.alpha(t), t)

    with k_diffusion() as sampling:
        for name in () if sampling is None else K_SAMPLERS:
            for count in counts:
                steps = (count + 1) // 2 if name in K_TWICE else count
                ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
                sigmas = (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7
                levels = torch.cat([sigmas, sigmas.new_zeros(1)])
                x = getattr(sampling, f"sample_{name}")(model, start * high, levels, disable=True)
                rows.append((f"k {name}, karras", count, error(x, exact)))
    return rows


def best(rows: list[Row], count: int) -> tuple[str, float]:
    """The least error among rows of a number of evaluations."""
    name, _, value = min((r for r in rows if r[1] == count), key=lambda r: r[2])
    return name, value


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    console = Console(stderr=True)
    with k_diffusion() as sampling:
        found = sampling is not None
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    lines = [
        "# Error to the exact flow against evaluations", "",
        f"{date.today()}, commit {commit}, {platform.machine()} CPU, torch {torch.__version__}, diffusers "
        f"{diffusers.__version__}, k-diffusion {'measured' if found else 'not installed'}. "
        f"Median over {SAMPLES} samples of the RMSE; linear β, 1,000 discrete steps; same noises for all.",
        "`auto` is the tuned plan that ships; none of these worlds was seen in its tuning.", "",
    ]  # fmt: skip
    for name, denoiser in worlds().items():
        console.print(name)
        generator = torch.Generator().manual_seed(77)
        start = torch.randn(SAMPLES, *denoiser.shape, dtype=torch.float64, generator=generator)
        exact = exact_flow(denoiser, start, tolerance=1e-8)
        untuned, tuned = (our_rows(denoiser, start, exact, t) for t in (False, True))
        peers = peer_rows(denoiser, start, exact) + k_rows(denoiser, start, exact)
        lines += [
            f"## {name}", "",
            "| evaluations | best peer | error | best untuned of ours | error | peer / ours | auto | peer / auto |",
            "|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for count in COUNTS:
            (p, pe), (o, oe), (_, te) = (best(rows, count) for rows in (peers, untuned, tuned))
            lines.append(f"| {count} | {p} | {pe:.2g} | {o} | {oe:.2g} | {pe / oe:.2f} | {te:.2g} | {pe / te:.1f} |")
        lines.append("")
        text = "\n".join(lines)  # written world by world, so that an interrupted run keeps what it measured
        (Path(__file__).parent / "error_per_evaluation.md").write_text(text + "\n", encoding="utf8")
    print(text)


if __name__ == "__main__":
    main()
