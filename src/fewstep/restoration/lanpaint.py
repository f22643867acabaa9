"""LanPaint: before every step a few Langevin moves on the noisy state, what is known held by a two-sided pull.

With z = P z + (I − P)z, P = A†A (for a mask the known pixels), a move lasts τ = h·σ² of

    unknown   dz = (α·x̂₀ − z)/σ² dτ + √2 dW
    known     dz = (α·[(1 + λ)·y₀ − λ·x̂₀] − z)/σ² dτ + √2 dW,      y₀ = A†y

λ pulls the known part to y₀ and pushes it from what the network makes of it, which speeds the chain up; with λ = 0
and many moves the unknown part is drawn given the known one exactly.  The linear part (rate 1/σ², or (1 + λ)/σ² for
the known) is solved exactly, the rest C(z) is held over a move; after the first move C is asked again in the middle.
At each level the known part is first replaced by α·y₀ + σ·ξ; the solver's step is DDIM's.  No gradient, and any path.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Self

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.loops.questions import Questions
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.restoration.base import RestorationLoop, levels
from fewstep.restoration.measurement import Measurement, observed_share
from fewstep.results import Stats
from fewstep.session import Session


@method(
    name="lanpaint",
    papers=[
        "LanPaint: Training-Free Diffusion Inpainting with Asymptotically Exact and Fast Conditional Sampling",
    ],
    arxiv="2502.03491", family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class LanPaint(RestorationLoop):
    """Langevin moves on the noisy state before every step of the flow (Zheng et al. 2025).

    Args:
        measurement: of a linear operator; y is taken as free of noise.
        steps: the noise levels, at least 1, evenly spaced in log(σ/α).
        inner: the Langevin moves at each level, at least 0; a level costs one evaluation more than that.
        pull: λ ≥ 0.
        step_size: h > 0.

    Raises:
        ArgumentError: a parameter out of its range, or an operator that is not linear.
    """

    budget: ClassVar[int] = 120
    measurement: Measurement
    steps: int = 20
    inner: int = 5
    pull: float = 8.0
    step_size: float = 0.15

    def __post_init__(self) -> None:
        if self.steps < 1 or self.inner < 0 or not self.pull >= 0 or not self.step_size > 0:
            raise ArgumentError(
                f"steps must be at least 1, inner and pull at least 0 and step_size more than 0; got {self.steps!r}, "
                f"{self.inner!r}, {self.pull!r} and {self.step_size!r}"
            )
        self.measurement.need_linear("lanpaint")

    def spending(self, evaluations: int) -> Self:
        inner = min(self.inner, evaluations - 1)
        return replace(self, inner=inner, steps=evaluations // (inner + 1))

    def opening(self, path: Path) -> Plan:
        """The path's flow on levels from log(α/σ) = −4, or the path's first, to 4, then 0."""
        low = max(-4.0, float(path.lam(1.0)))
        lam = torch.linspace(low, 4.0, self.steps, dtype=torch.float64)
        return make_plan(path, "ddim", torch.cat([path.t_of_lam(lam), torch.zeros(1, dtype=torch.float64)]))

    def run(self, session: Session) -> tuple[Tensor, Plan, Stats]:
        """Moves and a step at every level."""
        plan, measurement = session.program.plan, self.measurement
        times = plan.times[:-1].repeat_interleave(self.inner + 1)
        questions, line = Questions(session, times), levels(plan.path, plan.times)
        z, number = session.start, 0
        known = measurement.project(measurement.seen(z))
        for i, ((alpha, sigma), (below, noise)) in enumerate(pairwise(line)):
            xi, first = session.noise.step(i, 0.0, 0.0), i * 2 * (self.inner + 1)
            z = z + observed_share(measurement, sigma * xi - z) + alpha * known
            constant = torch.zeros_like(z)
            for k in range(self.inner):
                draws = [session.noise.guide(first + 2 * k + j) for j in range(2)]
                z = z if k == 0 else self._drift(z, constant, draws[0], sigma, self.step_size / 2)
                x0, z = questions.ask(number, z)
                number += 1
                new = self._constant(x0, z, known, alpha)
                z = z if k == 0 else z + self.step_size * (new - constant)
                z = self._drift(z, new if k == 0 else constant, draws[1], sigma, self.step_size / (1 if k == 0 else 2))
                constant = new
            x0, z = questions.ask(number, z)
            number += 1
            z = below * x0 + noise * (z - alpha * x0) / sigma
        return z + known - observed_share(measurement, z), plan, Stats(questions.evaluations, 0.0)

    def _constant(self, x0: Tensor, z: Tensor, known: Tensor, alpha: float) -> Tensor:
        """C·σ²: α·x̂₀, and in the known part α·[(1 + λ)·y₀ − λ·x̂₀] + λ·z."""
        off = (1 + self.pull) * alpha * (known - observed_share(self.measurement, x0))
        return alpha * x0 + off + self.pull * observed_share(self.measurement, z)

    def _drift(self, z: Tensor, constant: Tensor, xi: Tensor, sigma: float, time: float) -> Tensor:
        """dz = (C − A z)dτ + √2 dW over time·σ², A·σ² being 1, and 1 + λ in the known part; solved exactly."""

        def moved(z: Tensor, constant: Tensor, xi: Tensor, rate: float) -> Tensor:
            left = math.exp(-rate * time)
            return left * z + (1 - left) / rate * constant + sigma * math.sqrt((1 - left**2) / rate) * xi

        free = moved(z, constant, xi, 1.0)
        if self.pull == 0:
            return free
        return free + observed_share(self.measurement, moved(z, constant, xi, 1.0 + self.pull) - free)
