"""RePaint: replacement, and every stretch of steps gone over again, so that the rest can agree with what is known.

Down by the chain of posteriors (ddpm), replacing what is measured before every step.  At the levels 0, j, 2j … below
T − j, counted from the data, the state is noised up by j levels again,

    x_{t+j} = (α_{t+j}/α_t)·x_t + √(σ²_{t+j} − (α_{t+j}/α_t)²σ_t²)·ξ,

and comes down anew, r − 1 times.  T = 250, j = 10 and r = 10 cost 2,410 evaluations.  y is taken as free of noise.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.grids import Grid, grid_named
from fewstep.guidance import Ask
from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.restoration.base import RestorationGuide
from fewstep.restoration.replacement import replaced
from fewstep.solvers import Solver


def stretches(steps: int, jump_length: int, repeats: int) -> Iterator[tuple[int, int]]:
    """(from, to) in levels counted from the data: down where from is larger, up where it is smaller."""
    jumps = set(range(0, steps - jump_length, jump_length))
    left, level = dict.fromkeys(jumps, repeats - 1), steps
    while level > 0 or left.get(0, 0) > 0:
        if left.get(level, 0) > 0:
            left[level] -= 1
            yield level, level + jump_length
            level += jump_length
        else:
            low = max((k for k in jumps if k < level), default=0)
            yield level, low
            level = low


@dataclass(frozen=True)
class Resampling:
    """The solver that goes down by the chain of posteriors, over stretches of it again.

    Args:
        jump_length: j, at least 1.
        repeats: r, at least 1, how often every stretch is gone down.
    """

    jump_length: int
    repeats: int
    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1,)."""
        visited = [len(times) - 1]
        for high, low in stretches(len(times) - 1, self.jump_length, self.repeats):
            visited += range(high - 1, low - 1, -1) if high > low else [low]
        at = times[len(times) - 1 - torch.tensor(visited)]
        builder, alpha, sigma = Builder(at, ("x",)), path.alpha(at), path.sigma(at)
        down = at[1:] < at[:-1]
        for i in down.nonzero().flatten().tolist():
            builder.ask("x", at[i : i + 1], range(i, i + 1))
        # With α/α′ and the variance v of the forward kernel: the posterior of the earlier state, or the kernel upwards.
        ratio = alpha[:-1] / alpha[1:]
        forward = (sigma[:-1] ** 2 - ratio**2 * sigma[1:] ** 2).clamp(min=0)
        noisy = torch.where(down, sigma[:-1] ** 2, 1.0)
        raised = (sigma[1:] ** 2 - (sigma[:-1] / ratio) ** 2).clamp(min=0)
        builder.add("x", "x", torch.where(down, ratio * sigma[1:] ** 2 / noisy, 1 / ratio))
        builder.add("x", 0, torch.where(down, alpha[1:] * forward / noisy, 0.0))
        builder.add("x", "noise", torch.where(down, forward * sigma[1:] ** 2 / noisy, raised).sqrt())
        return Plan.build(path, builder, order=1, source={**asdict(self), **(source or {})})


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
        for name in ("jump_length", "repeats"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ArgumentError(f"{name} must be an integer of at least 1, got {value!r}")

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
        made = grid or "uniform"
        times = (grid_named(made) if isinstance(made, str) else made)(path, levels, 1.0)
        return self.solver()(path, times, {"solver": "repaint"})

    def move(self, ask: Ask, x: Tensor, state: Any) -> tuple[Tensor, Any, bool]:
        return replaced(ask, x, self.measurement), state, False
