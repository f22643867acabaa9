"""What a pipeline asks of `set_timesteps`: a number of steps, or a grid in its own units."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.diffusers.conventions import Convention
from fewstep.errors import ArgumentError


def asked_grid(
    convention: Convention,
    num_inference_steps: int | None,
    timesteps: Sequence[float] | None,
    sigmas: Sequence[float] | None,
    mu: float | None,
) -> tuple[int | None, Tensor | None]:
    """The number of steps, or the times, float64 (steps + 1,) down to 0; the other is None.

    Args:
        convention: how the model was trained.
        num_inference_steps, timesteps, sigmas, mu: as `PlanScheduler.set_timesteps` has them.

    Raises:
        ArgumentError: none or several of the three, or no grid.
    """
    given = [v for v in (num_inference_steps, timesteps, sigmas) if v is not None]
    if len(given) != 1:
        raise ArgumentError(f"give one of num_inference_steps, timesteps and sigmas, got {len(given)} of them")
    if mu is not None and not convention.flows:
        raise ArgumentError("mu shifts the times of a flow; this model is none")
    grid = None
    if timesteps is not None:
        grid = convention.time(_falling("timesteps", timesteps))
    elif sigmas is not None:
        levels = _falling("sigmas", sigmas)
        default = torch.linspace(1, 1 / len(levels), len(levels), dtype=torch.float64)
        if convention.flows and torch.allclose(levels, default, rtol=0, atol=1e-5):
            num_inference_steps = len(levels)
        else:
            grid = convention.time_of_level(levels)
    if grid is not None and grid[-1] > 0:
        grid = torch.cat([grid, torch.zeros(1, dtype=torch.float64)])
    if grid is not None and sigmas is not None:
        grid = convention.shifted(grid, mu)
    return (count_of(num_inference_steps), None) if grid is None else (None, grid)


def count_of(steps: object) -> int:
    """`num_inference_steps` if it is an integer of at least 1."""
    if not isinstance(steps, (int, np.integer)) or isinstance(steps, bool) or steps < 1:
        raise ArgumentError(f"num_inference_steps must be an integer of at least 1, got {steps!r}")
    return int(steps)


def _falling(name: str, values: Any) -> Tensor:
    numbers = torch.as_tensor(np.asarray(values, dtype=np.float64)) if len(values) else torch.zeros(0)
    if numbers.ndim != 1 or len(numbers) < 1:
        raise ArgumentError(f"{name} must be a list of at least one number, got {values!r}")
    if not numbers.isfinite().all() or not (numbers[1:] < numbers[:-1]).all() or numbers.min() < 0:
        raise ArgumentError(f"{name} must be finite, at least 0 and fall strictly, got {numbers.tolist()}")
    if numbers[0] == 0:
        raise ArgumentError(f"{name} must begin above 0, got {numbers.tolist()}")
    return numbers
