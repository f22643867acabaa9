"""Restoration and degradation: a deterministic step as a look back and a step forward again (Chen et al. 2023).

Restore x to a time u with less noise than t′, then run the forward process up to t′ with the noise that points back to
x.  On a path, with the forward kernel α_{t|u} = α_t/α_u and σ²_{t|u} = σ_t² − α²_{t|u}σ_u²,

    x̂_u = (α_{t|u}σ_u²/σ_t²)·x + (α_u σ²_{t|u}/σ_t²)·x̂₀,
    γ = (x − α_{t|u}x̂_u)/σ_{t|u},      x′ = α_{t′|u}x̂_u + σ_{t′|u}γ.

u = 0 is exactly DDIM.  A look back of a fixed length ℓ in λ converges to the flow at order 1, as ℓ grows beside the
step; one of a fixed number of steps does not.  For any forward equation dx = f(x, t)dt + g(t)dW, `restore_degrade`
takes the step from the score.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan


@method(
    name="restoration-degradation",
    papers=["Restoration-Degradation Beyond Linear Diffusions: A Non-Asymptotic Analysis For DDIM-Type Samplers"],
    arxiv="2303.03384", family="solvers", look_back=4.0,
    summary="The flow by looking back to less noise and coming forward again; looking back to the data is ddim.",
)  # fmt: skip
@dataclass(frozen=True)
class RestorationDegradation:
    """Restoration and degradation on a path (Chen et al. 2023).

    Args:
        look_back: ℓ, more than 0: λ(u) = λ(t) + ℓ; inf is DDIM, and so is a step that is longer than ℓ.

    Raises:
        ArgumentError: look_back is not more than 0.
    """

    look_back: float = 4.0

    def __post_init__(self) -> None:
        if not self.look_back > 0:
            raise ArgumentError(f"look_back must be more than 0, got {self.look_back!r}")

    @property
    def order(self) -> int:
        """The order of convergence."""
        return 1

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return False

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place)."""
        builder = Builder(times, ("x",))
        moves = times[1:] != times[:-1]
        back = path.t_of_lam(path.lam(times[:-1]) + self.look_back)
        # A step that is longer than the look back, or begins where λ = −∞, restores the data itself.
        far = ~back.isfinite() | (back >= times[1:]) | ~path.lam(times[:-1]).isfinite()
        back = torch.where(far, torch.zeros_like(back), back)
        (a, s), (b, r), (c, w) = ((path.alpha(t), path.sigma(t)) for t in (times[:-1], times[1:], back))
        variance = torch.where(moves, s**2, 1.0)
        there = (variance - (a / c * w) ** 2).clamp(min=0)
        restored, answer = a / c * w**2 / variance, c * there / variance
        spread = torch.where(moves, (r**2 - (b / c * w) ** 2).clamp(min=0).sqrt() / there.sqrt(), 0.0)
        builder.ask("x")
        builder.add("x", "x", torch.where(moves, b / c * restored + spread * (1 - a / c * restored), 1.0))
        builder.add("x", 0, torch.where(moves, (b / c - spread * a / c) * answer, 0.0))
        deviates = ""
        if bool(((back > 0) & moves).any()):
            deviates = "a look back that does not reach the data leaves less noise than the path holds"
        return Plan.build(path, builder, order=1, source={**asdict(self), **(source or {})}, deviates=deviates)


def restore_degrade(
    x: Tensor, drift: Tensor, diffusion: Tensor | float, score: Tensor, look_back: float, step: float
) -> Tensor:
    """A step back in time by `step` along the probability flow of dx = f(x, t)dt + g(t)dW, linear or not.

    x̂ = x − ℓf + ℓg²∇log p,      γ = (x − x̂ − ℓf)/(g√ℓ),      x′ = x̂ + (ℓ − k)f + g√(ℓ − k)·γ,

    which is −kf + ½kg²∇log p to first order: the flow as ℓ → 0 and k/ℓ → 0.

    Args:
        x: the state at time t.
        drift: f(x, t), of x's shape.
        diffusion: g(t) > 0.
        score: ∇log p_t(x), of x's shape.
        look_back: ℓ > step, in units of t.
        step: k > 0, in units of t.

    Raises:
        ArgumentError: not 0 < step < look_back.
    """
    if not 0 < step < look_back:
        raise ArgumentError(f"0 < step < look_back must hold, got step={step} and look_back={look_back}")
    restored = x - look_back * drift + look_back * diffusion**2 * score
    noise = (x - restored - look_back * drift) / (diffusion * look_back**0.5)
    forward = look_back - step
    return restored + forward * drift + diffusion * forward**0.5 * noise
