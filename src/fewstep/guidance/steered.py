"""Steered diffusion: corrections of x̂₀ by losses of inverse models, through the denoiser, and by linear projection.

    x̂₀′ = x̂₀ − k(t)·∇ₓ Σᵢ λᵢ·Lᵢ(x̂₀(x)),      k = σ(t);      x̂₀″ = x̂₀′ + A†(y − A·x̂₀′)

The authors' code takes k at the grid's noisier time before t, which is next to the same.  The sampler's ε follows from
x and x̂₀″.  With A†A a projector and no noise, the last x̂₀ meets y exactly.  The paper's multi-step form, each step
noised up and taken again, is the solver `resampling`, here as everywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, Guide, coefficient
from fewstep.guidance.gradient import differentiable, gradient_of


@method(
    name="steered",
    papers=["Steered Diffusion: A Generalized Framework for Plug-and-Play Conditional Image Synthesis"],
    family="guidance",
    arxiv="2310.00224",
)
@dataclass(frozen=True)
class Steered(Guide):
    """Steered diffusion (Nair et al. 2023): several conditions at once by an unconditional model.

    Args:
        losses: (λ, L) pairs, L(x̂₀) → (batch,), differentiable; the gradient goes through the denoiser.
        scale: a factor on all λ; 0 and no losses leave the answer as it is.

    Raises:
        ArgumentError: losses that are no pairs; at the run, one of another shape or without a gradient.
    """

    level: ClassVar[str] = "answer"
    needs_grad: ClassVar[bool] = True
    losses: Sequence[tuple[float, Callable[[Tensor], Tensor]]] = ()
    scale: float = 1.0

    def __post_init__(self) -> None:
        for pair in self.losses:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not callable(pair[1]):
                raise ArgumentError(f"losses must be pairs of a number and a function, got {pair!r}")

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        if self.scale == 0 or not self.losses:
            return x0, state
        total = torch.zeros(len(x0), dtype=x0.dtype, device=x0.device)
        for weight, loss in self.losses:
            total = total + weight * differentiable(loss(x0), len(x0), "loss")
        slope = gradient_of(total, ask.x, "loss", create_graph=ask.differentiated)
        return x0 - coefficient(self.scale * ask.path.sigma(ask.t), x0) * slope, state


@method(
    name="steered-linear",
    papers=["Steered Diffusion: A Generalized Framework for Plug-and-Play Conditional Image Synthesis"],
    family="guidance",
    arxiv="2310.00224",
)
@dataclass(frozen=True)
class SteeredLinear(Guide):
    """Steered diffusion's linear condition: what A sees of x̂₀ is replaced by y; no gradient, no further evaluation.

    Args:
        forward: A, pictures (batch, *shape) → measurements (batch, …).
        backward: A†, back; A·A†·y = y for every measurement.
        y: the measurements; noise in them is copied.
        scale: how much of the difference is made up, in [0, 1]; 0 leaves the answer as it is.

    Raises:
        ArgumentError: a scale out of its range; at the run, y of another shape than what A sees, or A† of another than
            a sample's.
    """

    level: ClassVar[str] = "answer"
    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], Tensor]
    y: Tensor
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.y, Tensor) or not 0 <= self.scale <= 1:
            raise ArgumentError(f"y must be a tensor and scale in [0, 1], got {type(self.y).__name__}, {self.scale}")

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        if self.scale == 0:
            return x0, state
        seen = self.forward(x0)
        off = self.y.to(x0.device, x0.dtype) - seen
        back = self.backward(off)
        # What broadcasts into another shape would be another measurement.
        if off.shape != seen.shape or back.shape != x0.shape:
            raise ArgumentError(
                f"y must fit what forward sees, {tuple(seen.shape)}, and backward give {tuple(x0.shape)}; got "
                f"{tuple(self.y.shape)} and {tuple(back.shape)}"
            )
        return x0 + self.scale * back, state
