"""Heavy-ball momentum on any solver that asks once a step and draws no noise.

Such a step is x′ = k·x + g·P, where P is the prediction that the solver believes in, its weights summing to 1:

    form "data"     k = σ′/σ,  g = α′ − α·k,  P an estimate of x₀
    form "noise"    k = α′/α,  g = σ′ − σ·k,  P an estimate of ε.

Momentum puts a running mean in P's place (Wizadwongsa et al. 2023), with damping β in (0, 1]:

    v ← (1 − β)·v + β·P,      x′ = k·x + g·v.

It enlarges the solver's region of stability and makes it of order 1 for any β < 1.  v begins as the first P.  Steps to
σ′ = 0, and in the form "noise" from α = 0, are the solver's own, and a place that stands still keeps its v.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan, Step
from fewstep.solvers import solver_named


@method(
    name="heavy-ball", papers=["Diffusion Sampling with Momentum for Mitigating Divergence Artifacts"],
    arxiv="2307.11118", family="solvers", base="dpm-solver++", damping=0.8, form="data",
    summary="Heavy-ball momentum on another solver: fewer divergence artefacts in few steps, order 1.",
)  # fmt: skip
@dataclass(frozen=True)
class HeavyBall:
    """Heavy-ball momentum on another solver (Wizadwongsa et al. 2023).

    Args:
        base: the name of that solver; deterministic, one evaluation a step.
        damping: β, in (0, 1]; 1 is no momentum.
        form: whether the velocity is an estimate of the data or of the noise: "data" or "noise".

    Raises:
        ArgumentError: a parameter out of its range, or a solver that is not of that kind.
    """

    base: str = "dpm-solver++"
    damping: float = 0.8
    form: str = "data"

    def __post_init__(self) -> None:
        if not 0 < self.damping <= 1:
            raise ArgumentError(f"damping must lie in (0, 1], got {self.damping!r}")
        if self.form not in ("data", "noise"):
            raise ArgumentError(f"form must be 'data' or 'noise', got {self.form!r}")
        if solver_named(self.base).stochastic:
            raise ArgumentError(f"momentum needs a solver that draws no noise, and {self.base!r} does")

    @property
    def order(self) -> int:
        """1, whatever the solver's; the solver's own for a damping of 1."""
        return 1 if self.damping < 1 else solver_named(self.base).order

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return False

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place).

        Raises:
            ArgumentError: the solver asks more than once a step.
        """
        plain = solver_named(self.base)(path, times)
        if plain.steps != len(times) - 1 or plain.asks.tolist() != [[i, 0] for i in range(plain.steps)]:
            raise ArgumentError(f"momentum needs a solver that asks once a step, at x; {self.base!r} does not")
        source = {**asdict(self), **(source or {})}
        anew = [(plan, k == 0) for k, plan in enumerate(plain.restarts or (plain,))] if self.damping < 1 else []
        restarts = tuple(self._moved(plan, source, fresh, live=True) for plan, fresh in anew)
        return self._moved(plain, source, False, restarts=restarts)

    def _moved(
        self, plain: Plan, source: dict[str, Any], fresh: bool, live: bool = False, restarts: tuple[Plan, ...] = ()
    ) -> Plan:
        """The plan with momentum; `fresh` for rows that never look at an older velocity."""
        registers = (*plain.registers, "v")
        builder = Builder(plain.times, registers, registers[1:] if live else ())
        begun = torch.zeros(plain.place, dtype=torch.bool)
        for step in plain:
            steps = range(step.index, step.index + 1)
            builder.ask("x", times=step.asks[0][1][None], steps=steps)
            for register in step.writes:
                if register:
                    self._copy(builder, step, register, torch.ones(()), registers[register])
            keep, gain = self._split(plain.path, step)
            active = (gain != 0) & (plain.path.sigma(step.t_next) > 0)
            damping = torch.where(begun & active & (not fresh), self.damping, torch.ones((), dtype=torch.float64))
            builder.add("x", "x", ((1 - damping) * keep)[None], steps)
            builder.add("x", "v", ((1 - damping) * gain)[None], steps)
            self._copy(builder, step, 0, damping, "x")
            share = torch.where(active, damping / torch.where(active, gain, 1.0), 0.0)
            builder.add("v", "v", torch.where(active, 1 - damping, begun.double())[None], steps)
            builder.add("v", "x", (-share * keep)[None], steps)
            self._copy(builder, step, 0, share, "v")
            begun = begun | active
        return Plan.build(plain.path, builder, order=self.order, source=source, restarts=restarts)

    def _split(self, path: Path, step: Step) -> tuple[Tensor, Tensor]:
        """(k, g) of the step, with g = 0 where it has no velocity."""
        (a, s), (b, r) = ((path.alpha(t), path.sigma(t)) for t in (step.t, step.t_next))
        (low, high), (low_next, high_next) = ((s, a), (r, b)) if self.form == "data" else ((a, s), (b, r))
        usable = (step.t != step.t_next) & (low > 0)
        keep = torch.where(usable, low_next / torch.where(low > 0, low, 1.0), 0.0)
        return keep, torch.where(usable, high_next - high * keep, 0.0)

    def _copy(self, builder: Builder, step: Step, register: int, share: Tensor, to: str) -> None:
        """Add share times what the step writes into `register` to what the new step writes into `to`."""
        steps = range(step.index, step.index + 1)
        kept = [("M", register, torch.ones((), dtype=torch.float64))]
        for kind, origin, value in step.writes.get(register, kept):
            builder.add(to, builder.registers[origin] if kind == "M" else origin, (share * value)[None], steps)
