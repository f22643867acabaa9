"""The extended reverse-time equation: every share of fresh noise, with one to three answers remembered.

All processes with the path's marginals differ in a noise function φ of ρ = σ/α alone; φ = ρ is the probability flow,
φ = ρ² the reverse equation.  From ρ to ρ′ < ρ, with q = φ(ρ′)/φ(ρ) (Cui et al. 2023),

    x′ = (α′/α)q·x + α′(1 − q)·m₀ + α′√(ρ′² − ρ²q²)·ξ
         + α′∫(φ(ρ′)/φ(u) − 1)du · d + α′∫(u − ρ)(φ(ρ′)/φ(u) − 1)du · e         both over u in [ρ′, ρ],

where m₀, m₁, m₂ are the last answers and d, e the first and second derivative of the answer in ρ at ρ₀ = ρ:

    two answers      d = m₀₁ = (m₀ − m₁)/(ρ₀ − ρ₁)
    three            e = 2(m₀₁ − m₁₂)/(ρ₀ − ρ₂),   d = m₀₁ + ½(ρ₀ − ρ₁)e        rule "interpolation"
                     e the same,                    d = m₀₁                       rule "printed"

The printed rule takes for d the slope half a step back, and so is of order 2.  Past noise speaks in the differences of
answers, so with fresh noise the law of the samples converges at order 2 with three answers too; they make its error
smaller.  φ/ρ must not fall as ρ grows.  The integrals are Gauss–Legendre sums in log u.  A step to σ′ = 0 or from
α = 0, the first steps and the steps after a place stood still look at fewer answers.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError, unknown
from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.solvers.gauss_legendre import gauss_legendre

# log(φ/ρ) of the paper's noise functions.
NOISES: dict[str, Callable[[Tensor], Tensor]] = {
    "ode": lambda rho: torch.zeros_like(rho),
    "sde": lambda rho: rho.log(),
    "sde1": lambda rho: ((-1 / rho).exp() + 10).log(),
    "sde2": lambda rho: 0.5 * rho.log(),
    "sde3": lambda rho: 1.5 * rho.log(),
    # φ/ρ is largest near ρ = 1,000 and must not fall beyond.
    "sde4": lambda rho: torch.log10(1 + 100 * rho.clamp(max=1000.0) ** 1.5).log() - 0.1 * rho.clamp(max=1000.0).log(),
    "sde5": lambda rho: torch.logaddexp(rho**0.3, torch.full_like(rho, 10.0).log()),
}
NODES, WEIGHTS = gauss_legendre(32)


@method(
    name="er-sde",
    papers=["Elucidating the solution space of extended reverse-time SDE for diffusion models"],
    arxiv="2309.06169", family="solvers", answers=2, noise="sde5",
    summary="The extended reverse-time equation with little noise, two answers extrapolated (ER-SDE-Solver-2).",
)  # fmt: skip
@dataclass(frozen=True)
class ExtendedReverseSDE:
    """A multistep solver of the extended reverse-time equation (Cui et al. 2023).

    Args:
        answers: how many answers a step extrapolates from, 1 to 3.
        noise: the noise function φ: "ode" (ρ), "sde" (ρ²), or the paper's "sde1" ρ(e^{−1/ρ} + 10), "sde2" ρ^1.5,
            "sde3" ρ^2.5, "sde4" ρ^0.9·log₁₀(1 + 100ρ^1.5) and "sde5" ρ(exp(ρ^0.3) + 10).
        rule: how three answers give a slope: "interpolation", or "printed" as in the paper and its code.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    answers: int = 2
    noise: str = "sde5"
    rule: str = "interpolation"

    def __post_init__(self) -> None:
        if self.answers not in (1, 2, 3):
            raise ArgumentError(f"answers must be 1, 2 or 3, got {self.answers!r}")
        if self.noise not in NOISES:
            raise unknown("noise function", self.noise, NOISES)
        if self.rule not in ("interpolation", "printed"):
            raise ArgumentError(f"rule must be 'interpolation' or 'printed', got {self.rule!r}")

    @property
    def order(self) -> int:
        """The order of convergence; of the law of the samples where noise is drawn."""
        return min(self.answers, 2) if self.stochastic or self.rule == "printed" else self.answers

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return self.noise != "ode"

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place)."""
        source = {**asdict(self), **(source or {})}
        restarts = tuple(self._plan(path, times, n, source, ()) for n in range(1, self.answers))
        return self._plan(path, times, self.answers, source, restarts)

    def _plan(
        self, path: Path, times: Tensor, answers: int, source: dict[str, Any], restarts: tuple[Plan, ...]
    ) -> Plan:
        registers = ("x", "m1", "m2")[: self.answers]
        # A restart's rows hand their answers on to the rows that look at more of them.
        builder = Builder(times, registers, registers[1:] if answers < self.answers else ())
        alpha, sigma, rho = path.alpha(times), path.sigma(times), torch.exp(-path.lam(times))
        moves = times[1:] != times[:-1]
        keep, drawn = self._exact(sigma, rho, moves)
        first, second = self._weights(alpha, rho, moves, answers)
        builder.ask("x")
        builder.add("x", "x", keep)
        builder.add("x", "noise", drawn)
        builder.add("x", 0, torch.where(moves, alpha[1:] - alpha[:-1] * keep, 0.0) + first[0])
        for name, k in zip(registers[1:], (1, 2), strict=False):
            builder.add("x", name, first[k] + second[k])
        builder.add("x", 0, second[0])
        if self.answers > 1:
            builder.add("m1", 0, 1.0)
        if self.answers > 2:
            builder.add("m2", "m1", 1.0, range(1, builder.steps))
        return Plan.build(path, builder, order=self.order, source=source, restarts=restarts)

    def _exact(self, sigma: Tensor, rho: Tensor, moves: Tensor) -> tuple[Tensor, Tensor]:
        """The factor of x, and of the fresh noise, (steps, *place) each."""
        to_data = sigma[1:] == 0
        inside = moves & ~to_data
        noise = NOISES[self.noise]
        end = noise(torch.where(inside, rho[1:], 1.0))
        fall = torch.where(inside, (end - noise(torch.where(inside, rho[:-1], 1.0))).clamp(max=0), 0.0)
        ratio = torch.where(moves, sigma[1:] / torch.where(moves, sigma[:-1], 1.0), 1.0)
        return ratio * fall.exp(), torch.where(inside, sigma[1:] * (-torch.expm1(2 * fall)).sqrt(), 0.0)

    def _weights(
        self, alpha: Tensor, rho: Tensor, moves: Tensor, answers: int
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """What the first and the second derivative add to the weights of m₀, m₁ and m₂; (steps, *place) each."""
        zero = torch.zeros_like(alpha[1:])
        usable = [moves & rho[:-1].isfinite() & (rho[1:] > 0)]
        for k in (1, 2):
            known = torch.zeros_like(moves)
            known[k:] = (moves & rho[:-1].isfinite())[:-k]
            usable.append(usable[-1] & known & (answers > k))
        gap = torch.where(usable[1], rho[:-1] - torch.cat([rho[:1], rho[:-2]]), -1.0)
        wide = torch.where(usable[2], rho[:-1] - torch.cat([rho[:1], rho[:1], rho[:-3]])[: len(zero)], -2.0)
        one, two = self._integrals(torch.where(usable[1], rho[:-1], 2.0), torch.where(usable[1], rho[1:], 1.0))
        one, two = (torch.where(usable[1], alpha[1:] * v, 0.0) for v in (one, two))
        slope = (one / gap, -one / gap, zero)
        bend = two + (0.5 * gap * one if self.rule == "interpolation" else 0.0)
        bend = torch.where(usable[2], 2 * bend / wide, 0.0)
        before = torch.where(usable[2], torch.cat([gap[:1], gap[:-1]]), -1.0)
        return slope, (bend / gap, -bend / gap - bend / before, bend / before)

    def _integrals(self, rho: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        """∫(φ(ρ′)/φ(u) − 1)du and ∫(u − ρ)(φ(ρ′)/φ(u) − 1)du over [ρ′, ρ]."""
        width = (rho / end).log()
        share = (NODES.reshape(-1, *[1] * rho.ndim) + 1) / 2
        u = end * (share * width).exp()
        noise = NOISES[self.noise]
        change = torch.expm1(noise(end) - noise(u) - share * width)
        mass = WEIGHTS.reshape(-1, *[1] * rho.ndim) / 2 * width * u * change
        return mass.sum(0), (mass * (u - rho)).sum(0)
