"""RED-diff: one point is optimised, pulled by the measurement and by what the network says of it at falling noise.

    x_t = α·μ + σ·ξ,      ∇_μ = −(1/n_y)·Aᵀ(y − A μ) + (w_t/n)·(ε̂ − ξ),      one Adam step a time, t from 1 to 0

n_y and n count the numbers of y and of x, w_t = λ·f(σ/α) with f "linear", "sqrt", "square", "log" (log(1 + ·)) or
"const". It is the mode-seeking end of a variational approximation with variance 0: a point, not a sample.  With the
linear weight it ends near the noiseless fit, so λ does for σ_y.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError, unknown
from fewstep.loops.questions import Questions
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.restoration.base import RestorationLoop, levels
from fewstep.restoration.measurement import Measurement
from fewstep.results import Stats
from fewstep.session import Session

WEIGHTINGS: dict[str, Callable[[float], float]] = {
    "linear": lambda ratio: ratio, "sqrt": math.sqrt, "square": lambda ratio: ratio**2, "log": math.log1p,
    "const": lambda ratio: 1.0,
}  # fmt: skip
BETAS = (0.9, 0.99)


@method(
    name="red-diff", papers=["A Variational Perspective on Solving Inverse Problems with Diffusion Models"],
    arxiv="2305.04391", family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class REDDiff(RestorationLoop):
    """Regularisation by denoising diffusion: stochastic optimisation of one point (Mardani et al. 2023).

    Args:
        measurement: any that is differentiable.
        steps: how often the network is asked, at least 1, on evenly spaced times.
        weight: λ ≥ 0, of the network's pull; 0.25 as published.
        weighting: f, how it falls with the noise: "linear", "sqrt", "square", "log" or "const".
        rate: Adam's, more than 0; 0.1 as published.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    budget: ClassVar[int] = 100
    measurement: Measurement
    steps: int = 100
    weight: float = 0.25
    weighting: str = "linear"
    rate: float = 0.1

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS:
            raise unknown("weighting", self.weighting, WEIGHTINGS)
        if not self.weight >= 0 or not self.rate > 0:
            raise ArgumentError(f"weight must be at least 0 and rate more than 0, got {self.weight!r}, {self.rate!r}")

    def spending(self, evaluations: int) -> Self:
        return replace(self, steps=evaluations)

    def opening(self, path: Path) -> Plan:
        """The path's flow on the times that are visited."""
        return make_plan(path, "ddim", "uniform", self.steps)

    def run(self, session: Session) -> tuple[Tensor, Plan, Stats]:
        """One Adam step a time."""
        plan = session.program.plan
        questions, line = Questions(session, plan.times[:-1]), levels(plan.path, plan.times)
        mu = self.measurement.first_guess(session.start / line[0][1])
        moment, square = torch.zeros_like(mu), torch.zeros_like(mu)
        for i, (alpha, sigma) in enumerate(line[:-1]):
            xi = session.noise.step(i, 0.0, 0.0)
            x0, asked = questions.ask(i, alpha * mu + sigma * xi)
            pull = (asked - alpha * x0) / sigma - xi
            weight = self.weight * WEIGHTINGS[self.weighting](sigma / alpha) / mu[0].numel()
            slope = self.measurement.misfit_gradient(mu) / self.measurement.y[0].numel() + weight * pull
            moment = BETAS[0] * moment + (1 - BETAS[0]) * slope
            square = BETAS[1] * square + (1 - BETAS[1]) * slope.square()
            size = self.rate * math.sqrt(1 - BETAS[1] ** (i + 1)) / (1 - BETAS[0] ** (i + 1))
            mu = mu - size * moment / (square.sqrt() + 1e-8)
        return mu, plan, Stats(questions.evaluations, 0.0)
