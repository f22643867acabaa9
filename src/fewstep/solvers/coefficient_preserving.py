"""Coefficients-preserving sampling: every step keeps the path's two coefficients and redraws a share of the noise.

With θ = ηπ/2 (Wang & Yu 2025, for flows; here on any path),

    x′ = α′·x̂₀ + σ′(cos θ·ε̂ + sin θ·ξ),      ε̂ = (x − α·x̂₀)/σ.

η = 0 is the flow (ddim), η = 1 draws all noise afresh.  The coefficients are right, the law is not: what is drawn does
not shrink with the step, and a step that does not move takes (1 − cos θ)²·α²·Var(x₀ | x) from the variance (on Gaussian
data exactly), so more steps lose more.  ddim with η has the same coefficients and converges.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan


@method(
    name="cps", papers=["Coefficients-Preserving Sampling for Reinforcement Learning with Flow Matching"],
    arxiv="2509.05952", family="solvers", eta=0.7,
    summary="Noise for exploration that leaves none behind: the path's coefficients kept, a fixed share redrawn.",
)  # fmt: skip
@dataclass(frozen=True)
class CoefficientPreserving:
    """Coefficients-preserving sampling (Wang & Yu 2025).

    Args:
        eta: the share of the noise that a step redraws, in [0, 1], as an angle: sin(ηπ/2) of its deviation.

    Raises:
        ArgumentError: eta out of its range.
    """

    eta: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ArgumentError(f"eta must lie in [0, 1], got {self.eta!r}")

    @property
    def order(self) -> int:
        """1 for the flow; 0 with noise, as its law does not converge to the data's."""
        return 0 if self.eta else 1

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return self.eta > 0

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place)."""
        builder = Builder(times, ("x",))
        alpha, sigma = path.alpha(times), path.sigma(times)
        moves = times[1:] != times[:-1]
        kept = sigma[1:] / torch.where(moves, sigma[:-1], 1.0) * math.cos(self.eta * math.pi / 2)
        builder.ask("x")
        builder.add("x", "x", torch.where(moves, kept, 1.0))
        builder.add("x", 0, torch.where(moves, alpha[1:] - alpha[:-1] * kept, 0.0))
        builder.add("x", "noise", torch.where(moves, sigma[1:] * math.sin(self.eta * math.pi / 2), 0.0))
        return Plan.build(path, builder, order=self.order, source={**asdict(self), **(source or {})})
