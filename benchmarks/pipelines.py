"""Our plans in diffusers' place: own time a step, and the time of a whole run, side by side in one process.

Own time: the network is the identity on a 4×4×8×8 tensor, and only the steps are timed.  "Loop" is our own loop,
"scheduler" the plan as a diffusers scheduler in the loop that pipelines have.

Whole calls: the same network, the same noise, the same solver, and all that a call does: `set_timesteps` and the loop
of pipelines with diffusers' scheduler and with ours, `fewstep.sample(denoiser, start=…, solver=…, grid=…, steps=20)`
with its planning, its checks and its result.  Then a pipeline's own call, `DDPMPipeline(…)(…)`, beside the same
picture by `fewstep.sample`.  Runs take turns; everything was called once before.

    python benchmarks/pipelines.py            all of it
    python benchmarks/pipelines.py compile    what `compile=True` gains, beside it (a minute or two of compiling)
"""

import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import diffusers
import torch

import fewstep
import fewstep.diffusers
from fewstep import sample, wrap
from fewstep.session import prepare

STEPS, RUNS = 20, 60
# Processor time of this thread, which does all the work: others on the machine do not count into it.
CLOCK = time.thread_time
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
def walk(scheduler: Any, net: Callable[..., torch.Tensor], x: torch.Tensor) -> tuple[float, float]:
    """Seconds of the steps that pipelines take, and of all with `set_timesteps`."""
    began = CLOCK()
    scheduler.set_timesteps(STEPS)
    set_ = CLOCK()
    for t in scheduler.timesteps:
        x = scheduler.step(net(scheduler.scale_model_input(x, t), t), t, x).prev_sample
    return CLOCK() - set_, CLOCK() - began


def loop(den: Any, plan: Any, x: torch.Tensor) -> float:
    """Seconds of our own loop."""
    session = prepare(den, None, start=x, plan=plan)
    began = CLOCK()
    for _ in session.events():
        pass
    return CLOCK() - began


