"""DAPS: at each noise level a guess of x₀, drawn towards the measurement by an inner chain, and noise put on it afresh.

    x̂₀ = K Euler steps of the flow from (x, σ̄_i)                 (K = 1: the mean E[x₀ | x_t])
    x₀ ~ N(x₀; x̂₀, r²)·p(y | x₀)                                r² = s²σ̄²/(s² + σ̄²), so r = σ̄ for s² = ∞ as published
    x′ = x₀ + σ̄_{i+1}·ξ,      σ̄ = σ/α,

on the levels σ̄_i = (σ_max^{1/7} + i/N·(σ_min^{1/7} − σ_max^{1/7}))⁷, the last replaced by 0.  The inner chain is

    langevin  x ← x + η[(x̂₀ − x)/r² − ∇‖A(x) − y‖²/(2τ²)] + √(2η)·ξ,      η = η₀(1 − 0.99·i/(N + 1))
    hmc       v ← m·v + √η·score + √(2(1 − m))·ξ,   x ← x + √η·v
    exact     for linear operators, x = u + r²·Aᵀ(r²AAᵀ + τ²)⁻¹(y + τ·n − A u),  u ~ N(x̂₀, r²): the chain's limit

Where x₀ given x_t is drawn exactly, so is the posterior.  The flow's end is itself like a sample, and noise r on top
of it doubles the variance of what is not measured; K = 1 does not.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Self

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError, unknown
from fewstep.loops.base import Walk, refuse_ordered_guides
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.restoration.base import RestorationLoop, levels, posterior_variance
from fewstep.restoration.measurement import Measurement
from fewstep.results import Stats
from fewstep.session import Session

CHAINS = ("langevin", "hmc", "exact")
# Draws of the inner chains lie beyond those that guides number.
FIRST_DRAW = 2**24


@method(
    name="daps", papers=["Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing"],
    arxiv="2407.01521", family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class DAPS(RestorationLoop):
    """Decoupled annealing: a guess, an inner chain towards the measurement, and fresh noise at every level.

    Args:
        measurement: any; linear for chain="exact".
        steps: N, the noise levels, at least 1.
        inner: K, the evaluations of each level's guess, at least 1.
        chain: "langevin", "hmc" or "exact".
        moves: the steps of an inner chain, at least 1.
        step_size: η₀ > 0; stable below 2/(‖A‖²/τ² + 1/r²), so it goes with τ².
        deviation: τ > 0, the noise that the chain believes in; the measurement's own unless given, and for "exact" 0
            too.  Published: 0.01.
        momentum: m in [0, 1), of "hmc".
        data_variance: s² > 0, the data's, that narrows the belief about x₀; ∞ as published.
        sigma_max: the first level, or the path's own if that is less.
        sigma_min: what the levels go to; more than 0 and less than sigma_max.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    budget: ClassVar[int] = 1000
    measurement: Measurement
    steps: int = 200
    inner: int = 5
    chain: str = "langevin"
    moves: int = 100
    step_size: float = 1e-4
    deviation: float | None = None
    momentum: float = 0.9
    data_variance: float = math.inf
    sigma_max: float = 100.0
    sigma_min: float = 0.1

    def __post_init__(self) -> None:
        if self.chain not in CHAINS:
            raise unknown("chain", self.chain, CHAINS)
        if min(self.steps, self.inner, self.moves) < 1:
            raise ArgumentError(
                f"steps, inner and moves must be at least 1, got {self.steps}, {self.inner}, {self.moves}"
            )
        if not (0 < self.sigma_min < self.sigma_max and self.step_size > 0 and self.data_variance > 0):
            raise ArgumentError("sigma_min, sigma_max, step_size and data_variance must be more than 0, sigmas rising")
        if not 0 <= self.momentum < 1:
            raise ArgumentError(f"momentum must lie in [0, 1), got {self.momentum!r}")
        if self.deviation is not None and not 0 <= self.deviation < math.inf:
            raise ArgumentError(f"deviation must be at least 0 and finite, got {self.deviation!r}")
        if self.chain == "exact":
            self.measurement.need_linear("daps with chain='exact'")
        elif self._tau() <= 0:
            raise ArgumentError(f"chain={self.chain!r} needs noise: give a deviation for a measurement without any")

    def _tau(self) -> float:
        return self.measurement.sigma if self.deviation is None else self.deviation

    def spending(self, evaluations: int) -> Self:
        inner = min(self.inner, evaluations)
        return replace(self, inner=inner, steps=evaluations // inner)

    def _times(self, path: Path, steps: int, top: float, bottom: float) -> Tensor:
        """The levels from `top` on as times, float64 (steps + 1,), the last 0."""
        root = torch.linspace(top ** (1 / 7), bottom ** (1 / 7), steps + 1, dtype=torch.float64)
        times = path.t_of_lam(-7 * root.log())
        return torch.cat([times[:-1], 0 * times[-1:]])

    def opening(self, path: Path) -> Plan:
        """The path's flow on the levels."""
        top = min(self.sigma_max, float(torch.exp(-path.lam(1.0))))
        return make_plan(path, "ddim", self._times(path, self.steps, top, min(self.sigma_min, top / 2)))

    def run(self, session: Session) -> tuple[Tensor, Plan, Stats]:
        """Guess, draw, noise, at every level."""
        refuse_ordered_guides(session, "daps")
        plan, walk, x = session.program.plan, Walk(session), session.start
        line, x0 = levels(plan.path, plan.times), session.start
        for i, ((alpha, sigma), (below, noise)) in enumerate(pairwise(line)):
            ratio = sigma / alpha
            guess = walk.take(make_plan(plan.path, "ddim", self._down(plan, i, ratio)), x)[0]
            assert guess is not None
            x0 = self._draw(session, i, guess, posterior_variance(1.0, ratio, self.data_variance))
            x = below * x0 + noise * session.noise.step(i, 0.0, 0.0)
        return x0, plan, Stats(walk.evaluations, 0.0)

    def _down(self, plan: Plan, i: int, ratio: float) -> Tensor:
        """The times of the guess at level i, from its own to 0."""
        times = self._times(plan.path, self.inner, ratio, min(0.01, ratio / 2))
        return torch.cat([plan.times[i : i + 1], times[1:]])

    def _draw(self, session: Session, i: int, guess: Tensor, variance: float) -> Tensor:
        """One draw of x₀ near the guess that agrees with the measurement."""
        tau, first = self._tau(), FIRST_DRAW + i * (self.moves + 1)
        if self.chain == "exact":
            x = guess + math.sqrt(variance) * session.noise.guide(first)
            return x + self._correction(x, variance, session.noise.guide(first + 1))
        eta = self.step_size * (1 - 0.99 * i / (self.steps + 1))
        x, v = guess, torch.zeros_like(guess)
        for k in range(self.moves):
            xi = session.noise.guide(first + k)
            score = (guess - x) / variance - self.measurement.misfit_gradient(x) / tau**2
            if self.chain == "langevin":
                x = x + eta * score + math.sqrt(2 * eta) * xi
            else:
                v = self.momentum * v + math.sqrt(eta) * score + math.sqrt(2 * (1 - self.momentum)) * xi
                x = x + math.sqrt(eta) * v
        return x

    def _correction(self, x: Tensor, variance: float, xi: Tensor) -> Tensor:
        """r²·Aᵀ(r²AAᵀ + τ²)⁻¹(y + τ·n − A x); Aᵀ n has the covariance AᵀA, which a draw of x's shape gives too."""
        measurement, tau = self.measurement, self._tau()
        if tau == 0:
            return measurement.project(measurement.residual(x))
        pulled = measurement.operator.A_adjoint(measurement.residual(x)) + tau * measurement.spectral(lambda d: d, xi)
        return measurement.spectral(lambda d: variance / (variance * d.square() + tau**2), pulled)
