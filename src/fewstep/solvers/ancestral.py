"""Ancestral sampling: the chain of Gaussian posteriors q(x′ | x, x̂₀) (Ho et al. 2020), on any path and grid.

With the forward kernel from t′ to t, α_{t|t′} = α/α′ and v = σ² − (α/α′)²σ′²,

    x′ = (α_{t|t′}σ′²/σ²)·x + (α′v/σ²)·x̂₀ + s·ξ,      s² = vσ′²/σ² ("small") or v ("large").

"small" is the posterior's own variance; "large" is the forward kernel's, which Ho et al. also used and which leaves the
state noisier than its path says.  The last step, to σ′ = 0, draws nothing.

The mean of the posterior is Euler's step, in ρ = σ/α, to ρ↓ = ρ′²/ρ below the next time (twice as far in λ), and its
noise is the path's own from there up to ρ′.  So any other solver can take that step in Euler's place ("DPM2 a" and
"DPM++ 2S a" of k-diffusion).
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.solvers import solver_named
from fewstep.solvers.restart import concatenate, jump, order_without_history


@method(name="ddpm", papers=[], family="solvers", variance="small")
@dataclass(frozen=True)
class Ancestral:
    """Ancestral sampling with a fixed variance.

    Args:
        variance: "small", the posterior's, or "large", the forward kernel's.
        base: the name of the solver that steps down to ρ↓; its history ends at every step.  Others than "euler" take
            the small variance and one time for all.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    variance: str = "small"
    base: str = "euler"

    def __post_init__(self) -> None:
        if self.variance not in ("small", "large"):
            raise ArgumentError(f"variance must be 'small' or 'large', got {self.variance!r}")
        solver_named(self.base)
        if self.base != "euler" and self.variance != "small":
            raise ArgumentError(f"base={self.base!r} goes with variance='small', got {self.variance!r}")

    @property
    def order(self) -> int:
        """The order in which its distribution converges: that of one step down, as the noise above it is exact."""
        return order_without_history(self.base)

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return True

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place).

        Raises:
            ArgumentError: another base than "euler", and times within a sample.
        """
        if self.base != "euler":
            return self._overshooting(path, times, {**asdict(self), **(source or {})})
        builder = Builder(times, ("x",))
        alpha, sigma = path.alpha(times), path.sigma(times)
        moves = times[1:] != times[:-1]
        one, zero = torch.ones_like(times[1:]), torch.zeros_like(times[1:])
        ratio = alpha[:-1] / alpha[1:]
        variance = torch.where(moves, sigma[:-1] ** 2, one)
        forward = torch.where(moves, (variance - ratio**2 * sigma[1:] ** 2).clamp(min=0), zero)
        builder.ask("x")
        builder.add("x", "x", torch.where(moves, ratio * sigma[1:] ** 2 / variance, one))
        builder.add("x", 0, alpha[1:] * forward / variance)
        drawn = forward * sigma[1:] ** 2 / variance
        deviates = ""
        if self.variance == "large":
            drawn = torch.where(sigma[1:] > 0, forward, zero)
            deviates = "ddpm with variance='large' draws the forward kernel's variance, more than its path holds"
        builder.add("x", "noise", drawn.sqrt())
        return Plan.build(path, builder, order=1, source={**asdict(self), **(source or {})}, deviates=deviates)

    def _overshooting(self, path: Path, times: Tensor, source: dict[str, Any]) -> Plan:
        """Every step: the base solver down to ρ↓, then up to its end by noise."""
        if times.ndim > 1:
            raise ArgumentError(f"base={self.base!r} needs one time for all, got times of shape {tuple(times.shape)}")
        engine, lam = solver_named(self.base), path.lam(times)
        below = torch.where(lam[1:].isfinite() & lam[:-1].isfinite(), 2 * lam[1:] - lam[:-1], torch.inf)
        down = torch.where(below.isfinite(), path.t_of_lam(torch.where(below.isfinite(), below, 0.0)), 0.0)
        parts: list[Plan] = []
        for i in range(len(times) - 1):
            parts.append(engine(path, torch.stack([times[i], down[i]])))
            if times[i + 1] > 0:
                parts.append(jump(path, down[i], times[i + 1]))
        return replace(concatenate(parts, source), order=self.order, restarts=())
