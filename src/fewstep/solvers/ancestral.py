"""Ancestral sampling: the chain of Gaussian posteriors q(x′ | x, x̂₀) (Ho et al. 2020), on any path and grid.

With the forward kernel from t′ to t, α_{t|t′} = α/α′ and v = σ² − (α/α′)²σ′²,

    x′ = (α_{t|t′}σ′²/σ²)·x + (α′v/σ²)·x̂₀ + s·ξ,      s² = vσ′²/σ² ("small") or v ("large").

"small" is the posterior's own variance; "large" is the forward kernel's, which Ho et al. also used and which leaves the
state noisier than its path says.  The last step, to σ′ = 0, draws nothing.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan


@method(name="ddpm", papers=[], family="solvers", variance="small")
@dataclass(frozen=True)
class Ancestral:
    """Ancestral sampling with a fixed variance.

    Args:
        variance: "small", the posterior's, or "large", the forward kernel's.
    """

    variance: str = "small"

    def __post_init__(self) -> None:
        if self.variance not in ("small", "large"):
            raise ArgumentError(f"variance must be 'small' or 'large', got {self.variance!r}")

    @property
    def order(self) -> int:
        """The order in which its distribution converges."""
        return 1

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return True

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place)."""
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
