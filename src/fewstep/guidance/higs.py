"""History-guided sampling: the answer, pushed away from a weighted mean of the earlier ones.

    g ← a·D + (1 − a)·g, from 0, after each step,      Δ = D − g,
    Δ = Δ∥ + Δ⊥ along D,      Δ(η) = Δ⊥ + η·Δ∥,
    D′ = D + w(t)·C⁻¹(H·C(Δ(η))),      H = sigmoid(50·(R − R_c)),

D the answer after CFG, C the orthonormal cosine transform, R the frequency (1 is the highest along an axis), and
w(t) = w·√((t − t₀)/(t₁ − t₀)) within the window, 0 outside.  With a = η = 1, a constant w = ½, no filter and no window,
DDIM on a grid uniform in λ is the two-step DPM-Solver++ exactly.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError, unknown
from fewstep.guidance.base import Ask, Guide, coefficient

SHARPNESS = 50.0
SCHEDULES = {"sqrt": 0.5, "linear": 1.0, "constant": 0.0}


@method(
    name="higs",
    papers=["HiGS: History-Guided Sampling for Plug-and-Play Enhancement of Diffusion Models"],
    family="guidance",
    arxiv="2509.22300",
)
@dataclass(frozen=True)
class HiGS(Guide):
    """History-guided sampling (Sadat et al. 2025); it costs no evaluation and remembers one tensor.

    Args:
        scale: w; 0 leaves the answer as it is.
        weight: a in (0, 1], of the newest answer in the mean.
        parallel: η, how much is kept of the part along the answer.
        cutoff: R_c, the frequency below which the push is damped; None for no filter.
        window: (t₀, t₁), the times of guidance, 0 ≤ t₀ < t₁ ≤ 1; at t₀ itself there is none.  Times are the path's own:
            on VE, where they are shares of the largest noise, nearly all of a run is below 0.4.
        schedule: "sqrt", "linear" or "constant", the shape of w over the window.

    Raises:
        ArgumentError: numbers out of their ranges, or an unknown schedule.
    """

    level: ClassVar[str] = "answer"
    scale: float = 1.75
    weight: float = 0.75
    parallel: float = 0.0
    cutoff: float | None = 0.05
    window: tuple[float, float] = (0.4, 1.0)
    schedule: str = "sqrt"

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise ArgumentError(f"weight must be in (0, 1], got {self.weight}")
        if not 0 <= self.window[0] < self.window[1] <= 1:
            raise ArgumentError(f"window must be 0 ≤ t₀ < t₁ ≤ 1, got {self.window}")
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)

    def init(self, denoiser: Denoiser, batch: int) -> Any:
        """The mean that a step's asks see, and the mean with its own first answer, which the next step's see."""
        return None, None

    def needs_order(self) -> bool:
        return self.scale != 0

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        if ask.begins or state[1] is None:
            seen = state[1]
            kept = x0 if ask.differentiated else x0.detach()
            state = (seen, self.weight * kept + (0 if seen is None else (1 - self.weight) * seen))
        seen = state[0]
        if self.scale == 0 or seen is None:
            return x0, state
        push = self._filter(self._split(x0 - seen, x0))
        return x0 + coefficient(self._scale(ask.t), x0) * push, state

    def _scale(self, t: Tensor) -> Tensor:
        low, high = self.window
        inside = (t > low) & (t <= high)
        shape = ((t - low) / (high - low)).clamp_min(0) ** SCHEDULES[self.schedule]
        return torch.where(inside, self.scale * shape, 0.0)

    def _split(self, push: Tensor, along: Tensor) -> Tensor:
        if self.parallel == 1:
            return push
        a, b = push.flatten(1).double(), along.flatten(1).double()
        share = (a * b).sum(1) / b.square().sum(1).clamp_min(1e-300)
        return push - (1 - self.parallel) * share.to(push.dtype).reshape(-1, *[1] * (push.ndim - 1)) * along

    def _filter(self, push: Tensor) -> Tensor:
        if self.cutoff is None:
            return push
        axes = (-2, -1) if push.ndim >= 4 else (-1,)
        radius = torch.zeros((), dtype=push.dtype, device=push.device)
        for axis in axes:
            push = _transformed(push, axis)
            size = push.shape[axis]
            square = (torch.arange(size, dtype=push.dtype, device=push.device) / size).square()
            radius = radius + square.reshape(-1, *[1] * (-1 - axis))
        push = push * torch.sigmoid(SHARPNESS * (radius.sqrt() - self.cutoff))
        for axis in axes:
            push = _transformed(push, axis, inverse=True)
        return push


def _transformed(x: Tensor, axis: int, inverse: bool = False) -> Tensor:
    matrix = cosine_transform(x.shape[axis]).to(x.device, x.dtype)
    return torch.movedim(torch.movedim(x, axis, -1) @ (matrix if inverse else matrix.mT), -1, axis)


@lru_cache(maxsize=16)
def cosine_transform(size: int) -> Tensor:
    """The orthonormal DCT-II as a matrix (size, size), float64; its transpose is its inverse."""
    k, n = torch.meshgrid(*[torch.arange(size, dtype=torch.float64)] * 2, indexing="ij")
    matrix = math.sqrt(2 / size) * torch.cos(math.pi / size * (n + 0.5) * k)
    matrix[0] /= math.sqrt(2)
    return matrix
