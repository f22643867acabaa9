"""Steered diffusion: corrections of x̂₀ by losses of inverse models, through the denoiser, and by linear projection.

    x̂₀′ = x̂₀ − k(t)·∇ₓ Σᵢ λᵢ·Lᵢ(x̂₀(x)),      k = σ(t);      x̂₀″ = x̂₀′ + A†(y − A·x̂₀′)

The sampler's ε follows from x and x̂₀″.  With A†A a projector and no noise, the last x̂₀ meets y exactly.  The paper's
multi-step form, each step noised up and taken again, is the solver `resampling`, here as everywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.guidance.base import Ask, Guide, coefficient
from fewstep.guidance.gradient import gradient_of


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
    """

    level: ClassVar[str] = "answer"
    needs_grad: ClassVar[bool] = True
    losses: Sequence[tuple[float, Callable[[Tensor], Tensor]]] = ()
    scale: float = 1.0

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        if self.scale == 0 or not self.losses:
            return x0, state
        total = torch.zeros_like(x0)
        for weight, loss in self.losses:
            total = total + weight * gradient_of(loss(x0), ask.x, "loss", create_graph=ask.differentiated)
        return x0 - coefficient(self.scale * ask.path.sigma(ask.t), x0) * total, state


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
    """

    level: ClassVar[str] = "answer"
    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], Tensor]
    y: Tensor
    scale: float = 1.0

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        if self.scale == 0:
            return x0, state
        y = self.y.to(x0.device, x0.dtype)
        return x0 + self.scale * self.backward(y - self.forward(x0)), state
