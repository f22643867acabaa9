"""DMPS: the closed form against the gradient."""

from claims import Measured, claim
from claims.restoration.bench import solve, told

PAPER = "Diffusion Model Based Posterior Sampling for Noisy Linear Inverse Problems"


@claim(
    paper=PAPER,
    method="dmps",
    says="At equal evaluations it is competitive with DPS and needs less time, as no gradient passes the network.",
    figure="markedly faster than DPS on FFHQ with competitive PSNR and LPIPS",
)
def as_good_as_dps_and_faster() -> Measured:
    results = {
        "dmps": solve("blur", 0.1, "dmps", 300),
        "dps": solve("blur", 0.1, "dps", 300),
    }
    ours, dps = results.values()
    holds = ours.psnr > dps.psnr - 0.3 and ours.seconds < dps.seconds
    why = (
        ""
        if holds
        else (
            "In quality it is. The denoiser here is a formula whose reverse pass costs next to nothing, so that "
            "the time saved on a network does not show."
        )
    )
    return Measured(told("Gaussian blur, noise 0.1,", results), holds, why)
