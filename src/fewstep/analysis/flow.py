"""The probability flow itself, solved as far as rounding allows: the exact answer that few steps are compared with.

With y = x/σ the flow is dy/dλ = e^λ·x̂₀(σ·y, λ).
"""

from collections.abc import Mapping
from typing import Any

import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError, NumericalError

# Beyond these λ the flow is one exact step: x̂₀ changes it by e^{2λ} at the noisy end, by e^{−2λ} at the clean one.
FIRST, LAST = -9.0, 9.0


def exact_flow(
    denoiser: Denoiser,
    x: Tensor,
    start: float = 1.0,
    end: float = 0.0,
    tolerance: float = 1e-9,
    cond: Mapping[str, Any] | None = None,
) -> Tensor:
    """Where a denoiser's probability flow takes x from time `start` to time `end`, by an adaptive method of order 8.

    Args:
        denoiser: any; as exact as its own arithmetic.
        x: (batch, *shape), the state at `start`.
        start, end: times in [0, 1], start > end.
        tolerance: relative and absolute, of each step in units of y.
        cond: the denoiser's conditions.

    Returns:
        float64 (batch, *shape), on the device of x; the integration runs on the host.

    Raises:
        ArgumentError: times that do not fall.
        NumericalError: the solver gave up.
    """
    if not 0 <= end < start <= 1:
        raise ArgumentError(f"times must fall within [0, 1], got start={start} and end={end}")
    path = denoiser.path
    first, last = (min(max(float(path.lam(t)), FIRST), LAST) for t in (start, end))
    device, x = x.device, x.double().cpu()

    def believed(state: Tensor, t: Tensor) -> Tensor:
        with torch.no_grad():
            return denoiser(state.to(device), t, **(cond or {})).double().cpu()

    y = x / float(path.sigma(start))
    if float(path.lam(start)) < first:
        y = y + (torch.tensor(first).exp() - path.lam(start).exp()) * believed(x, torch.tensor(start))

    def slope(lam: float, flat: object) -> object:
        t = path.t_of_lam(lam)
        state = torch.as_tensor(flat, dtype=torch.float64).reshape(x.shape) * path.sigma(t)
        return (torch.tensor(lam, dtype=torch.float64).exp() * believed(state, t)).flatten().numpy()

    if last > first:
        solved = solve_ivp(slope, (first, last), y.flatten().numpy(), "DOP853", rtol=tolerance, atol=tolerance)
        if not solved.success:
            raise NumericalError(f"the flow could not be solved to a tolerance of {tolerance}: {solved.message}")
        y = torch.as_tensor(solved.y[:, -1]).reshape(x.shape)
    t = path.t_of_lam(last)
    state = y * path.sigma(t)
    if float(path.lam(end)) > last:
        ratio = path.sigma(end) / path.sigma(t)
        state = ratio * state + (path.alpha(end) - ratio * path.alpha(t)) * believed(state, t)
    return state.to(device)
