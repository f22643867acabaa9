"""Our plans in diffusers' place: own time a step, and the time of a whole run, side by side in one process.

Own time: the network is the identity on a 4×4×8×8 tensor.  "Loop" is `fewstep.sample`, "scheduler" the plan as a
diffusers scheduler in the loop that pipelines have.  Whole runs: the same UNet, the same noise, the same solver, once
with diffusers' scheduler in that loop, once with ours there, once in our own loop; the runs take turns.

    python benchmarks/pipelines.py
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

import fewstep.diffusers
from fewstep import wrap
from fewstep.sampling import prepare

STEPS, RUNS = 20, 20
TRAILING = {"timestep_spacing": "trailing"}
PEERS: dict[str, Any] = {
    "ddim": diffusers.DDIMScheduler(clip_sample=False, **TRAILING),
    "ddpm": diffusers.DDPMScheduler(clip_sample=False, **TRAILING),
    "dpm-solver++": diffusers.DPMSolverMultistepScheduler(**TRAILING),
    "sde-dpm-solver++": diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", **TRAILING),
    "unipc": diffusers.UniPCMultistepScheduler(**TRAILING),
    "deis": diffusers.DEISMultistepScheduler(**TRAILING),
    "heun": diffusers.HeunDiscreteScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, **TRAILING),
    "euler": diffusers.EulerDiscreteScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, **TRAILING),
}
NETWORKS: dict[str, Any] = {
    "two convolutions (8×8, 0.9 k weights)": (8, (), 0),
    "small UNet (8×8, 0.02 M weights)": (8, (8, 16), 4),
    "larger UNet (32×32, 8 M weights)": (32, (64, 128, 128), 32),
}


@torch.no_grad()
def walk(scheduler: Any, net: Callable[..., torch.Tensor], x: torch.Tensor) -> float:
    """Seconds of the loop that pipelines have."""
    scheduler.set_timesteps(STEPS)
    began = time.perf_counter()
    for t in scheduler.timesteps:
        x = scheduler.step(net(scheduler.scale_model_input(x, t), t), t, x).prev_sample
    return time.perf_counter() - began


def loop(den: Any, plan: Any, x: torch.Tensor) -> float:
    """Seconds of our own loop."""
    session = prepare(den, None, start=x, plan=plan)
    began = time.perf_counter()
    for _ in session.events():
        pass
    return time.perf_counter() - began


def least(runs: dict[str, Callable[[], float]], count: int) -> dict[str, float]:
    """The least time of each, taking turns."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(count):
        for name, run in runs.items():
            best[name] = min(best[name], run())
    return best


def contest(solver: str, net: Callable[..., torch.Tensor], x: torch.Tensor, count: int) -> tuple[dict[str, float], int]:
    """Seconds of a run in each of the three, and its evaluations."""
    peer, base = PEERS[solver], PEERS["ddim"]
    mine = fewstep.diffusers.scheduler(base, solver)
    mine.set_timesteps(STEPS)
    den = wrap(lambda x, t: net(x, t), mine.plan.path, "eps", shape=tuple(x.shape[1:]))
    runs = {
        "diffusers": lambda: walk(peer, net, x),
        "scheduler": lambda: walk(mine, net, x),
        "loop": lambda: loop(den, mine.plan, x),
    }
    return least(runs, count), mine.plan.evaluations


def network(size: int, widths: tuple[int, ...], groups: int) -> Callable[..., torch.Tensor]:
    torch.manual_seed(0)
    if not widths:
        plain = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(16, 3, 3, padding=1)
        )
        return lambda x, t: plain(x)
    net = diffusers.UNet2DModel(
        sample_size=size, in_channels=3, out_channels=3, block_out_channels=widths, layers_per_block=1,
        down_block_types=("DownBlock2D",) * len(widths), up_block_types=("UpBlock2D",) * len(widths),
        norm_num_groups=groups,
    ).eval()  # fmt: skip
    return lambda x, t: net(x, t, return_dict=False)[0]


def main() -> None:
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    lines = [
        "# In diffusers' place", "",
        f"{date.today()}, commit {commit}, {platform.machine()} CPU, one thread, torch {torch.__version__}, "
        f"diffusers {diffusers.__version__}; {STEPS} steps, the least of all runs.", "",
        "## Own time an evaluation, µs (4×4×8×8, the network is the identity)", "",
        "| solver | diffusers | fewstep as a scheduler | fewstep's loop | diffusers / scheduler | diffusers / loop |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for solver in PEERS:
        best, evaluations = contest(solver, lambda x, t: x, torch.randn(4, 4, 8, 8), RUNS)
        a, b, c = (best[k] / evaluations * 1e6 for k in ("diffusers", "scheduler", "loop"))
        lines.append(f"| {solver} | {a:.0f} | {b:.0f} | {c:.0f} | {a / b:.1f} | {a / c:.1f} |")
    lines += [
        "",
        "## A whole run, ms (batch 1)",
        "",
        "| network | solver | diffusers | scheduler | loop | diffusers / loop |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for name, (size, widths, groups) in NETWORKS.items():
        net = network(size, widths, groups)
        for solver in ("ddim", "dpm-solver++", "unipc"):
            best, _ = contest(solver, net, torch.randn(1, 3, size, size), 3 if size > 8 else 12)
            a, b, c = (best[k] * 1e3 for k in ("diffusers", "scheduler", "loop"))
            lines.append(f"| {name} | {solver} | {a:.1f} | {b:.1f} | {c:.1f} | {a / c:.2f} |")
    lines += ["", "On a large network the sampler's own time is nothing beside the network's, and no faster one shows."]
    text = "\n".join(lines)
    print(text)
    (Path(__file__).parent / "pipelines.md").write_text(text + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