def least(runs: dict[str, Callable[[], float]], count: int) -> dict[str, float]:
    """The least time of each, taking turns."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(count):
        for name, run in runs.items():
            best[name] = min(best[name], run())
    return best


def timed(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    began = CLOCK()
    call()
    return CLOCK() - began


def contest(
    solver: str, net: Callable[..., torch.Tensor], x: torch.Tensor, count: int, whole: bool
) -> tuple[dict[str, float], int]:
    """Seconds of a run in each of the three, of its steps alone or of the whole call, and its evaluations."""
    peer, base = PEERS[solver], PEERS["ddim"]
    mine = fewstep.diffusers.scheduler(base, solver)
    mine.set_timesteps(STEPS)
    den = wrap(lambda x, t: net(x, t), mine.plan.path, "eps", shape=tuple(x.shape[1:]))
    call = {"start": x, "solver": solver, "grid": "trailing", "steps": STEPS}
    runs = {
        "diffusers": lambda: walk(peer, net, x)[whole],
        "scheduler": lambda: walk(mine, net, x)[whole],
        "loop": lambda: timed(lambda: sample(den, **call)) if whole else loop(den, mine.plan, x),
    }
    for run in runs.values():
        run()
    return least(runs, count), mine.plan.evaluations


def pipeline_call(net: Any, count: int) -> dict[str, float]:
    """Seconds of a pipeline's own call with diffusers' scheduler and with ours, and of `sample` with its model."""
    theirs, mine = (diffusers.DDPMPipeline(net, PEERS["ddpm"]) for _ in range(2))
    mine.scheduler = fewstep.diffusers.scheduler(theirs, "ddpm")
    den = fewstep.load(theirs)
    for pipe in (theirs, mine):
        pipe.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": STEPS, "output_type": "np"}
    runs: dict[str, Callable[[], float]] = {
        "diffusers": lambda: timed(lambda: theirs(1, **call)),
        "scheduler": lambda: timed(lambda: mine(1, **call)),
        "loop": lambda: timed(lambda: sample(den, 1, solver="ddpm", grid="trailing", steps=STEPS)),
    }
    for run in runs.values():
        run()
    return least(runs, count)


def network(size: int, widths: tuple[int, ...], groups: int) -> tuple[Any, Callable[..., torch.Tensor]]:
    """A network, and how the loop of pipelines calls it."""
    torch.manual_seed(0)
    if not widths:
        plain = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(16, 3, 3, padding=1)
        )
        return plain, lambda x, t: plain(x)
    net = diffusers.UNet2DModel(
        sample_size=size, in_channels=3, out_channels=3, block_out_channels=widths, layers_per_block=1,
        down_block_types=("DownBlock2D",) * len(widths), up_block_types=("UpBlock2D",) * len(widths),
        norm_num_groups=groups,
    ).eval()  # fmt: skip
    return net, lambda x, t: net(x, t, return_dict=False)[0]


def compiling() -> None:
    """What `compile=True` gains on the small UNet, beside diffusers with the network as it is and compiled."""
    net, call = network(*NETWORKS["small UNet (8×8, 0.02 M weights)"])
    den, x = fewstep.load(net, scheduler=PEERS["ddim"]), torch.randn(1, 3, 8, 8)
    options = {"start": x, "solver": "ddim", "grid": "trailing", "steps": STEPS}
    quick = torch.compile(net)

    def theirs(x: torch.Tensor, t: Any) -> torch.Tensor:
        return quick(x, t, return_dict=False)[0]

    runs: dict[str, Callable[[], float]] = {
        "diffusers": lambda: walk(PEERS["ddim"], call, x)[1],
        "diffusers, the network compiled": lambda: walk(PEERS["ddim"], theirs, x)[1],
        "sample": lambda: timed(lambda: sample(den, **options)),
        "sample(compile=True)": lambda: timed(lambda: sample(den, compile=True, **options)),
    }
    first = {name: run() for name, run in runs.items()}
    best = least(runs, RUNS)
    print("| | ms a call | diffusers = 1 | first call, s |", "|---|---|---|---|", sep="\n")
    for name, seconds in best.items():
        print(f"| {name} | {seconds * 1e3:.1f} | {seconds / best['diffusers']:.2f} | {first[name]:.1f} |")


def row(name: str, solver: str, best: dict[str, float]) -> str:
    a, b, c = (best[key] * 1e3 for key in ("diffusers", "scheduler", "loop"))
    return f"| {name} | {solver} | {a:.1f} | {b:.1f} | {c:.1f} | {a / b:.2f} | {a / c:.2f} |"


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1:] == ["compile"]:
        compiling()
        return
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    lines = [
        "# In diffusers' place", "",
        f"{date.today()}, commit {commit}, {platform.machine()} CPU, one thread, torch {torch.__version__}, "
        f"diffusers {diffusers.__version__}; {STEPS} steps; processor time, the least of all runs.", "",
        "## Own time an evaluation, µs (4×4×8×8, the network is the identity)", "",
        "| solver | diffusers | fewstep as a scheduler | fewstep's loop | diffusers / scheduler | diffusers / loop |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for solver in PEERS:
        best, evaluations = contest(solver, lambda x, t: x, torch.randn(4, 4, 8, 8), RUNS, False)
        a, b, c = (best[k] / evaluations * 1e6 for k in ("diffusers", "scheduler", "loop"))
        lines.append(f"| {solver} | {a:.0f} | {b:.0f} | {c:.0f} | {a / b:.1f} | {a / c:.1f} |")
    lines += [
        "", "## A whole call, ms (batch 1)", "",
        "`set_timesteps` and all steps; the loop: `sample` with its planning, checks and result.", "",
        "| network | solver | diffusers | scheduler | loop | diffusers / scheduler | diffusers / loop |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, shape in NETWORKS.items():
        net, call = network(*shape)
        for solver in ("ddim", "dpm-solver++", "unipc"):
            x = torch.randn(1, 3, shape[0], shape[0])
            lines.append(row(name, solver, contest(solver, call, x, 6 if shape[0] > 8 else RUNS, True)[0]))
        if shape[1]:
            best = pipeline_call(net, 6 if shape[0] > 8 else RUNS)
            lines.append(row(name, "ddpm, `DDPMPipeline(…)(…)` itself", best))
    lines += [
        "", "The first run of a plan makes it: 5 ms (ddim) to 80 ms (unipc) once, in `sample` and in our scheduler.",
        "On a large network the sampler's own time is nothing beside the network's, and no faster one shows.",
    ]  # fmt: skip
    text = "\n".join(lines)
    print(text)
    (Path(__file__).parent / "pipelines.md").write_text(text + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
