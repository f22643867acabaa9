"""Density guidance: the log-density of samples follows the quantile that was asked for."""

import torch

from claims import Measured, claim
from fewstep import VP, make_plan, sample
from fewstep.guidance import DensityGuidance, prior_guidance
from fewstep.worlds import GaussianMixture

PAPER = "Devil is in the Details: Density Guidance for Detail-Aware Generation with Flow Models"


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
