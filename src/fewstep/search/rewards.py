"""Rewards: any callable on pictures, asked without gradients, counted like evaluations and held to its word."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import ArgumentError, not_finite
from fewstep.loops.base import refuse_bad
from fewstep.search.particles import repeated

Function = Callable[..., Any]


@dataclass(frozen=True)
class Reward:
    """A reward that is told conditions too.

    Args:
        function: function(x, **conditions) → one finite number a row of x, (batch, *shape).
        conditions: the names of the conditions that it is told, each with one entry a row where the run's has one.
    """

    function: Function
    conditions: tuple[str, ...] = ()


class Scorer:
    """A reward in use: checked, and its calls counted.

    Args:
        reward: a callable on pictures, or a `Reward`.
        cond: the conditions of the run, one row a sample.
        rows: how many samples there are; a batch of a multiple of them has as many rows for each in a row.

    Raises:
        ArgumentError: nothing that can be called, or a condition that the run does not have.
    """

    def __init__(self, reward: Function | Reward, cond: Mapping[str, Any], rows: int) -> None:
        self.reward = checked_reward(reward)
        missing = set(self.reward.conditions) - set(cond)
        if missing:
            raise ArgumentError(f"the reward is told the conditions {sorted(missing)}, which the run does not have")
        self._cond, self.rows, self.scored = {k: cond[k] for k in self.reward.conditions}, rows, 0

    @property
    def calls(self) -> int:
        """How many pictures were scored for each sample."""
        return self.scored // self.rows

    def __call__(self, x: Tensor) -> Tensor:
        """The rewards of x, float64 (batch,) on its device.

        Raises:
            ArgumentError: not one real number a row.
            NumericalError: a reward is NaN or infinite.
        """
        return self._ask(x).detach()

    def differentiable(self, x: Tensor) -> Tensor:
        """The rewards of x, float64 (batch,), with the graph that leads to x.

        Raises:
            ArgumentError: as in a call, and for a reward without a slope in x.
            NumericalError: as in a call.
        """
        values = self._ask(x)
        if not values.requires_grad:
            raise ArgumentError("the reward must be differentiable in the picture here, and this one is not")
        return values

    def _ask(self, x: Tensor) -> Tensor:
        self.scored += len(x)
        given = self.reward.function(x, **repeated(self._cond, len(x) // self.rows))
        try:
            values = torch.as_tensor(given)
            if values.is_complex():
                raise TypeError
            values = values.to(x.device, torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ArgumentError(
                f"the reward must give one number a row, a real one, got {type(given).__name__}"
            ) from error
        if not bool(values.isfinite().all()):
            refuse_bad(x, "the pictures that the reward is asked about")
        return checked_scores(values, len(x))


def checked_reward(reward: Function | Reward) -> Reward:
    """The reward as a `Reward`.

    Raises:
        ArgumentError: it cannot be called.
    """
    made = reward if isinstance(reward, Reward) else Reward(reward)
    if not callable(made.function):
        raise ArgumentError(f"reward must be a callable on pictures or a Reward, got {reward!r}")
    return made


def checked_scores(values: Tensor, rows: int, what: str = "the reward") -> Tensor:
    """Scores as they must be: one finite number a row.

    Raises:
        ArgumentError: another shape.
        NumericalError: NaN or infinity.
    """
    if values.shape != (rows,):
        raise ArgumentError(f"{what} must give one number a row, ({rows},) here, got the shape {tuple(values.shape)}")
    if not bool(values.isfinite().all()):
        raise not_finite(values, f"{what}s of rows", why="; for what is forbidden give a large negative number")
    return values
