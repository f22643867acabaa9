"""A world's denoiser that also tells the best variance of every step back.

With u = Var[x₀ | x_t] for each element, the Gaussian without correlations nearest to p(x′ | x) in KL has the variance

    Σ = β̃ + (α′β/σ²)²·u,      u = (σ²/α)·∂x̂₀/∂x (its diagonal; Tweedie's second formula).
"""

from typing import Any

import torch
from torch import Tensor

from fewstep.denoisers.learned_variance import VarianceDenoiser, step_posterior
from fewstep.paths import Path
from fewstep.worlds.base import World

# Tweedie's formula is 0/0 where α = 0; from here on u does not change by more than e^{λ}.
FIRST = -9.0


class OptimalVariance(VarianceDenoiser):
    """The exact denoiser of a world with the exact posterior variances; one pass back for every number of a sample.

    Args:
        world: any world.
        path: any path.
    """

    def __init__(self, world: World, path: Path) -> None:
        null = {"label": world.labels} if world.labels else None
        super().__init__(path, world.shape, "x0", null=null)
        self.world = world

    def both(self, x: Tensor, told: Tensor, **cond: Any) -> tuple[Tensor, Tensor]:
        """x̂₀, and u in place of a network's second answer."""
        label, told = cond.get("label"), told.to(x.device)
        within = torch.minimum(told, self.path.t_of_lam(FIRST).to(x.device))
        with torch.enable_grad():
            seen = x.detach().double().requires_grad_()
            sums = self.world.denoise(seen, self.path, within, label).flatten(1).sum(0)
            diagonal = [torch.autograd.grad(s, seen, retain_graph=True)[0].flatten(1)[:, i] for i, s in enumerate(sums)]
        u = self.path.sigma(within).square() / self.path.alpha(within) * torch.stack(diagonal, 1).reshape(x.shape)
        return self.world.denoise(x, self.path, told, label), u.clamp_min(0).to(x.dtype)

    def log_variance(self, second: Tensor, t: Tensor, t_next: Tensor, floor: Tensor | float = 0.0) -> Tensor:
        """log Σ of the step from t back to t_next, of the shape of `second` = u, which needs no floor."""
        step = step_posterior(self.path, t, t_next)
        small, gain = (v.to(second.device, second.dtype) for v in (step.small, step.on_x0**2))
        return (small + gain * second).log()
