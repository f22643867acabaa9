"""Runge–Kutta methods on the probability flow, in coordinates where it is dy/ds = (y − x̂₀)/s.

With y = x/k and s = σ/k this holds for k = α ("rho", where s = σ/α, as Karras et al. 2022 and k-diffusion step) and for
k = α + σ ("flow", where s is the time of a straight path; finite also where α = 0).  From s to s′, Δ = s′ − s:

    Euler    y′ = y + Δ·(y − m₀)/s
    Heun     y_p as Euler, then y′ = y + ½Δ·[(y − m₀)/s + (y_p − m₁)/s′],   m₁ the answer at y_p

A step of Heun is two rows: the first leaves the predicted state at the new time, the second corrects it there.  The
step to σ′ = 0 is Euler's, which is then x̂₀ itself.
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
    name="euler", papers=["Denoising Diffusion Implicit Models"], family="solvers", order=1,
    summary="Euler's method on the probability flow; the same table as ddim with η = 0.",
)  # fmt: skip
@method(
    name="heun", papers=[], family="solvers", order=2,
    summary="Heun's method on the probability flow (Karras et al. 2022): two evaluations a step, order 2.",
)  # fmt: skip
@dataclass(frozen=True)
class RungeKutta:
    """Euler's or Heun's method.

    Args:
        order: 1 for Euler, 2 for Heun.
        coordinate: "rho", "flow", or "" for rho where the grid starts with α > 0 and flow where it does not.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    order: int = 2
    coordinate: str = ""

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ArgumentError(f"order must be 1 or 2, got {self.order!r}")
        if self.coordinate not in ("", "rho", "flow"):
            raise ArgumentError(f"coordinate must be 'rho', 'flow' or '', got {self.coordinate!r}")

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return False

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place).

        Raises:
            ArgumentError: coordinate "rho" on a grid that starts where α = 0.
        """
        alpha, sigma = path.alpha(times), path.sigma(times)
        no_data = bool((alpha[0] == 0).any())
        if self.coordinate == "rho" and no_data:
            raise ArgumentError("coordinate 'rho' is infinite where α = 0: start later or take coordinate 'flow'")
        rho = self.coordinate == "rho" or (not self.coordinate and not no_data)
        k = alpha if rho else alpha + sigma
        s = sigma / k
        rows: list[Tensor] = [times[0]]
        for i in range(len(times) - 1):
            rows += [times[i + 1]] if self.order == 1 or not bool((s[i + 1] > 0).any()) else [times[i + 1]] * 2
        builder = Builder(torch.stack(rows), ("x", "start", "m1") if self.order == 2 else ("x",))
        row = 0
        for i in range(len(times) - 1):
            self._predict(builder, row, k, s, i)
            row += 1
            if (
                row < builder.steps
                and len(rows) > row + 1
                and torch.equal(rows[row], rows[row + 1])
                and self.order == 2
            ):
                self._correct(builder, row, k, s, i)
                row += 1
        return Plan.build(path, builder, order=self.order, source={**asdict(self), **(source or {})})

    def _predict(self, builder: Builder, row: int, k: Tensor, s: Tensor, i: int) -> None:
        steps = range(row, row + 1)
        moves = s[i] != s[i + 1]
        ratio = torch.where(moves, s[i + 1] / torch.where(moves, s[i], 1.0), 1.0)
        builder.ask("x", steps=steps)
        builder.add("x", "x", (torch.where(moves, k[i + 1] / k[i], 1.0) * ratio)[None], steps)
        builder.add("x", 0, (k[i + 1] * (1 - ratio))[None], steps)
        if self.order == 2:
            builder.add("start", "x", 1.0, steps)
            builder.add("m1", 0, 1.0, steps)

    def _correct(self, builder: Builder, row: int, k: Tensor, s: Tensor, i: int) -> None:
        steps = range(row, row + 1)
        moves = (s[i] != s[i + 1]) & (s[i + 1] > 0)
        safe, safe_next = torch.where(moves, s[i], 1.0), torch.where(moves, s[i + 1], 1.0)
        delta = safe_next - safe
        first = k[i + 1] * (0.5 * delta * (1 / safe_next - 1 / safe) - 0.5 * delta / safe)
        builder.ask("x", steps=steps)
        builder.add("x", "x", torch.where(moves, 0.0, 1.0)[None], steps)
        builder.add("x", "start", torch.where(moves, k[i + 1] / k[i] * safe_next / safe, 0.0)[None], steps)
        builder.add("x", "m1", torch.where(moves, first, 0.0)[None], steps)
        builder.add("x", 0, torch.where(moves, -0.5 * k[i + 1] * delta / safe_next, 0.0)[None], steps)
