"""DDIM: data encoded into noise and back, and noises that have a meaning between them."""

from itertools import pairwise

import torch

from claims import Measured, claim
from claims.worlds import twenty_modes
from fewstep import VP, encode, sample, slerp

PAPER = "Denoising Diffusion Implicit Models"


@claim(
    paper=PAPER,
    method="ddim",
    says="The deterministic process encodes data and gives it back, with an error that falls as steps are added.",
    figure="CIFAR-10, error per dimension of pictures in [0, 1]: 0.014 at 10 steps, 0.0023 at 100, 0.0001 at 1000",
)
def codes_give_the_data_back() -> Measured:
    denoiser, x = twenty_modes().denoiser(VP()), twenty_modes().sample(64, seed=2)
    errors = []
    for steps in (10, 20, 50, 100, 200):
        code = encode(denoiser, x, solver="ddim", grid="logsnr", steps=steps).x
        back = sample(denoiser, start=code, solver="ddim", grid="logsnr", steps=steps).x
        errors.append((steps, float((back - x).square().mean())))
    figure = f"20 modes in 64 dimensions, mean square a number: {', '.join(f'{e:.5f} at {n}' for n, e in errors)}"
    falls = all(b < a for (_, a), (_, b) in pairwise(errors))
    return Measured(figure, falls and errors[-1][1] < 0.05 * errors[0][1])


@claim(
    paper=PAPER,
    method="ddim",
    says="A start alone decides a sample's features whatever the steps, and slerp between starts gives samples.",
    figure="pictures: the same start at 10 to 1000 steps, and rows of interpolations (figures 5 and 6)",
)
def starts_are_codes() -> Measured:
    denoiser, world = twenty_modes().denoiser(VP()), twenty_modes()
    generator = torch.Generator().manual_seed(4)
    a, b = (torch.randn(200, 64, dtype=torch.float64, generator=generator) for _ in range(2))

    def run(start: torch.Tensor, steps: int) -> torch.Tensor:
        return sample(denoiser, start=start, solver="ddim", grid="logsnr", steps=steps).x

    def modes(x: torch.Tensor) -> torch.Tensor:
        return world.component_posterior(x, VP(), 0.05).argmax(1)

    same = float((modes(run(a, 20)) == modes(run(a, 500))).double().mean())
    between = {"slerp": slerp(a, b, 0.5), "a straight line": (a + b) / 2}
    typical = float(world.log_density(run(a, 50), VP(), 0.05).mean())
    off = {k: float(world.log_density(run(v, 50), VP(), 0.05).mean()) - typical for k, v in between.items()}
    figure = (
        f"20 modes: {same:.0%} of starts go to one mode at 20 and at 500 steps; log-density of the half-way samples "
        f"less that of samples, {'; '.join(f'{k} {v:.1f}' for k, v in off.items())}"
    )
    return Measured(figure, same > 0.9 and abs(off["slerp"]) < 5)
