"""Any solver on a bridge that begins at y itself: the first step draws the noise that the bridge does not have yet.

At t = 1 a pinned bridge is y, with α = σ = 0, and a step that scales the noise at hand gets none.  So the network is
asked there once, and a little later, at τ = 1 − boot, the state is drawn (Zheng et al. 2025):

    x_τ = α_τ·x̂₀ + σ_τ·ξ.

From τ on any solver serves, and with a deterministic one ξ alone tells the samples of one y apart: it is their latent
code.  One step more than the grid has.  Where nothing is pinned, the solver is left as it is.
"""

from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.plan.table import Table
from fewstep.solvers import Solver, solver_named


@method(
    name="dbim", papers=["Diffusion Bridge Implicit Models"], arxiv="2405.15885", family="bridges", solver="ddim",
    summary="Diffusion bridges without retraining: a booting step draws the noise, then ddim with any eta.",
)  # fmt: skip
@method(
    name="dbim-3", papers=["Diffusion Bridge Implicit Models"], arxiv="2405.15885", family="bridges",
    solver="dpm-solver++3m",
    summary="Diffusion bridges at high order: a booting step draws the noise, then three answers are extrapolated.",
)  # fmt: skip
@dataclass(frozen=True)
class Booted:
    """A solver that begins at the pinned end of a bridge (Zheng et al. 2025).

    Args:
        solver: the solver from τ on, or its name in the catalogue; "ddim" with any eta, or orders 2 and 3 of
            "dpm-solver++" and "dpm-solver++3m" with rule "exact", are the paper's.
        boot: 1 − τ, in (0, 1).

    Raises:
        ArgumentError: an unknown solver, or a boot out of its range.
    """

    solver: str | Solver = "ddim"
    boot: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.boot < 1:
            raise ArgumentError(f"boot must lie in (0, 1), got {self.boot!r}")
        _ = self.engine

    @property
    def engine(self) -> Solver:
        """The solver from τ on."""
        return solver_named(self.solver) if isinstance(self.solver, str) else self.solver

    @property
    def order(self) -> int:
        """The order of the solver."""
        return self.engine.order

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise; on a pinned bridge it always does, once."""
        return self.engine.stochastic

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place), with one step more where the bridge is pinned.

        Raises:
            ArgumentError: the grid's second time lies before 1 − boot.
        """
        named = self.solver if isinstance(self.solver, str) or not is_dataclass(self.solver) else asdict(self.solver)
        source = {"base": named if isinstance(named, (str, dict)) else type(named).__name__, "boot": self.boot,
                  **(source or {})}  # fmt: skip
        pinned = (path.alpha(times) == 0) & (path.sigma(times) == 0) & (times[-1] < times[0])
        if not bool(pinned.any()):
            return replace(self.engine(path, times), source=source)
        later = torch.where(pinned, times - self.boot, times)
        if bool((later[1:] > later[:-1]).any()):
            raise ArgumentError(f"boot={self.boot} leads beyond the grid's second time, {float(times[1].max()):.6g}")
        return self._after(times[:1], self.engine(path, later), source)

    def _after(self, first: Tensor, plan: Plan, source: dict[str, Any]) -> Plan:
        """The plan with the booting step in front."""
        path, then = plan.path, plan.times[:1]
        times = torch.cat([first, then])
        moves = (first != then).double()
        builder = Builder(times, plan.registers)
        builder.ask("x")
        builder.add("x", "x", 1 - moves)
        builder.add("x", 0, moves * path.alpha(then))
        builder.add("x", "noise", moves * path.sigma(then))
        asks, ask_times, *tables = builder.finish()
        m, b, n = (_joined(head, getattr(plan, name), plan.place) for head, name in zip(tables, "MBN", strict=True))
        return Plan(
            path, plan.registers, torch.cat([first, plan.times]), torch.cat([asks, plan.asks + torch.tensor([1, 0])]),
            torch.cat([ask_times.expand(-1, *plan.place), plan.ask_times]), m, b, n, order=plan.order, source=source,
            deviates=plan.deviates, restarts=tuple(self._after(first, restart, source) for restart in plan.restarts),
        )  # fmt: skip


def _joined(head: Table, tail: Table, place: torch.Size) -> Table:
    """The entries of the booting step, then those of the plan, each a step later."""
    later = Table(tail.index + torch.tensor([1, 0, 0]), tail.value)
    if not len(head) or not len(later):
        return later if len(later) else head
    values = [table.value.expand(-1, *place) for table in (head, later)]
    return Table(torch.cat([head.index, later.index]), torch.cat(values))
