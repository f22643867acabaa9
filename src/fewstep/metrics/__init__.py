"""Metrics: how far samples are from a distribution or from one another, in float64, on the samples' own device."""

from fewstep.metrics.frechet import frechet_distance, gaussian_frechet
from fewstep.metrics.kernel_discrepancy import mmd
from fewstep.metrics.nearest_neighbours import density_coverage, precision_recall
from fewstep.metrics.signal_to_noise import psnr
from fewstep.metrics.sliced_wasserstein import sliced_w2, w2

__all__ = [
    "density_coverage", "frechet_distance", "gaussian_frechet", "mmd", "precision_recall", "psnr", "sliced_w2", "w2",
]  # fmt: skip
