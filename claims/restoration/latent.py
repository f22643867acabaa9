"""What the claims of latent restorers are measured on: pictures that the shipped latent model itself draws."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

import fewstep
from fewstep.denoisers import Denoiser
from fewstep.restoration import AverageDownsample, Gaussian, Mask, Measurement, restore

SIGMA = 0.05
OPERATORS: dict[str, Any] = {"box": Mask.box(32, 32, 8, 8, 16), "quarter": AverageDownsample(4)}


@cache
def model() -> Denoiser:
    """The latent model of CIFAR-10 that ships."""
    return fewstep.load("cifar10-latent")


@cache
def pictures(count: int) -> tuple[Tensor, Tensor]:
    """(pictures, classes) that the model draws, so that they are in its range."""
    label = torch.arange(count) % 10
    z = fewstep.sample(model(), count, steps=16, cond={"label": label}, seed=5).x
    with torch.no_grad():
        return model().decode(z), label


def solve(task: str, method: str, evaluations: int, count: int = 6, **options: Any) -> tuple[float, float, float]:
    """(PSNR in dB, root mean squared residual of y, root mean square of E(D(z)) − z) of a method on a task."""
    truth, label = pictures(count)
    measurement = Measurement.simulate(OPERATORS[task], truth, Gaussian(SIGMA))
    out = restore(model(), measurement, method, evaluations=evaluations, cond={"label": label}, **options)
    assert out.latents is not None
    off = (out.x - truth).square().flatten(1).mean(1)
    residual = measurement.residual(out.x)
    kept = residual[residual != 0]
    with torch.no_grad():
        drift = model().encode(out.x) - out.latents
    return float((10 * (4 / off).log10()).mean()), *(float(v.square().mean().sqrt()) for v in (kept, drift))  # type: ignore[return-value]
