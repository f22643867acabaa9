"""Where a plan lands: with every answer one fixed x₀, at (α, σ) of its path after every step and at every question.

The mean a and the covariance C of the registers obey

    a_{i+1} = M_i a_i + B_i 1,      C_{i+1} = M_i C_i M_iᵀ + N_i N_iᵀ.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewstep.errors import PlanError
from fewstep.shapes import broadcast_shapes

if TYPE_CHECKING:
    from fewstep.plan.plan import Plan

TOLERANCE = 1e-8
# A register at a time: (step, register, its time, mean, variance, factor of the start's noise).
Stand = tuple[int, int, Tensor, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def check_landing(plan: "Plan", on_registers: Tensor, on_answers: Tensor, on_noise: Tensor) -> None:
    """Refuse a plan that does not land where its path says.

    Args:
        plan: which.
        on_registers, on_answers, on_noise: its matrices M, B and N, (steps, *place, to, source).

    Raises:
        PlanError: naming the first step, register and quantity that are off.
    """
    # So many small products are numpy's: a call of torch takes three times as long.
    m, b, n = on_registers.numpy(), on_answers.numpy(), on_noise.numpy()
    times, size = plan.times.detach(), len(plan.registers)
    place = broadcast_shapes(plan.place, m.shape[1:-2])
    mean, start = np.zeros((*place, size)), np.zeros((*place, size))
    noise = np.zeros((*place, size, size))
    mean[..., 0], start[..., 0] = plan.path.alpha(times[0]).numpy(), plan.path.sigma(times[0]).numpy()
    noise[..., 0, 0] = start[..., 0] ** 2
    if "one" in plan.registers:
        mean[..., plan.registers.index("one")] = 1.0
    asks: list[list[tuple[int, Tensor]]] = [[] for _ in range(plan.steps)]
    for (step, register), time in zip(plan.asks.tolist(), plan.ask_times.detach(), strict=True):
        asks[step].append((register, time))
    stands: list[Stand] = []
    for i in range(plan.steps):
        stands += [(i, r, t, mean[..., r], noise[..., r, r], start[..., r]) for r, t in asks[i]]
        mean = (m[i] @ mean[..., None])[..., 0] + b[i, ..., : max(1, len(asks[i]))].sum(-1)
        start = (m[i] @ start[..., None])[..., 0]
        if plan.stochastic:
            noise = m[i] @ noise @ m[i].swapaxes(-1, -2) + n[i] @ n[i].swapaxes(-1, -2)
        else:
            # All noise is the start's: its outer square keeps the digits that many products M C Mᵀ would lose.
            noise = start[..., :, None] * start[..., None, :]
        stands.append((i, 0, times[i + 1], mean[..., 0], noise[..., 0, 0], start[..., 0]))
    _compare(plan, stands)


def _compare(plan: "Plan", stands: list[Stand]) -> None:
    place = plan.place
    steps, registers, told, *columns = zip(*stands, strict=True)
    t = torch.stack([time.expand(place) for time in told] if place else told)
    mean, variance, factor = (
        torch.from_numpy(np.stack([np.broadcast_to(v, place) for v in column] if place else column))
        for column in columns
    )
    alpha, sigma = plan.path.alpha(t), plan.path.sigma(t)
    rounding = 1e-14 * plan.path.sigma(plan.times.detach()).square().amax()
    wrong = [
        ("α", mean, alpha, TOLERANCE * (1 + alpha.abs())),
        ("σ²", variance, sigma**2, TOLERANCE * sigma**2 + rounding + 1e-12),
    ]
    if not plan.stochastic:
        wrong.append(("σ", factor, sigma, TOLERANCE * (1 + sigma)))
    for what, got, want, tolerance in wrong:
        off = (got - want).abs()
        bad = off > tolerance
        if bool(bad.any()):
            row = int(bad.reshape(len(stands), -1).any(1).nonzero()[0])
            where = off[row].argmax()
            raise PlanError(
                f"step {steps[row]} leaves register {plan.registers[registers[row]]} at {what} = "
                f"{float(got[row].flatten()[where]):.9g} where its path has "
                f"{float(want[row].flatten()[where]):.9g}; "
                "a method that means to must say so in `deviates`"
            )
