"""Density guidance: the log-density of samples, and their detail, follow the quantile that was asked for."""

from io import BytesIO
from itertools import pairwise

import torch
from PIL import Image

from claims import Measured, claim
from fewstep import VP, load, make_plan, sample
from fewstep.guidance import DensityGuidance, prior_guidance
from fewstep.worlds import GaussianMixture

PAPER = "Devil is in the Details: Density Guidance for Detail-Aware Generation with Flow Models"
COUNT, STEPS = 30, 20


def _log_density(quantile: float, length: float = 0.5) -> float:
    path, generator = VP(), torch.Generator().manual_seed(0)
    means = 0.5 * torch.randn(5, 1024, dtype=torch.float64, generator=generator)
    world = GaussianMixture([1.0] * 5, means, torch.full((5, 1), 0.05))
    lams = torch.linspace(float(path.lam(1.0)), 3.0, 129, dtype=torch.float64)
    times = path.t_of_lam(lams).clamp(max=1.0)
    start = prior_guidance(torch.randn(16, 1024, dtype=torch.float64, generator=generator), length)
    x = sample(
        world.denoiser(path), start=start, plan=make_plan(path, "ddim", times), guides=[DensityGuidance(quantile)]
    ).x
    return float(world.log_density(x, path, times[-1]).mean())


@claim(
    paper=PAPER,
    method="density-guidance",
    says="The quantile, and the length of the starting noise, set the log-density of the samples monotonically.",
    figure="CIFAR-10 and EDM2, q from 0.3 to 0.7: likelier samples are smoother",
)
def the_quantile_sets_the_log_density() -> Measured:
    quantiles, lengths = (0.3, 0.4, 0.5, 0.6, 0.7), (0.01, 0.5, 0.99)
    by_quantile = [_log_density(q) for q in quantiles]
    by_length = [_log_density(0.5, length) for length in lengths]
    figure = ", ".join(f"{q} {value:.1f}" for q, value in zip(quantiles, by_quantile, strict=True))
    also = ", ".join(f"{q} {value:.1f}" for q, value in zip(lengths, by_length, strict=True))
    holds = by_quantile == sorted(by_quantile) and by_length == sorted(by_length, reverse=True)
    return Measured(
        f"mean log-density in nats, 1,024 dimensions, by q: {figure}; by quantile of the length: {also}", holds
    )


def _png_bytes(x: torch.Tensor) -> list[int]:
    """The size of each picture as PNG."""
    sizes = []
    for picture in ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy():
        file = BytesIO()
        Image.fromarray(picture).save(file, "png", optimize=True)
        sizes.append(len(file.getvalue()))
    return sizes


@claim(
    paper=PAPER,
    method="density-guidance",
    says="A higher quantile gives smoother pictures, a lower one more detailed ones; PNG files tell which.",
    figure="the authors' CIFAR-10 model, 64 steps: size falls with q from 0.3 to 0.7; EDM2 likewise",
)
def detail_falls_with_the_quantile() -> Measured:
    denoiser, quantiles = load("cifar10"), (0.3, 0.4, 0.5, 0.6, 0.7)
    label, found = [i % 10 for i in range(COUNT)], []
    for q in quantiles:
        x = sample(denoiser, COUNT, solver="ddim", steps=STEPS, guides=[DensityGuidance(q)], cond={"label": label}).x
        found.append(torch.tensor(_png_bytes(x), dtype=torch.float64))
    changes = [float((b < a).double().mean()) for a, b in pairwise(found)]
    figure = (
        f"{COUNT} pictures of the shipped CIFAR-10 model, {STEPS} steps of ddim; mean bytes as PNG by q: "
        f"{', '.join(f'{q:g} {float(size.mean()):.0f}' for q, size in zip(quantiles, found, strict=True))}; smaller at "
        f"the next q: {', '.join(f'{share:.0%}' for share in changes)}"
    )
    means = [float(size.mean()) for size in found]
    return Measured(figure, means == sorted(means, reverse=True) and min(changes) > 0.7)
