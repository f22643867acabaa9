"""Exponential integrators that remember earlier answers, in data form.

The exact flow from (α, σ, λ) to (α′, σ′, λ′), h = λ′ − λ, is x′ = (σ′/σ)x + σ′∫ e^u x̂₀(u) du over [λ, λ′].
With the answer constant (one answer; Song et al. 2021) and a share η of the step's variance drawn afresh,

    x′ = (r/σ)·x + (α′ − α·r/σ)·m₀ + c·ξ,    c = η·σ′√(1 − e^{−2h}),    r = √(σ′² − c²),    z = h − log(r/σ′)

(z = h without fresh noise, 2h with all of it).  Where the answer is a polynomial in λ through the last two or three, h₀
and h₁ the steps before (Lu et al. 2022), a step has further, with φ_k of `exponential_adams`, r₀ = h₀/h, r₁ = h₁/h,
D₁₀ = (m₀ − m₁)/r₀ and D₁₁ = (m₁ − m₂)/r₁,

    + α′·½(1 − e^{−z})·D₁₀                       two answers, rule "midpoint"
    + α′·zφ₂(−z)·D₁₀                             two answers, rule "exact"
    + α′·zφ₂(−z)·D₁ + α′·zφ₃(−z)·D₂              three answers
      D₁ = D₁₀ + r₀(D₁₀ − D₁₁)/(r₀ + r₁),  D₂ = 2(D₁₀ − D₁₁)/(r₀ + r₁)

The published code's third-order solver has half of this D₂, so that its order is 2: rule "printed".  The first steps, a
step to σ′ = 0 or from α = 0 and a place that stood still before look at fewer answers; a place that stands still does
not change.  A first step that holds its answer is wrong by h², which alone would leave order 2; the row after it knows
the next answer and sets it right, at no evaluation: there x is taken as x + α·h₀φ₂(−h₀)·(m₀ − m₁).
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.solvers.exponential_adams import phi


def held_answer(alpha: Tensor, sigma: Tensor, drawn: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """The exact step x′ = keep·x + gain·x̂₀ when the answer stands still; finite at both ends, x where nothing moves.

    Args:
        alpha, sigma: float64 (2, …), each before and after the step.
        drawn: the factor of fresh noise, up to σ′.

    Returns:
        keep and gain, float64 (…).
    """
    moves = (alpha[0] != alpha[1]) | (sigma[0] != sigma[1])
    noisy = torch.where(sigma[0] > 0, sigma[0], torch.ones_like(sigma[0]))
    left = sigma[1] if isinstance(drawn, float) else (sigma[1] ** 2 - drawn**2).clamp(min=0).sqrt()
    keep = torch.where(moves, left / noisy, torch.ones_like(noisy))
    return keep, torch.where(moves, alpha[1] - alpha[0] * keep, torch.zeros_like(keep))


def fresh_noise(alpha: Tensor, sigma: Tensor) -> Tensor:
    """σ′√(1 − e^{−2h}): the factor of the noise that the reverse equation draws in a step, float64 (…).

    Args:
        alpha, sigma: float64 (2, …), each before and after the step.
    """
    moves = (alpha[1] != alpha[0]) | (sigma[1] != sigma[0])
    noisy = torch.where(sigma[0] > 0, sigma[0], torch.ones_like(sigma[0]))
    fresh = (sigma[1] ** 2 - (sigma[1] ** 2 * alpha[0] / (alpha[1] * noisy)) ** 2).clamp(min=0)
    return torch.where(moves, fresh, torch.zeros_like(fresh)).sqrt()


def history_length(moves: Tensor, finite: Tensor, most: int, lower_order_final: bool = False) -> Tensor:
    """How many earlier answers each step may look at.

    Args:
        moves: bool (steps, *place), the steps that move and end at a finite λ.
        finite: bool (steps, *place), where the answer asked before the step has a finite coordinate.
        most: the most that are kept.
        lower_order_final: whether a step looks at fewer answers than there are steps left, itself counted.

    Returns:
        int64 (steps, *place), 0 for a step that may only hold its own answer.
    """
    usable = moves & finite
    count, run = torch.zeros(moves.shape, dtype=torch.int64), usable
    for back in range(1, most + 1):
        run = run & torch.cat([torch.zeros_like(usable[:back]), usable[:-back]])[: len(usable)]
        count = count + run
    if lower_order_final:
        left = torch.arange(len(moves)).flip(0).reshape(-1, *[1] * (moves.ndim - 1))
        count = torch.minimum(count, left)
    return count


@method(
    name="ddim", papers=["Denoising Diffusion Implicit Models"], arxiv="2010.02502", family="solvers", answers=1,
    summary="The exact flow with the answer held constant over a step; η draws a share of the variance afresh.",
)  # fmt: skip
@method(
    name="dpm-solver++",
    papers=["DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models"],
    arxiv="2211.01095", family="solvers", answers=2, rule="midpoint",
    summary="Second-order multistep in data form (2M): one evaluation a step, the last two answers extrapolated.",
)  # fmt: skip
@method(
    name="dpm-solver++3m",
    papers=["DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models"],
    arxiv="2211.01095", family="solvers", answers=3, rule="exact",
    summary="Third-order multistep in data form (3M): one evaluation a step, the last three answers extrapolated.",
)  # fmt: skip
@method(
    name="sde-dpm-solver++",
    papers=["DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models"],
    arxiv="2211.01095", family="solvers", answers=2, rule="midpoint", eta=1.0,
    summary="Second-order multistep of the reverse equation (2M SDE): all of each step's noise is drawn afresh.",
)  # fmt: skip
@dataclass(frozen=True)
class ExponentialMultistep:
    """An exponential multistep solver in data form.

    Args:
        answers: how many answers a step looks at, 1 to 3.
        rule: how a step through two answers weighs their difference: "midpoint" (as published) or "exact"; "printed",
            with three answers, is the published third-order code, whose order is 2.
        eta: the share of fresh noise, in [0, 1].
        lower_order_final: whether a step looks at no more answers than there are steps left, itself counted.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    answers: int = 2
    rule: str = "midpoint"
    eta: float = 0.0
    lower_order_final: bool = False

    def __post_init__(self) -> None:
        if self.answers not in (1, 2, 3):
            raise ArgumentError(f"answers must be 1, 2 or 3, got {self.answers!r}")
        if self.rule not in ("midpoint", "exact", "printed"):
            raise ArgumentError(f"rule must be 'midpoint', 'exact' or 'printed', got {self.rule!r}")
        if self.rule == "printed" and self.answers != 3:
            raise ArgumentError(f"rule 'printed' looks at three answers, got answers={self.answers!r}")
        if not 0 <= self.eta <= 1:
            raise ArgumentError(f"eta must lie in [0, 1], got {self.eta!r}")

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return self.eta > 0

    @property
    def order(self) -> int:
        """The order of convergence; with fresh noise that of the law, which past noise in the answers holds to 2."""
        return min(self.answers, 2 if self.eta or self.rule == "printed" else 3)

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place)."""
        source = {**asdict(self), **(source or {})}
        restarts = tuple(self._plan(path, times, answers, source, ()) for answers in range(1, self.answers))
        return self._plan(path, times, self.answers, source, restarts)

    def _plan(
        self, path: Path, times: Tensor, answers: int, source: dict[str, Any], restarts: tuple[Plan, ...]
    ) -> Plan:
        kept = ("m1", "m2")[: self.answers - 1]
        # A restart's rows hand their answers on to the rows of full order that follow it.
        builder = Builder(times, ("x", *kept), kept if answers < self.answers else ())
        alpha, sigma = path.alpha(times), path.sigma(times)
        ends = torch.stack([alpha[:-1], alpha[1:]]), torch.stack([sigma[:-1], sigma[1:]])
        drawn = self.eta * fresh_noise(*ends) if self.eta else 0.0
        keep, gain = held_answer(*ends, drawn)
        first, second = self._slopes(path, times, keep, gain, answers)
        builder.ask("x")
        builder.add("x", "x", keep)
        builder.add("x", 0, gain + first)
        builder.add("x", "noise", drawn)
        if self.answers > 1:
            builder.add("x", "m1", second - first)
            builder.add("m1", 0, 1.0)
        if self.answers > 2:
            builder.add("x", "m2", -second)
            # The first row has nothing to hand down.
            builder.add("m2", "m1", 1.0, range(1, builder.steps))
        return Plan.build(path, builder, order=self.order, source=source, restarts=restarts)

    def _slopes(self, path: Path, times: Tensor, keep: Tensor, gain: Tensor, answers: int) -> tuple[Tensor, Tensor]:
        """The weights of m₀ − m₁ and of m₁ − m₂ in every step."""
        alpha, lam = path.alpha(times)[1:], path.lam(times)
        moves = (times[1:] != times[:-1]) & lam[1:].isfinite()
        count = history_length(moves, lam[:-1].isfinite(), answers - 1, self.lower_order_final)
        one, zero = torch.ones_like(gain), torch.zeros_like(gain)

        def back(steps: int) -> Tensor:
            usable = (count >= steps) & (count > 0)
            h = torch.cat([one[:steps], lam[1:] - lam[:-1]])[: len(one)]
            return torch.where(usable, h, one)

        h, r0, r1 = back(0), back(1) / back(0), back(2) / back(0)
        z = h - 0.5 * torch.log1p(self.eta**2 * torch.expm1(-2 * h))
        linear = alpha * z * phi(2, -z)
        two = gain / 2 if self.rule == "midpoint" else linear
        curve = alpha * z * phi(3, -z) * (1 if self.rule == "printed" else 2)
        bend = (r0 * linear + curve) / (r0 + r1)
        first = torch.where(count == 2, linear + bend, torch.where(count == 1, two, zero)) / r0
        if self.order == 3 and answers > 1:
            # A restart's second row follows a held one, whatever stood before it.
            held = torch.cat([zero[:1] > 0, count[:-1] == 0]) if answers == self.answers else count > 0
            before = back(1)
            amend = keep * path.alpha(times)[:-1] * before * phi(2, -before)
            first = first + torch.where(held & (count > 0), amend, zero)
        return first, -torch.where(count == 2, bend / r1, zero)
