"""DualFast: what it brings with an exact and with a wrong network."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from claims import Measured, claim
from claims.worlds import rmse, twenty_modes
from fewstep import VP, make_plan, wrap
from fewstep.analysis import exact_flow
from fewstep.denoisers import Denoiser
from fewstep.solvers.dual_speed import DualSpeed

PAPER = "DualFast: Dual-Speedup Framework for Fast Sampling of Diffusion Models"
STRENGTHS = (0.0, 0.1, 0.3, 0.5, 0.8, 1.2, 1.8)


def _network(strength: float) -> Denoiser:
    """The exact denoiser with a smooth error of its noise that grows as noise falls."""
    world = twenty_modes()

    def net(x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        a, s = (value.reshape(-1, 1) for value in (VP().alpha(t), VP().sigma(t)))
        exact = (x - a * world.denoise(x, VP(), t.reshape(-1, 1))) / s
        return exact * (1 - strength * (1 - s))

    return wrap(net, VP(), "eps", shape=(64,), time="t")


@cache
def _truth() -> tuple[Tensor, Tensor]:
    start = torch.randn(128, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return start, exact_flow(twenty_modes().denoiser(VP()), start, tolerance=1e-8)


def _errors(strength: float, base: str, anchor: str, steps: int) -> dict[float, float]:
    """The RMSE to the exact network's flow, for each c."""
    start, exact = _truth()
    network = _network(strength)
    return {
        c: rmse(network, make_plan(VP(), DualSpeed(base, c, anchor), "logsnr", steps), start, exact) for c in STRENGTHS
    }


@claim(
    paper=PAPER,
    method="dualfast",
    says="It improves DDIM and DPM-Solver++ most at fewer than 10 evaluations, with no more evaluations.",
    figure="LSUN-Bedroom, ImageNet and text to picture; figures not verified",
)
def fewer_errors_below_ten_evaluations() -> Measured:
    lines, gains = [], []
    for base in ("ddim", "dpm-solver++"):
        for anchor in ("previous", "first"):
            error = _errors(0.2, base, anchor, 8)
            best = min(error, key=lambda c, error=error: error[c])  # type: ignore[misc]
            gains.append(best > 0)
            lines.append(f"{base}, τ {anchor}: {error[0.0]:.4f} without, {error[best]:.4f} at the best c = {best:g}")
    why = (
        "" if all(gains) else "It helps DDIM, whose order it raises; what DPM-Solver++ extrapolates itself it overdoes."
    )
    return Measured(f"RMSE to the exact flow, 8 steps, a wrong network: {'; '.join(lines)}", all(gains), why)


@claim(
    paper=PAPER,
    method="dualfast",
    says="The gain is the network's error taken away, beside that of the steps.",
    figure="the paper's analysis of two errors; no figure",
)
def the_gain_is_the_networks_error() -> Measured:
    right, wrong = (_errors(strength, "ddim", "previous", 8) for strength in (0.0, 0.2))
    best = [min(error, key=lambda c, error=error: error[c]) for error in (right, wrong)]  # type: ignore[misc]
    figure = (
        f"DDIM, 8 steps, τ the step before: {right[0.0]:.4f} to {right[best[0]]:.4f} (c = {best[0]:g}) with the exact "
        f"network, {wrong[0.0]:.4f} to {wrong[best[1]]:.4f} (c = {best[1]:g}) with a wrong one"
    )
    why = "" if best[1] > best[0] else "The rule raises DDIM's order, and gains as much with the exact network."
    return Measured(figure, best[1] > best[0], why)
