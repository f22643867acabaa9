"""FlowDPS: the answer is blended with its measurement-consistent version, and the noise end is partly drawn afresh.

On the straight path x = (1 − σ)x₀ + σε, at time σ going to σ′,

    ẑ = steps of length ℓ from x̂₀ down ‖A†y − A†A z‖  (without ℓ: the projection x̂₀ + A†(y − A x̂₀) itself)
    x̃₀ = (1 − σ)·x̂₀ + σ·ẑ,      x̃₁ = √σ′·ε̂ + √(1 − σ′)·ξ,      x′ = (1 − σ′)·x̃₀ + σ′·x̃₁

with ε̂ kept as x̂₀ was.  A† blows up the noise of what is hardly measured, as in a blur: `adjoint` puts Aᵀ in its place
in the norm, as the authors do for blurs.  On another path σ here is σ/(α + σ), the time at which the straight path
has its noise-to-signal ratio.  The law is too narrow even without a measurement (variance 0.7 for 1), and more steps
do not help.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.guidance import Ask
from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.restoration.base import RestorationGuide, level_of
from fewstep.solvers import Solver


@dataclass(frozen=True)
class NoiseBlend:
    """The one-step solver x′ = α′·x̂₀ + σ′(√u′·ε̂ + √(1 − u′)·ξ), u = σ/(α + σ)."""

    order: ClassVar[int] = 0
    stochastic: ClassVar[bool] = True

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1,)."""
        builder = Builder(times, ("x",))
        alpha, sigma = path.alpha(times), path.sigma(times)
        share = (sigma / (alpha + sigma))[1:]
        kept = sigma[1:] * share.sqrt() / sigma[:-1]
        builder.ask("x")
        builder.add("x", "x", kept)
        builder.add("x", 0, alpha[1:] - kept * alpha[:-1])
        builder.add("x", "noise", sigma[1:] * (1 - share).sqrt())
        return Plan.build(path, builder, order=0, source={"solver": "noise-blend", **(source or {})})


@method(
    name="flowdps", papers=["FlowDPS: Flow-Driven Posterior Sampling for Inverse Problems"], arxiv="2503.08136",
    family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class FlowDPS(RestorationGuide):
    """Flow-driven posterior sampling: the clean end is blended with its consistent version (Kim et al. 2025).

    Args:
        steps: how many gradient steps make the consistent version, at least 1; 3 as published.
        length: ℓ > 0, their length in the units of x; 15 as published for latents of 768² pictures; None is the full
            projection, which those steps aim at.
        adjoint: whether the steps go down ‖Aᵀy − AᵀA z‖ instead, for a blur; needs a length.

    Raises:
        ArgumentError: a parameter out of its range, or an operator that is not linear.
    """

    level: ClassVar[str] = "answer"
    keeps: ClassVar[str] = "eps"
    budget: ClassVar[int] = 28
    steps: int = 3
    length: float | None = None
    adjoint: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or not (self.length is None or self.length > 0):
            raise ArgumentError(
                f"steps must be at least 1 and length more than 0 or None, got {self.steps!r}, {self.length!r}"
            )
        if self.adjoint and self.length is None:
            raise ArgumentError("adjoint=True needs the length of its steps: there is no projection that they aim at")
        self.measurement.need_linear("flowdps")

    def solver(self) -> Solver:
        return NoiseBlend()

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        here = level_of(ask, "flowdps")
        blend = here.sigma / (here.alpha + here.sigma)
        if self.length is None:
            return x0 + blend * self.measurement.project(self.measurement.residual(x0)), state
        z = x0
        for _ in range(self.steps):
            z = z + self.length * self._downhill(z)
        return x0 + blend * (z - x0), state

    def _downhill(self, z: Tensor) -> Tensor:
        """The negative gradient of the norm."""
        measurement, operator = self.measurement, self.measurement.operator
        residual = measurement.residual(z)
        off = operator.A_adjoint(residual) if self.adjoint else measurement.project(residual)
        size = torch.linalg.vector_norm(off.flatten(1), dim=1).reshape(-1, *[1] * (z.ndim - 1))
        # A†A is a projection, so that of ‖A†y − A†A z‖ is the unit vector of what is left.
        push = operator.A_adjoint(operator.A(off)) if self.adjoint else off
        return push / size.clamp_min(torch.finfo(z.dtype).tiny)
