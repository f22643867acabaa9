"""Self-guided minority sampling: uphill on what the denoiser itself fails to reproduce.

    x_p = α_p·x̂₀ + σ_p·z,      x̃₀ = sg x̂₀(sg x_p),      ℓ(x) = d(x̂₀(x), x̃₀),
    x̂₀′ = x̂₀ + w·(σ²/α′)·ĝ,      ĝ = ∇ₓℓ/max|∇ₓℓ| of each sample, α′ at the step's end.

sg stops the gradient, so that it goes through x̂₀(x) alone.  Guided are every k-th step and the times above t_mid.  The
published rule moves the mean of a reverse step by w·β·ĝ, which this is; with α in the place of α′, ĝ being of one size
at all times, the first long steps would be thrown far off where α is next to 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, Guide, coefficient
from fewstep.guidance.gradient import gradient_of, one_a_sample
from fewstep.guidance.minority import squared_distance


@method(
    name="self-guided-minority",
    papers=["Self-Guided Generation of Minority Samples Using Diffusion Models"],
    family="guidance",
    arxiv="2407.11555",
)
@dataclass(frozen=True)
class SelfGuidedMinority(Guide):
    """Self-guided minority sampling (Um & Ye 2024); a guided step costs one more evaluation a draw, and a gradient.

    Args:
        scale: w, at most what a step changes a number of the state by, in units of σ²; 0 leaves the answer as it is.
        t_noise: p, the time of the noise added to x̂₀, in (0, 1).
        every: k, at least 1; the first step and every k-th after it are guided.
        t_mid: in [0, 1]; only times above it are guided.
        draws: noises that ℓ is averaged over, 1 … 64.
        distance: d(x̂₀, x̃₀) → (batch,), differentiable, such as LPIPS.

    Raises:
        ArgumentError: numbers out of their ranges; at the run, a distance that is not one number a sample.
    """

    level: ClassVar[str] = "answer"
    needs_grad: ClassVar[bool] = True
    scale: float = 0.4
    t_noise: float = 0.8
    every: int = 5
    t_mid: float = 0.0
    draws: int = 1
    distance: Callable[[Tensor, Tensor], Tensor] = squared_distance

    def __post_init__(self) -> None:
        if not 0 < self.t_noise < 1 or not 0 <= self.t_mid <= 1:
            raise ArgumentError(f"t_noise must be in (0, 1) and t_mid in [0, 1], got {self.t_noise}, {self.t_mid}")
        if self.every < 1 or not 1 <= self.draws <= 64:
            raise ArgumentError(f"every must be at least 1 and draws 1 … 64, got {self.every} and {self.draws}")

    def extra(self) -> int:
        return self.draws if self.scale else 0

    def init(self, denoiser: Denoiser, batch: int) -> Any:
        """How many steps have begun."""
        return 0

    def needs_order(self) -> bool:
        return self.scale != 0

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        state = state + ask.begins
        late = (ask.t > self.t_mid).to(x0.device)
        if self.scale == 0 or (state - 1) % self.every or not bool(late.any()):
            return x0, state
        t = torch.tensor(self.t_noise, dtype=torch.float64)
        alpha, sigma = float(ask.path.alpha(t)), float(ask.path.sigma(t))
        # The gradient goes through this copy alone; where the run is differentiated the second answer depends on x too.
        held = x0 * 1.0
        loss = torch.zeros(len(x0), dtype=x0.dtype, device=x0.device)
        for draw in range(self.draws):
            with torch.set_grad_enabled(ask.differentiated):
                again = ask.again(alpha * x0 + sigma * ask.noise(draw), t, ask.cond)
            loss = loss + one_a_sample(self.distance(held, again), len(x0), "distance") / self.draws
        slope = gradient_of(loss, held, "distance", create_graph=ask.differentiated)
        (push,) = torch.autograd.grad(x0, ask.x, slope, create_graph=ask.differentiated, retain_graph=True)
        largest = push.flatten(1).abs().amax(1).clamp_min(torch.finfo(push.dtype).tiny)
        factor = self.scale * ask.path.sigma(ask.t).square() / ask.path.alpha(ask.t_next)
        push = push / largest.reshape(-1, *[1] * (push.ndim - 1))
        return x0 + torch.where(late, coefficient(factor, push) * push, 0), state
