"""What each precision of the state costs in accuracy: RMSE to the same plan and noises in float64.

The world is exact, and its denoiser answers in the precision that it is asked in.

    python benchmarks/precision.py
"""

import platform
import subprocess
from datetime import date
from pathlib import Path

import torch

import fewstep
from fewstep.worlds import GaussianMixture

SOLVERS = ("ddim", "heun", "dpm-solver++", "dpm-solver++3m", "unipc", "deis", "ddpm", "sde-dpm-solver++", "sa-solver")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
COUNTS = (10, 50)


def main() -> None:
    """Measure, and write precision.md."""
    torch.set_num_threads(1)
    means = torch.randn(20, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    denoiser = GaussianMixture([0.05] * 20, means, torch.full((20, 1), 0.1)).denoiser(fewstep.VP())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    head = " | ".join(f"{str(d).split('.')[1]}, {n} steps" for n in COUNTS for d in DTYPES)
    lines = [
        "# Accuracy of each precision", "",
        f"{date.today().isoformat()}, commit {commit}, {platform.machine()} CPU, torch {torch.__version__}. RMSE over "
        "256 samples to the same plan and noises in float64, 20 modes in 64 dimensions, data of variance near 1.", "",
        f"| solver | {head} |", "|---|" + "---|" * (len(COUNTS) * len(DTYPES)),
    ]  # fmt: skip
    for solver in SOLVERS:
        cells = []
        for steps in COUNTS:
            plan = fewstep.make_plan(denoiser.path, solver, steps=steps)
            exact = fewstep.sample(denoiser, 256, plan=plan, dtype=torch.float64, seed=1).x
            for dtype in DTYPES:
                found = fewstep.sample(denoiser, 256, plan=plan, dtype=dtype, seed=1).x.double()
                cells.append(f"{float((found - exact).square().mean().sqrt()):.1e}")
        lines.append(f"| {solver} | {' | '.join(cells)} |")
        print(lines[-1])
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
