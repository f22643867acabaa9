"""Exponential integrators that remember earlier answers, in data form.

The exact flow from (α, σ, λ) to (α′, σ′, λ′), h = λ′ − λ, is x′ = (σ′/σ)x + σ′∫ e^u x̂₀(u) du over [λ, λ′].
With the answer constant (order 1; Song et al. 2021) and a share η of the step's variance drawn afresh,

    x′ = (r/σ)·x + (α′ − α·r/σ)·x̂₀ + c·ξ,    c = η·σ′√(1 − e^{−2h}),    r = √(σ′² − c²),

and with the answer linear in λ through the last two (order 2, h₀ the step before; Lu et al. 2022),

    x′ = (σ′/σ)x + α′(1 − e^{−h})·(m₀ + (h/2h₀)(m₀ − m₁))                     rule "midpoint"
    x′ = (σ′/σ)x + α′(1 − e^{−h})·m₀ + α′(h − 1 + e^{−h})/h₀·(m₀ − m₁)        rule "exact"

The first step, a step to σ′ = 0 and a place that stood still before are of order 1; a place that stands still does not
change.
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
    name="ddim", papers=["Denoising Diffusion Implicit Models"], arxiv="2010.02502", family="solvers", order=1,
    summary="The exact flow with the answer held constant over a step; η draws a share of the variance afresh.",
)  # fmt: skip
@method(
    name="dpm-solver++",
    papers=["DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models"],
    arxiv="2211.01095", family="solvers", order=2, rule="midpoint",
    summary="Second-order multistep in data form (2M): one evaluation a step, the last two answers extrapolated.",
)  # fmt: skip
@dataclass(frozen=True)
class ExponentialMultistep:
    """An exponential multistep solver in data form.

    Args:
        order: 1 or 2.
        rule: how order 2 weighs the difference of the answers: "midpoint" (as published) or "exact".
        eta: the share of fresh noise, in [0, 1]; order 1 only.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    order: int = 2
    rule: str = "midpoint"
    eta: float = 0.0

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ArgumentError(f"order must be 1 or 2, got {self.order!r}")
        if self.rule not in ("midpoint", "exact"):
            raise ArgumentError(f"rule must be 'midpoint' or 'exact', got {self.rule!r}")
        if not 0 <= self.eta <= 1 or (self.eta and self.order > 1):
            raise ArgumentError(f"eta must lie in [0, 1], and be 0 above order 1; got {self.eta!r}")

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return self.eta > 0

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place)."""
        source = {**asdict(self), **(source or {})}
        restarts = () if self.order == 1 else (self._plan(path, times, 1, source, ()),)
        return self._plan(path, times, self.order, source, restarts)

    def _plan(self, path: Path, times: Tensor, order: int, source: dict[str, Any], restarts: tuple[Plan, ...]) -> Plan:
        # A restart's rows hand their answers on to the rows of full order that follow it.
        live = ("m1",) if order < self.order else ()
        builder = Builder(times, ("x", "m1") if self.order == 2 else ("x",), live)
        alpha, sigma, lam = path.alpha(times), path.sigma(times), path.lam(times)
        moves = times[1:] != times[:-1]
        one, zero = torch.ones_like(times[1:]), torch.zeros_like(times[1:])
        noisy = torch.where(sigma[:-1] > 0, sigma[:-1], one)
        fresh = (sigma[1:] ** 2 - (sigma[1:] ** 2 * alpha[:-1] / (alpha[1:] * noisy)) ** 2).clamp(min=0)
        drawn = self.eta * torch.where(moves, fresh, zero).sqrt() if self.eta else zero
        keep = torch.where(moves, (sigma[1:] ** 2 - drawn**2).clamp(min=0).sqrt() / noisy, one)
        answer = torch.where(moves, alpha[1:] - alpha[:-1] * keep, zero)
        builder.ask("x")
        builder.add("x", "x", keep)
        builder.add("x", "noise", drawn)
        if order == 2:
            slope = self._slope(alpha, lam, moves, answer)
            builder.add("x", 0, answer + slope)
            builder.add("x", "m1", -slope)
        else:
            builder.add("x", 0, answer)
        if self.order == 2:
            builder.add("m1", 0, 1.0)
        return Plan.build(path, builder, order=self.order, source=source, restarts=restarts)

    def _slope(self, alpha: Tensor, lam: Tensor, moves: Tensor, answer: Tensor) -> Tensor:
        """The weight of m₀ − m₁ in every step; 0 where there is nothing to extrapolate from or to."""
        h = torch.where(moves, lam[1:] - lam[:-1], torch.zeros_like(lam[1:]))
        before = torch.cat([torch.full_like(h[:1], torch.inf), torch.where(moves, h, torch.inf)[:-1]])
        usable = moves & before.isfinite() & h.isfinite()
        h, before = torch.where(usable, h, 1.0), torch.where(usable, before, 1.0)
        weight = answer * h / (2 * before) if self.rule == "midpoint" else alpha[1:] * (h + torch.expm1(-h)) / before
        return torch.where(usable, weight, torch.zeros_like(weight))
