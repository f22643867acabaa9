"""A bead that slides over a terrain: mechanics, differentiable in the design.

The terrain is h(x) = Σ_i c_i·e^{−(x − x_i)²/(2w²)} on [0, 1], with centres x_i = (i + ½)/d and w = 1.5/d.  In the
arc's angle θ = atan h′(x) the bead obeys

    dv/dt = −g·sin θ − γ·v,      dx/dt = v·cos θ,

stepped by the symplectic Euler method; without friction ½v² + g·h is kept to first order in the step.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.search.particles import count


@dataclass(frozen=True)
class Bead:
    """Where a bead comes to lie.

    Args:
        start: x at t = 0, in [0, 1]; it starts at rest.
        gravity: g > 0.
        friction: γ ≥ 0.
        duration: T > 0.
        steps: at least 1.
    """

    start: float = 0.1
    gravity: float = 4.0
    friction: float = 0.6
    duration: float = 3.0
    steps: int = 150

    def __post_init__(self) -> None:
        if not (0 <= self.start <= 1 and self.gravity > 0 and self.friction >= 0 and self.duration > 0):
            raise ArgumentError(
                f"a bead needs 0 <= start <= 1, gravity and duration more than 0, friction at least 0; got {self}"
            )
        count("steps", self.steps)

    def height(self, design: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """(h, h′) at x (batch,) of designs (batch, d)."""
        d = design.shape[1]
        centres = (torch.arange(d, device=design.device, dtype=design.dtype) + 0.5) / d
        width = 1.5 / d
        off = (x[:, None] - centres) / width
        bumps = design * torch.exp(-0.5 * off.square())
        return bumps.sum(1), -(bumps * off).sum(1) / width

    def __call__(self, design: Tensor) -> tuple[Tensor, Tensor]:
        """(x, v) at the end, each (batch,), of designs (batch, d); gradients go through."""
        if design.ndim != 2:
            raise ArgumentError(f"a design must be (batch, d), got {tuple(design.shape)}")
        x = design.new_full((len(design),), self.start)
        v, dt = torch.zeros_like(x), self.duration / self.steps
        for _ in range(self.steps):
            slope = self.height(design, x)[1]
            angle = torch.atan(slope)
            v = (v - dt * self.gravity * angle.sin()) * math.exp(-dt * self.friction)
            x = x + dt * v * angle.cos()
        return x, v
