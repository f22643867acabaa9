"""Gradients of a number a sample, as guides need them, and the change of x̂₀ that a change of the score is.

score′ = score + g      ⇔      x̂₀′ = x̂₀ + (σ²/α)·g
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, coefficient

# λ so low that the state says next to nothing of the data, and so high that float32 gradients keep their digits.
NEAR = -8.0
# λ below which a network that was trained on noisy samples cannot know anything: VP's own start is at −5.
LEAST = -6.0
Interval = tuple[float, float] | None


def checked_interval(interval: Interval) -> None:
    """Refuse times that are no interval.

    Raises:
        ArgumentError: it is not 0 ≤ low < high ≤ 1.
    """
    if interval is not None and not 0 <= interval[0] < interval[1] <= 1:
        raise ArgumentError(f"interval must be 0 ≤ low < high ≤ 1, got {interval}")


def gradient(function: Callable[[Tensor], Tensor], x: Tensor, who: str, create_graph: bool = False) -> Tensor:
    """∇ of a function that gives one number a sample, with respect to x, of x's shape.

    Args:
        function: (batch, …) → (batch,).
        x: where.
        who: whose function it is, for the message.
        create_graph: whether it is part of x's graph, so that a run can be differentiated; else it leaves none.

    Raises:
        ArgumentError: the function gives another shape, or does not depend on x differentiably.
    """
    with torch.enable_grad():
        at = x if x.requires_grad else x.detach().requires_grad_()
        return gradient_of(function(at), at, who, create_graph)


def gradient_of(values: Tensor, x: Tensor, who: str, create_graph: bool = False) -> Tensor:
    """∇ of numbers (batch,), row by row, with respect to x in whose graph they lie.

    Raises:
        ArgumentError: the numbers have another shape, or do not depend on x differentiably.
    """
    differentiable(values, len(x), who)
    (found,) = torch.autograd.grad(values.sum(), x, create_graph=create_graph, retain_graph=True, allow_unused=True)
    if found is None:
        raise ArgumentError(f"{who} does not depend on its input, so it has no gradient")
    return found


def one_a_sample(values: Tensor, rows: int, who: str) -> Tensor:
    """The values, if they are one number a sample, (rows,); a number for all would broadcast into a wrong answer.

    Raises:
        ArgumentError: they have another shape.
    """
    if not isinstance(values, Tensor) or values.shape != (rows,):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ArgumentError(f"{who} must give one number a sample, shape ({rows},), got {got}")
    return values


def differentiable(values: Tensor, rows: int, who: str) -> Tensor:
    """The values, if they are one number a sample, (rows,), and part of a graph.

    Raises:
        ArgumentError: they have another shape or no gradient.
    """
    if not one_a_sample(values, rows, who).requires_grad:
        raise ArgumentError(f"{who} is not differentiable with respect to its input: its result has no gradient")
    return values


def informed_time(ask: Ask) -> Tensor:
    """The ask's time, or where α = 0 one near it: (σ²/α)·∇log p has a limit there, of 0 times infinity."""
    near = ask.path.t_of_lam(torch.tensor(NEAR, dtype=torch.float64))
    return torch.where(ask.path.alpha(ask.t) > 0, ask.t, near)


def along_score(ask: Ask, push: Tensor, scale: float) -> Tensor:
    """(σ²/α)·scale·push: the change of x̂₀ when the score is changed by scale·push, at the informed time."""
    t = informed_time(ask)
    return coefficient(scale * ask.path.sigma(t).square() / ask.path.alpha(t), push) * push


def guided_times(ask: Ask, interval: Interval) -> Tensor:
    """Whether the ask's times are guided, of their shape: those of the interval, or without one those of λ ≥ −6."""
    if interval is None:
        return ask.path.lam(ask.t) >= LEAST
    return (ask.t >= interval[0]) & (ask.t <= interval[1])
