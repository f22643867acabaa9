"""UniPC: a predictor of any order, and a corrector that uses the next answer once more, at no evaluation.

From (α, σ, λ) to (α′, σ′, λ′), h = λ′ − λ, in data form (noise form with α, σ and ±h exchanged),

    UniP-p    x′  = (σ′/σ)y + α′∫₀ʰ e^{s−h} P(λ+s) ds,    P through the last p answers
    UniC-p    y′  = (σ′/σ)y + α′∫₀ʰ e^{s−h} Q(λ+s) ds,    Q through the answer at x′ and the last p

where y is the corrected state and the network sees only x′.  The next step starts at y′; the answer at x′ is kept.
UniP-2 and UniC-1 replace one moment of the integral by B(h)/2: B = h ("bh1") or 1 − e^{−h} ("bh2"); "vary" does not.
A step of UniP-p is wrong by h^{p+1} and of UniPC-p by h^{p+2}, and `corrected` lifts any other solver of one answer a
step as much.  The first step has one answer, so it is wrong by h², or h³ corrected, whatever p: over a whole run UniP
converges with order 2 and UniPC with order 3 at most.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.solvers.exponential_adams import Adams
from fewstep.solvers.multistep_rows import Past, Rows

VARIANTS = ("bh1", "bh2", "vary")


@method(
    name="unipc",
    papers=["UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models"],
    arxiv="2302.04867", family="solvers", predictor=2, corrector=2, variant="bh2",
    summary="UniPC-2: second-order predictor and corrector, one evaluation a step, order 3.",
)  # fmt: skip
@dataclass(frozen=True)
class PredictorCorrector:
    """UniPC of any order (Zhao et al. 2023).

    Args:
        predictor: p of UniP-p, 1 to 4.
        corrector: p of UniC-p, 1 to 4; 0 for none.
        variant: "bh1", "bh2" or "vary" (the paper's varying coefficients: no simplified moment).
        form: "data" or "noise": which answer is taken for a polynomial.
        lower_order_final: whether the last steps lower p to the number of steps left.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    predictor: int = 2
    corrector: int = 2
    variant: str = "bh2"
    form: str = "data"
    lower_order_final: bool = False

    def __post_init__(self) -> None:
        if self.predictor not in range(1, 5):
            raise ArgumentError(f"predictor must be 1, 2, 3 or 4, got {self.predictor!r}")
        if self.corrector not in range(5):
            raise ArgumentError(f"corrector must be 0 (none), 1, 2, 3 or 4, got {self.corrector!r}")
        if self.variant not in VARIANTS:
            raise ArgumentError(f"variant must be one of {VARIANTS}, got {self.variant!r}")
        if self.form not in ("data", "noise"):
            raise ArgumentError(f"form must be 'data' or 'noise', got {self.form!r}")

    @property
    def order(self) -> int:
        """The order of convergence from a cold start, where the last steps do not lower it."""
        return min(self.predictor + 1, self.corrector + 1, 3) if self.corrector else min(self.predictor, 2)

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return False

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place)."""
        nodes = self.corrector + 1 if self.corrector else 0
        adams = Adams(self.predictor, nodes, self.variant, self.form, self.lower_order_final)
        return adams.plan(path, times, self.order, {**asdict(self), **(source or {})})


def corrected(plan: Plan, order: int | None = None, variant: str = "bh2", form: str = "data") -> Plan:
    """The plan with UniC after every step but the last: the same evaluations, an order more.

    Args:
        plan: deterministic, and at each row at most one answer, at x and its own time.
        order: p of UniC-p, 1 to 4; the order of the plan unless given.
        variant: "bh1", "bh2" or "vary".
        form: "data" or "noise".

    Raises:
        ArgumentError: a plan of another kind, or a parameter out of its range.
    """
    order = min(plan.order, 4) if order is None else order
    PredictorCorrector(1, order, variant, form)
    if order == 0:
        raise ArgumentError("order must be 1, 2, 3 or 4, got 0")
    own = plan.times[:-1][plan.asks[:, 0]]
    if plan.stochastic or bool(plan.asks[:, 1].any()) or not torch.equal(own.expand_as(plan.ask_times), plan.ask_times):
        raise ArgumentError("corrected needs a plan without noise that asks the network only at x and its own time")
    if len(plan.asks[:, 0].unique()) < len(plan.asks) or "base" in plan.registers:
        raise ArgumentError("corrected needs a plan with one answer a step that is not corrected already")
    adams = Adams(1, order + 1, variant, form, False)
    windows = max(order, len(plan.restarts))
    restarts = tuple(
        _corrected(plan.restarts[k] if k < len(plan.restarts) else plan, plan, adams, k, ()) for k in range(windows)
    )
    return _corrected(plan, plan, adams, None, restarts)


def _corrected(plan: Plan, whole: Plan, adams: Adams, window: int | None, restarts: tuple[Plan, ...]) -> Plan:
    past = Past.of(whole.times, adams.depth, window)
    rows = adams.rows(plan.path, whole.times, past, torch.zeros_like(whole.times[1:]))
    own = [f"{name} of the predictor" if name in rows.memory else name for name in whole.registers]
    registers = (*own, *rows.memory)
    builder = Builder(whole.times, registers, () if window is None else registers[1:])
    builder.ask("x")
    rows.remember(builder, past)
    _copy(builder, plan, own, rows)
    order = min(whole.order + 1, adams.depth + 1, 3)
    source = {**whole.source, "corrected": {"order": adams.depth, "variant": adams.slope, "form": adams.form}}
    return Plan.build(plan.path, builder, order=order, source=source, deviates=whole.deviates, restarts=restarts)


def _copy(builder: Builder, plan: Plan, own: list[str], rows: Rows) -> None:
    """The plan's own rows, with the corrected state wherever they read x."""
    seen = rows.corrected()
    for step in plan:
        steps = range(step.index, step.index + 1)
        for to, entries in step.writes.items():
            name = own[to]
            for kind, source, value in entries:
                if kind == "M" and source == 0:
                    for read, factor in seen:
                        builder.add(name, read, value[None] * factor[step.index][None], steps)
                else:
                    builder.add(name, source if kind == "B" else own[source], value[None], steps)
