"""Time shift: a state that left its marginal is better told another time."""

import torch

from claims import Measured, claim
from fewstep import VP
from fewstep.loops.time_shift import TimeShift
from fewstep.worlds import Gaussian


@claim(
    paper="Alleviating Exposure Bias in Diffusion Models through Sampling with Shifted Time Steps",
    method="time-shift",
    says="A state that is off its marginal couples better with another time, and sampling by shifted times mends it.",
    figure="CIFAR-10 FID at 10 steps: DDIM 18.71 to 12.21, F-PNDM 6.99 to 3.88",
)
def shifted_times_mend_states_off_their_marginal() -> Measured:
    denoiser = Gaussian(torch.zeros(1024), 0.01).denoiser(VP())
    x = torch.randn(128, 1024, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    true = float(TimeShift(window=0.0)(denoiser, start=x).x.std())

    def wrong(window: float, scale: float) -> float:
        return abs(float(TimeShift(window=window)(denoiser, start=scale * x).x.std()) / true - 1)

    off = {window: max(wrong(window, 0.95), wrong(window, 1.05)) for window in (0.0, 0.06)}
    figure = (
        f"1,024 numbers of variance 0.01, DDIM 10 steps from noise 5 % too small or too large: the samples' size "
        f"is off by {off[0.0]:.1%} without, {off[0.06]:.1%} with shifted times"
    )
    why = (
        "The error is put in by hand, as an exact denoiser makes none. Measured apart, as it needs the test pictures: "
        "on the MNIST model DDIM's Fréchet distance falls by 15 to 31 % (three seeds, 5 and 10 steps, window 0.03)."
    )
    return Measured(figure, off[0.06] < off[0.0] / 2, why)
