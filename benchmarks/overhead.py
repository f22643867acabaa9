"""Own time of a step for a 4×4×8×8 tensor on one core, beside diffusers' schedulers and the bare floor.

The network is the identity, so that nothing but the samplers is timed.  The floor is three fused multiply-adds.  Every
figure is the least of many runs, all in one process; the ratios are what counts.

    python benchmarks/overhead.py
"""

import platform
import subprocess
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler

from fewstep import VP, make_plan, wrap
from fewstep.sampling import prepare

STEPS, RUNS = 50, 60
PEERS = {
    "ddim": DDIMScheduler,
    "dpm-solver++": DPMSolverMultistepScheduler,
    "heun": HeunDiscreteScheduler,
    "ddpm": DDPMScheduler,
}


def least(run: Callable[[], int]) -> float:
    """Microseconds a step, the least of all runs; `run` returns the steps that it took."""
    best = float("inf")
    for _ in range(RUNS):
        began = time.perf_counter()
        count = run()
        best = min(best, (time.perf_counter() - began) / count)
    return best * 1e6


def ours(name: str) -> float:
    den = wrap(lambda x, t: x, VP.from_betas("linear"), "eps", shape=(4, 8, 8))
    plan = make_plan(den.path, name, "trailing", STEPS)

    def once() -> float:
        session = prepare(den, 4, plan=plan)
        began = time.perf_counter()
        for _ in session.events():
            pass
        return (time.perf_counter() - began) / plan.evaluations

    return min(once() for _ in range(RUNS)) * 1e6


def theirs(name: str) -> float:
    peer = PEERS[name](timestep_spacing="trailing")
    start = torch.randn(4, 4, 8, 8)

    def once() -> float:
        peer.set_timesteps(STEPS)
        x, began = start, time.perf_counter()
        for t in peer.timesteps:
            x = peer.step(peer.scale_model_input(x, t), t, x).prev_sample
        return (time.perf_counter() - began) / len(peer.timesteps)

    return min(once() for _ in range(RUNS)) * 1e6


def floor() -> float:
    x, y = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8)

    def run() -> int:
        for _ in range(STEPS):
            torch.add(torch.add(torch.add(x, y, alpha=0.5), y, alpha=0.3), x, alpha=0.2)
        return STEPS

    return least(run)


def main() -> None:
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    bare = floor()
    lines = [
        "# Own time a step, 4×4×8×8, one core",
        "",
        f"{date.today()}, commit {commit}, {platform.machine()} CPU, torch {torch.__version__}.",
        "Microseconds an evaluation, the network's own time taken as nothing.",
        f"The floor, three fused multiply-adds: {bare:.1f} µs.",
        "",
        "| solver | fewstep | diffusers | diffusers / fewstep |",
        "|---|---|---|---|",
    ]
    for name in PEERS:
        a, b = ours(name), theirs(name)
        lines.append(f"| {name} | {a:.1f} | {b:.1f} | {b / a:.1f} |")
    text = "\n".join(lines)
    print(text)
    (Path(__file__).parent / "overhead.md").write_text(text + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
