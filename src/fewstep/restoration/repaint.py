"""RePaint: replacement, and every stretch of steps gone over again, so that the rest can agree with what is known.

Down by the chain of posteriors (ddpm), replacing what is measured before every step; the way goes up again by j levels
and comes down anew, r − 1 times, as the solver `resampling` walks.  T = 250, j = 10 and r = 10 cost 2,410 evaluations.
y is taken as free of noise.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.grids import Grid, grid_named
from fewstep.guidance import Ask
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.restoration.base import RestorationGuide
from fewstep.restoration.replacement import replaced
from fewstep.solvers import Solver
from fewstep.solvers.resampling import Resampling


@method(
    name="repaint", papers=["RePaint: Inpainting using Denoising Diffusion Probabilistic Models"], arxiv="2201.09865",
    family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class RePaint(RestorationGuide):
    """Replacement with resampling: every stretch of levels is noised up and gone down again (Lugmayr et al. 2022).

    Args:
        jump_length: j, how many levels a jump goes up, at least 1.
        repeats: r, how often every stretch is gone down, at least 1; 1 is replacement alone.

    Raises:
        ArgumentError: a parameter below 1, or an operator that is not linear.
    """

    level: ClassVar[str] = "state"
    budget: ClassVar[int] = 2410
    jump_length: int = 10
    repeats: int = 10

    def __post_init__(self) -> None:
        self.measurement.need_linear("repaint")
        self.solver()

    def solver(self) -> Solver:
        return Resampling(self.jump_length, self.repeats)

    def plan(self, path: Path, evaluations: int, solver: str | Solver | None, grid: str | Grid | None) -> Plan:
        """As many levels as the evaluations allow.

        Raises:
            ArgumentError: a solver is given; the way up belongs to the one that it has.
        """
        if solver is not None:
            raise ArgumentError(f"repaint goes up as well as down, so it takes no other solver; got {solver!r}")
        j, again = self.jump_length, self.repeats - 1
        cost = [n + again * j * max(0, math.ceil((n - j) / j)) for n in range(1, evaluations + 1)]
        levels = sum(c <= evaluations for c in cost)
        made = "uniform" if grid is None else grid
        times = (grid_named(made) if isinstance(made, str) else made)(path, levels, 1.0)
        return self.solver()(path, times, {"solver": "repaint"})

    def move(self, ask: Ask, x: Tensor, state: Any) -> tuple[Tensor, Any, bool]:
        return replaced(ask, x, self.measurement), state, False
