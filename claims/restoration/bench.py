"""What the claims of restoration are measured on: small pictures from a mixture, whose posterior is exact."""

import math
import time
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep import VP
from fewstep.paths import Path
from fewstep.restoration import AverageDownsample, Mask, Matrix, Measurement, RandomProjection, restore
from fewstep.restoration import Gaussian as Noise
from fewstep.worlds import GaussianMixture

PATH = VP.from_betas("linear")


@cache
def patches() -> GaussianMixture:
    """Six correlated modes of 8×8 pictures, each a random wave with its own falling spectrum."""
    generator = torch.Generator().manual_seed(0)
    line = torch.cos(math.pi / 8 * (torch.arange(8)[:, None] + 0.5) * torch.arange(8)).double()
    waves = torch.linalg.qr(torch.kron(line, line))[0]
    order = (torch.arange(8)[:, None] + torch.arange(8)).flatten().argsort(stable=True)
    basis = waves[:, order[:16]]
    means = 0.25 * torch.randn(6, 16, dtype=torch.float64, generator=generator) @ basis.mT
    spread = torch.linspace(3.0, 0.1, 16, dtype=torch.float64).expand(6, 16).clone()
    return GaussianMixture(
        torch.ones(6), means.reshape(6, 1, 8, 8), torch.full((6, 1), 0.003), basis.expand(6, 64, 16).clone(),
        spread / 8,
    )  # fmt: skip


@cache
def task(name: str, sigma: float) -> tuple[Measurement, GaussianMixture, Tensor]:
    """(measurement, its exact posterior, the truth) of one picture: "half", "random", "projection", "down", "blur"."""
    truth = patches().sample(1, seed=11)
    blur = torch.exp(-0.5 * (torch.arange(64)[:, None] - torch.arange(64)).double() ** 2 / 2.0)
    operators: dict[str, Any] = {
        "half": Mask.half(8, 8),
        "random": Mask.random(8, 8, 0.3),
        "projection": RandomProjection((1, 8, 8), 12),
        "down": AverageDownsample(2),
        "blur": Matrix(blur / blur.sum(1, keepdim=True), (1, 8, 8)),
    }
    measurement = Measurement.simulate(operators[name], truth, Noise(sigma))
    matrix = measurement.matrix((1, 8, 8))
    seen = measurement.y.flatten()
    seen = seen[measurement.operator.mask.expand(8, 8).flatten()] if isinstance(operators[name], Mask) else seen
    return measurement, patches().posterior(matrix, seen, max(sigma, 1e-4)), truth


class Result(NamedTuple):
    """What a method gave: RMSE of its mean and deviation to the posterior's, PSNR of mean and of samples, seconds."""

    mean: float
    deviation: float
    psnr_mean: float
    psnr: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"mean off by {self.mean:.3f}, deviation by {self.deviation:.3f}, {self.psnr:.1f} dB a sample, "
            f"{self.seconds:.1f} s"
        )


def solve(
    name: str, sigma: float, method: str, evaluations: int, samples: int = 100, path: Path = PATH, **options: Any
) -> Result:
    """A method on a task, against the exact posterior."""
    measurement, posterior, truth = task(name, sigma)
    began = time.perf_counter()
    out = restore(patches().denoiser(path), measurement, method, evaluations=evaluations, samples=samples, **options)
    seconds, x = time.perf_counter() - began, out.x.double()
    off, wide = out.mean[0] - posterior.mean, out.std[0].flatten() - posterior.covariance.diagonal().sqrt()
    mean, deviation = (float(v.square().mean().sqrt()) for v in (off, wide))
    psnr_mean, psnr = (10 * math.log10(4 / float((v - truth).square().mean())) for v in (out.mean, x))
    return Result(mean, deviation, psnr_mean, psnr, seconds)


def told(task_name: str, results: dict[str, Result]) -> str:
    """The results in words."""
    return f"{task_name} of 8×8 pictures, exact posterior: " + "; ".join(f"{k}: {v}" for k, v in results.items())
