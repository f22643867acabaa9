"""Own time of a step for a 4×4×8×8 tensor on one core, of every solver, beside the peers and the bare floor.

The network is the identity, so that nothing but the samplers is timed.  The floor is three fused multiply-adds.  Every
figure is the least of many runs, all in one process, where the samplers take turns; the ratios are what counts.

    python benchmarks/overhead.py
"""

import platform
import subprocess
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import diffusers
import torch
from peers import k_diffusion

from fewstep import VP, Flow, make_plan, methods, wrap
from fewstep.errors import FewstepError
from fewstep.session import prepare

STEPS, RUNS = 50, 60
DISCRETE = {"beta_schedule": "linear", "timestep_spacing": "trailing"}
PEERS: dict[str, Any] = {
    "ddim": diffusers.DDIMScheduler(**DISCRETE),
    "ddpm": diffusers.DDPMScheduler(**DISCRETE),
    "dpm-solver++": diffusers.DPMSolverMultistepScheduler(**DISCRETE),
    "sde-dpm-solver++": diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", **DISCRETE),
    "dpm-solver": diffusers.DPMSolverSinglestepScheduler(**{"beta_schedule": "linear"}),
    "unipc": diffusers.UniPCMultistepScheduler(**DISCRETE),
    "deis": diffusers.DEISMultistepScheduler(**DISCRETE),
    "sa-solver": diffusers.SASolverScheduler(**DISCRETE),
    "heun": diffusers.HeunDiscreteScheduler(**DISCRETE),
    "euler": diffusers.EulerDiscreteScheduler(**DISCRETE),
    "ipndm": diffusers.IPNDMScheduler(),
}
K_PEERS = {"euler": "euler", "heun": "heun", "dpm-solver++": "dpmpp_2m", "dpm-solver++2s": "dpmpp_2s_ancestral",
           "sde-dpm-solver++": "dpmpp_2m_sde", "ddpm": "euler_ancestral", "ipndm": "lms"}  # fmt: skip
START = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))

Run = Callable[[], float]


def ours(name: str) -> Run:
    """Seconds an evaluation of a run of ours; its plan and noise are made before the clock starts."""
    for path in (VP.from_betas("linear"), Flow()):
        try:
            plan = make_plan(path, name, "trailing", STEPS)
            break
        except FewstepError:
            continue  # a solver for the other path
    den = wrap(lambda x, t: x, plan.path, "eps", shape=(4, 8, 8))

    def once() -> float:
        session = prepare(den, 4, plan=plan)
        began = time.perf_counter()
        for _ in session.events():
            pass
        return (time.perf_counter() - began) / plan.evaluations

    return once


def theirs(peer: Any) -> Run:
    """The same of a diffusers scheduler, in the loop that its pipelines have."""

    def once() -> float:
        peer.set_timesteps(STEPS)
        x, began = START, time.perf_counter()
        for t in peer.timesteps:
            x = peer.step(peer.scale_model_input(x, t), t, x).prev_sample
        return (time.perf_counter() - began) / len(peer.timesteps)

    return once


def in_k_diffusion(sampler: Callable[..., torch.Tensor]) -> Run:
    """The same of one of k-diffusion's samplers."""
    sigmas = torch.cat([torch.linspace(14.6 ** (1 / 7), 0.03 ** (1 / 7), STEPS) ** 7, torch.zeros(1)])

    def once() -> float:
        asked = 0

        def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            nonlocal asked
            asked += 1
            return x

        began = time.perf_counter()
        sampler(model, START * 14.6, sigmas, disable=True)
        return (time.perf_counter() - began) / asked

    return once


def floor() -> float:
    """Seconds of three fused multiply-adds."""
    x, y = START, START.flip(0).clone()
    began = time.perf_counter()
    for _ in range(STEPS):
        torch.add(torch.add(torch.add(x, y, alpha=0.5), y, alpha=0.3), x, alpha=0.2)
    return (time.perf_counter() - began) / STEPS


def row(name: str, sampling: Any) -> str:
    """A line of the table: least times, the runs taking turns."""
    runs: dict[str, Run] = {"ours": ours(name)}
    if name in PEERS:
        runs["diffusers"] = theirs(PEERS[name])
    if sampling is not None and name in K_PEERS and hasattr(sampling, f"sample_{K_PEERS[name]}"):
        runs["k"] = in_k_diffusion(getattr(sampling, f"sample_{K_PEERS[name]}"))
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(RUNS):
        for key in list(runs):
            try:
                best[key] = min(best[key], runs[key]() * 1e6)
            except (NameError, AttributeError, RuntimeError):
                if key == "ours":
                    raise
                del runs[key], best[key]  # a peer that needs what is not installed here

    def cell(key: str) -> str:
        return f"{best[key]:.1f} ({best[key] / best['ours']:.1f}×)" if key in best else ""

    return f"| {name} | {best['ours']:.1f} | {cell('diffusers')} | {cell('k')} |"


def main() -> None:
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    bare = min(floor() for _ in range(RUNS)) * 1e6
    names = [m.name for m in methods() if m.family == "solvers" and m.name != "auto"]
    lines = [
        "# Own time a step, 4×4×8×8, one core",
        "",
        f"{date.today()}, commit {commit}, {platform.machine()} CPU, torch {torch.__version__}, diffusers "
        f"{diffusers.__version__}.",
        "Microseconds an evaluation, the network's own time taken as nothing; in brackets the peer's time over ours.",
        f"The floor, three fused multiply-adds: {bare:.1f} µs.",
        "",
        "| solver | fewstep | diffusers | k-diffusion |",
        "|---|---|---|---|",
    ]
    with k_diffusion() as sampling:
        lines += [row(name, sampling) for name in names]
    text = "\n".join(lines)
    print(text)
    (Path(__file__).parent / "overhead.md").write_text(text + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
