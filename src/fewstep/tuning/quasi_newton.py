"""Quasi-Newton descent (BFGS) of the logarithm of a loss that is not noisy, which goes on after a kill.

With z all free numbers and g the slope of log loss, a step goes along −H·g by a line search, and H, which begins as 1,
learns the inverse curvature from what z and g did.  Plans have few free numbers that lean on one another, so that this
reaches in a hundred rounds what a gradient method does not in thousands.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import NumericalError
from fewstep.tuning.problem import Problem

# What a line search hears of a place whose loss is not finite.
FAR = 100.0


class _Enough(Exception):
    """Ends the descent from inside a line search."""


class _Heard:
    """What scipy asks: log loss and its slope at a place; everything heard is kept, and so is the best place."""

    def __init__(
        self, tensors: Sequence[Tensor], loss: Callable[[], Tensor], rounds: int, problem: Problem | None, name: str,
        more: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.tensors, self.loss, self.rounds = list(tensors), loss, rounds
        self.problem, self.name, self.more = problem, name, more
        found = {} if problem is None else problem.state.get(name, {})
        self.losses: list[float] = list(found.get("losses", []))
        self.slopes: list[Tensor] = list(found.get("slopes", []))
        self.best, self.points, self.asked = math.inf, [t.detach().clone() for t in tensors], 0

    def __call__(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        self.place(torch.from_numpy(z.copy()))
        if self.asked == len(self.losses):  # after a kill what was kept is heard first, as BFGS asks the same again
            if self.asked and not self.more():
                raise _Enough
            self._ask()
        value, slope = float(self.losses[self.asked]), torch.as_tensor(self.slopes[self.asked])
        self.asked += 1
        if not (math.isfinite(value) and bool(slope.isfinite().all())):
            if self.asked == 1:
                raise NumericalError("the plan that tuning begins with has an error that is not finite")
            return FAR, np.zeros_like(z)
        if value < self.best:
            self.best, self.points = value, [t.detach().clone() for t in self.tensors]
        return math.log(value), slope.numpy()

    def place(self, z: Tensor) -> None:
        """Put the tensors at z."""
        with torch.no_grad():
            for tensor, values in zip(self.tensors, z.split([t.numel() for t in self.tensors]), strict=True):
                tensor.copy_(values.reshape(tensor.shape))

    def _ask(self) -> None:
        with torch.enable_grad():
            value = self.loss()
            grads = torch.autograd.grad(value.log(), self.tensors, allow_unused=True)
        flat = [torch.zeros_like(t) if g is None else g for t, g in zip(self.tensors, grads, strict=True)]
        self.losses.append(float(value.detach()))
        self.slopes.append(torch.cat([g.flatten() for g in flat]))
        if self.problem is None:
            return
        self.problem.record(self.losses[-1])
        self.problem.keep(**{self.name: {"losses": self.losses, "slopes": self.slopes}})
        if self.asked % max(1, self.rounds // 10) == 0:
            told = f"round {self.asked} of about {self.rounds}: {self.losses[-1]:.4g}"
            self.problem.tell(f"{told}, {self.problem.spent} evaluations spent")


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

    heard = _Heard(tensors, loss, rounds, problem, name, more)
    begin = torch.cat([t.detach().flatten() for t in tensors]).numpy()
    with suppress(_Enough):
        minimize(heard, begin, jac=True, method="BFGS", options={"maxiter": rounds})
    heard.place(torch.cat([p.flatten() for p in heard.points]))
    return heard.losses
