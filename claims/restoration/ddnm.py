"""DDNM: the null-space step without noise."""

from claims import Measured, claim
from claims.restoration.bench import solve, told

PAPER = "Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model"


@claim(
    paper=PAPER,
    method="ddnm",
    says="At 100 evaluations it is at least as good as DDRM.",
    figure="ImageNet SR×4 27.46 dB, FID 39.26; DDRM 27.38 and 43.15",
)
def better_than_ddrm_without_noise() -> Measured:
    results = {
        "ddnm": solve("projection", 0.0, "ddnm", 100),
        "ddrm": solve("projection", 0.0, "ddrm", 100),
    }
    ours, other = results.values()
    holds = ours.mean < other.mean and ours.psnr > other.psnr - 0.1
    why = "" if holds else ("The two differ by less than the samples' scatter.")
    return Measured(told("12 random projections without noise", results), holds, why)
