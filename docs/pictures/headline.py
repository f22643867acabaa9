"""The picture of the front page: the shipped model of CIFAR-10, the same noises, few evaluations.

    python docs/pictures/headline.py

Rows: the best of diffusers' solvers and spacings at 5 evaluations, as `benchmarks/tuned.py` found it; what ships here
for that model at 5 evaluations; the model's own flow, 100 steps of Heun.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(Path(__file__).parent)]

import torch  # noqa: E402
from make import sheet  # noqa: E402
from tuned import run_peer, shown_to_peers  # noqa: E402

import fewstep  # noqa: E402
from fewstep.noise import KeyedNoise  # noqa: E402

EVALUATIONS, PEER, LABELS = 5, "UniPC 3, leading", list(range(10))


def main() -> None:
    denoiser = fewstep.load("cifar10")
    noise = KeyedNoise(7, range(len(LABELS)), denoiser.shape, torch.float32, "cpu").start()
    start, cond = noise * float(denoiser.path.sigma(1.0)), {"label": LABELS}
    peer = run_peer(shown_to_peers(denoiser, LABELS), noise.double(), PEER, EVALUATIONS).float()
    plan = fewstep.make_plan(denoiser.path, "auto", evaluations=EVALUATIONS, model="cifar10")
    ours = fewstep.sample(denoiser, start=start, plan=plan, cond=cond).x
    exact = fewstep.sample(denoiser, start=start, solver="heun", grid="logsnr", steps=100, cond=cond).x
    for name, x in (("peer", peer), ("ours", ours)):
        print(name, float((x - exact).square().mean((1, 2, 3)).sqrt().median()))
    sheet([x.clamp(-1, 1) for x in (peer, ours, exact)], 3).save(Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()
