"""Quasi-Newton descent (BFGS) of the logarithm of a loss that is not noisy, which goes on after a kill.

With z all free numbers and g the slope of log loss, a step goes along −H·g by a line search, and H, which begins as 1,
learns the inverse curvature from what z and g did.  Plans have few free numbers that lean on one another, so that this
reaches in a hundred rounds what a gradient method does not in thousands.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import NumericalError
from fewstep.tuning.problem import Problem

# What a line search hears of a place whose loss is not finite.
FAR = 100.0


class _Enough(Exception):
    """Ends the descent from inside a line search."""


def minimise(
    tensors: Sequence[Tensor],
    loss: Callable[[], Tensor],
    rounds: int,
    *,
    problem: Problem | None = None,
    name: str = "quasi-newton",
    more: Callable[[], bool] = lambda: True,
) -> list[float]:
    """Descend log loss; the tensors are left at the best point seen.

    Args:
        tensors: leaves with gradients, float64, changed in place.
        loss: more than 0, the same for the same tensors; called once or twice a round.
        rounds: at most so many.
        problem: where every loss is kept and recorded; None keeps nothing.
        name: of what is kept there; distinct for every descent of a tuner.
        more: asked before every loss but the first; False ends the descent.

    Returns:
        the losses.

    Raises:
        NumericalError: the loss is not finite at the start.
    """
    from scipy.optimize import minimize

    kept: dict[str, list[float] | list[Tensor]] = {"losses": [], "slopes": []}
    if problem is not None and name in problem.state:
        kept = {key: list(values) for key, values in problem.state[name].items()}
    losses, slopes = kept["losses"], kept["slopes"]
    best, points, asked = math.inf, [t.detach().clone() for t in tensors], 0

    def place(z: Tensor) -> None:
        with torch.no_grad():
            for tensor, values in zip(tensors, z.split([t.numel() for t in tensors]), strict=True):
                tensor.copy_(values.reshape(tensor.shape))

    def evaluated() -> tuple[float, Tensor]:
        with torch.enable_grad():
            value = loss()
            grads = torch.autograd.grad(value.log(), list(tensors), allow_unused=True)
        flat = [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, grads, strict=True)]
        return float(value.detach()), torch.cat([g.flatten() for g in flat])

    def heard(z: np.ndarray) -> tuple[float, np.ndarray]:
        """Log loss and its slope; after a kill, from what was kept, as BFGS asks the same again."""
        nonlocal best, points, asked
        place(torch.from_numpy(z.copy()))
        if asked == len(losses):
            if asked and not more():
                raise _Enough
            value, slope = evaluated()
            losses.append(value)  # type: ignore[arg-type]
            slopes.append(slope)  # type: ignore[arg-type]
            if problem is not None:
                problem.record(value)
                problem.keep(**{name: kept})
                if asked % max(1, rounds // 10) == 0:
                    problem.tell(f"round {asked} of about {rounds}: {value:.4g}, {problem.spent} evaluations spent")
        value, slope = float(losses[asked]), torch.as_tensor(slopes[asked])
        asked += 1
        if not (math.isfinite(value) and bool(slope.isfinite().all())):
            if asked == 1:
                raise NumericalError("the plan that tuning begins with has an error that is not finite")
            return FAR, np.zeros_like(z)
        if value < best:
            best, points = value, [t.detach().clone() for t in tensors]
        return math.log(value), slope.numpy()

    try:
        begin = torch.cat([t.detach().flatten() for t in tensors]).numpy()
        minimize(heard, begin, jac=True, method="BFGS", options={"maxiter": rounds})
    except _Enough:
        pass
    place(torch.cat([p.flatten() for p in points]))
    return [float(value) for value in losses]
