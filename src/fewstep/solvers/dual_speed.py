"""DualFast: any solver of the flow with its noise predictions pushed away from an earlier, more reliable one.

At every ask of register R at time t the solver is told another noise (Yu et al. 2025), with the answer that follows,

    ε = (1 + c)·ε̂ − c·ε_τ,      x̂₀ → (1 + c)·x̂₀ − (c/α)(R − σ·ε_τ),      ε̂ = (R − α·x̂₀)/σ,

where ε_τ is the network's own noise at the first step, or at the step before.  c grows evenly from 0 at the first step
to its full strength at the last.  The weights sum to 1, so a noise that stands still is integrated as before.  With τ
the step before and c = ½(ρ′ − ρ)/(ρ − ρ₁) it turns DDIM into the two-step Adams–Bashforth method; with τ the first step
it does not converge to the flow.  What the paper sets c to could not be confirmed: both are parameters.

The step to σ′ = 0 takes the answer as it is, and a place that stands still keeps its ε_τ.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.solvers import solver_named


@method(
    name="dualfast", papers=["DualFast: Dual-Speedup Framework for Fast Sampling of Diffusion Models"],
    arxiv="2506.13058", family="solvers", base="ddim", strength=0.3, anchor="previous",
    summary="Another solver, its noise predictions pushed away from an earlier one that the network errs less on.",
)  # fmt: skip
@dataclass(frozen=True)
class DualSpeed:
    """DualFast on another solver (Yu et al. 2025).

    Args:
        base: the name of that solver, which draws no noise.
        strength: c at the last step, at least 0.
        anchor: whose noise ε_τ is: that of the "first" step or of the "previous" one.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    base: str = "ddim"
    strength: float = 0.3
    anchor: str = "previous"

    def __post_init__(self) -> None:
        if not 0 <= self.strength < float("inf"):
            raise ArgumentError(f"strength must be finite and at least 0, got {self.strength!r}")
        if self.anchor not in ("first", "previous"):
            raise ArgumentError(f"anchor must be 'first' or 'previous', got {self.anchor!r}")
        if solver_named(self.base).stochastic:
            raise ArgumentError(f"dualfast needs a solver that draws no noise, and {self.base!r} does")

    @property
    def order(self) -> int:
        """The solver's for strength 0; else 1, and 0 with the first step as anchor."""
        if self.strength == 0:
            return solver_named(self.base).order
        return 1 if self.anchor == "previous" else 0

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return False

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place)."""
        plain = solver_named(self.base)(path, times)
        source = {**asdict(self), **(source or {})}
        anew = [(plan, k == 0) for k, plan in enumerate(plain.restarts or (plain,))] if self.strength else []
        restarts = tuple(self._pushed(plan, source, fresh, True, ()) for plan, fresh in anew)
        return self._pushed(plain, source, False, False, restarts)

    def _pushed(self, plain: Plan, source: dict[str, Any], fresh: bool, live: bool, restarts: tuple[Plan, ...]) -> Plan:
        """The plan with every answer replaced; `fresh` for rows that know no earlier noise."""
        registers = (*plain.registers, "eps")
        builder = Builder(plain.times, registers, registers[1:] if live else ())
        begun = torch.zeros(plain.place, dtype=torch.bool)
        for step in plain:
            steps = range(step.index, step.index + 1)
            levels = [(registers[r], plain.path.alpha(t), plain.path.sigma(t)) for r, t in step.asks]
            for slot, (register, t) in enumerate(step.asks):
                builder.ask(registers[register], t[None], steps, slot)
            share = self.strength * step.index / max(plain.steps - 1, 1)
            active = begun & (plain.path.sigma(step.t_next) > 0) & (not fresh)
            c = torch.where(active, torch.full_like(active, share, dtype=torch.float64), 0.0)
            for to, entries in step.writes.items():
                for kind, origin, value in entries:
                    if kind == "M":
                        builder.add(registers[to], registers[origin], value[None], steps)
                        continue
                    asked, alpha, sigma = levels[origin]
                    push = c * value / torch.where(active, alpha, 1.0)
                    builder.add(registers[to], origin, (value + c * value)[None], steps)
                    builder.add(registers[to], asked, -push[None], steps)
                    builder.add(registers[to], "eps", (push * sigma)[None], steps)
            if levels:
                begun = self._keep(builder, step.index, levels[0], begun, step.t != step.t_next)
        return Plan.build(
            plain.path, builder, order=self.order, source=source, restarts=restarts, deviates=plain.deviates
        )

    def _keep(
        self, builder: Builder, index: int, level: tuple[str, Tensor, Tensor], begun: Tensor, moves: Tensor
    ) -> Tensor:
        """Write the noise of a step's first answer into ε_τ where it is wanted, and say where there is one now."""
        register, alpha, sigma = level
        wanted = moves & (sigma > 0) & (~begun if self.anchor == "first" else torch.ones_like(begun))
        steps = range(index, index + 1)
        inverse = torch.where(wanted, 1 / torch.where(wanted, sigma, 1.0), 0.0)
        builder.add("eps", register, inverse[None], steps)
        builder.add("eps", 0, (-inverse * alpha)[None], steps)
        builder.add("eps", "eps", (begun & ~wanted).double()[None], steps)
        return begun | wanted
