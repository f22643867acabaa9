"""Runge–Kutta methods on the probability flow, in coordinates where it is dy/ds = (y − x̂₀)/s.

With y = x/k and s = σ/k this holds for k = α ("rho", where s = σ/α and the slope is ε̂, as DEIS, Karras et al. 2022 and
k-diffusion step) and for k = α + σ ("flow", where s is the time of a straight path; finite also where α = 0).  From s
to s′, Δ = s′ − s, with a tableau (c, a, b),

    y_i = y + Δ·Σ_{j<i} a_ij f_j,      f_i = (y_i − m_i)/s_i,      m_i the answer at y_i,  s_i = s + c_iΔ
    y′  = y + Δ·Σ_i b_i f_i

The state stays at its time until all answers of a step are known, so that a step of n evaluations is n rows.  The step
to σ′ = 0 is Euler's, which is then x̂₀ itself.
"""

from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError, unknown
from fewstep.paths import Path
from fewstep.plan import Builder, Plan


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge–Kutta method.

    Args:
        order: its order, 1 to 4.
        a: the rows a_i of the second stage and on, i coefficients each.
        b: the weights of the stages.

    Raises:
        ArgumentError: a condition of its order does not hold.
    """

    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]

    def __post_init__(self) -> None:
        if [len(row) for row in self.a] != list(range(1, len(self.b))):
            raise ArgumentError(f"an explicit tableau of {len(self.b)} stages has rows of 1, 2 … entries, got {self.a}")
        a = torch.zeros(len(self.b), len(self.b), dtype=torch.float64)
        for i, row in enumerate(self.a, 1):
            a[i, :i] = torch.tensor(row, dtype=torch.float64)
        b, c, one = torch.tensor(self.b, dtype=torch.float64), a.sum(1), torch.ones(len(a), dtype=torch.float64)
        trees = {
            1: [(one, 1)],
            2: [(c, 2)],
            3: [(c**2, 3), (a @ c, 6)],
            4: [(c**3, 4), (c * (a @ c), 8), (a @ c**2, 12), (a @ (a @ c), 24)],
        }
        for order in range(1, self.order + 1):
            for tree, density in trees[order]:
                if abs(float(b @ tree) - 1 / density) > 1e-14:
                    raise ArgumentError(f"the tableau a={self.a}, b={self.b} is not of order {order}")

    @property
    def c(self) -> tuple[float, ...]:
        """The nodes, Σ_j a_ij."""
        return (0.0, *(sum(row) for row in self.a))


TABLEAUX = {
    "euler": Tableau(1, (), (1.0,)),
    "heun": Tableau(2, ((1.0,),), (1 / 2, 1 / 2)),
    "kutta3": Tableau(3, ((1 / 2,), (-1.0, 2.0)), (1 / 6, 4 / 6, 1 / 6)),
    "ralston3": Tableau(3, ((1 / 2,), (0.0, 3 / 4)), (2 / 9, 1 / 3, 4 / 9)),
    "heun3": Tableau(3, ((1 / 3,), (0.0, 2 / 3)), (1 / 4, 0.0, 3 / 4)),
    "houwen3": Tableau(3, ((8 / 15,), (1 / 4, 5 / 12)), (1 / 4, 0.0, 3 / 4)),
    "ssprk3": Tableau(3, ((1.0,), (1 / 4, 1 / 4)), (1 / 6, 1 / 6, 2 / 3)),
    "rk4": Tableau(4, ((1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}


@method(
    name="euler", papers=["Denoising Diffusion Implicit Models"], family="solvers", tableau="euler",
    summary="Euler's method on the probability flow; the same table as ddim with η = 0.",
)  # fmt: skip
@method(
    name="heun", papers=[], family="solvers", tableau="heun",
    summary="Heun's method on the probability flow (Karras et al. 2022): two evaluations a step, order 2.",
)  # fmt: skip
@method(
    name="ralston3", papers=["Fast Sampling of Diffusion Models with Exponential Integrator"],
    arxiv="2204.13902", family="solvers", tableau="ralston3",
    summary="ρRK-DEIS with Ralston's third-order method: three evaluations a step.",
)  # fmt: skip
@method(
    name="rk4", papers=["Fast Sampling of Diffusion Models with Exponential Integrator"],
    arxiv="2204.13902", family="solvers", tableau="rk4",
    summary="ρRK-DEIS with the classical fourth-order method: four evaluations a step.",
)  # fmt: skip
@dataclass(frozen=True)
class RungeKutta:
    """An explicit Runge–Kutta method on the probability flow.

    Args:
        tableau: "euler", "heun", "kutta3", "ralston3", "heun3", "houwen3", "ssprk3" or "rk4".
        coordinate: "rho", "flow", or "" for rho where the grid starts with α > 0 and flow where it does not.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    tableau: str = "heun"
    coordinate: str = ""

    def __post_init__(self) -> None:
        if self.tableau not in TABLEAUX:
            raise unknown("tableau", self.tableau, TABLEAUX)
        if self.coordinate not in ("", "rho", "flow"):
            raise ArgumentError(f"coordinate must be 'rho', 'flow' or '', got {self.coordinate!r}")

    @property
    def order(self) -> int:
        """The order of convergence."""
        return TABLEAUX[self.tableau].order

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return False

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place).

        Raises:
            ArgumentError: coordinate "rho" on a grid that starts where α = 0.
        """
        no_data = bool((path.alpha(times[0]) == 0).any())
        if self.coordinate == "rho" and no_data:
            raise ArgumentError("coordinate 'rho' is infinite where α = 0: start later or take coordinate 'flow'")
        rho = self.coordinate == "rho" or (not self.coordinate and not no_data)
        stages, tableau = len(TABLEAUX[self.tableau].b), TABLEAUX[self.tableau]
        inside = (times[1:] < times[:-1]) & (path.sigma(times[1:]) > 0)
        costs = [stages if able else 1 for able in inside.reshape(len(inside), -1).any(1).tolist()]
        rows = times[:-1].repeat_interleave(torch.tensor(costs), dim=0)
        registers = ("x", "u", "m0", *(f"f{i}" for i in range(2, stages))) if stages > 1 else ("x",)
        builder = Builder(torch.cat([rows, times[-1:]]), registers)
        step = row = 0
        for cost, equal in groupby(costs):
            count = len(list(equal))
            ends = torch.stack([times[step : step + count], times[step + 1 : step + 1 + count]])
            steps = _Steps(path, rho, ends, tableau if cost > 1 else TABLEAUX["euler"])
            for stage in range(cost):
                steps.write(builder, stage, range(row + stage, row + count * cost, cost))
            step, row = step + count, row + count * cost
        return Plan.build(path, builder, order=self.order, source={**asdict(self), **(source or {})})


class _Steps:
    """Several steps of one tableau, their rows written together.

    Args:
        path: the path.
        rho: whether the coordinate is "rho".
        ends: float64 (2, steps, *place), the times before and after.
        tableau: the method.
    """

    def __init__(self, path: Path, rho: bool, ends: Tensor, tableau: Tableau) -> None:
        self.path, self.rho, self.tableau, self.times = path, rho, tableau, ends
        self.k, self.s = self._level(ends)
        self.whole = (ends[0] > ends[1]) & (self.s[1] > 0)

    def _level(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """(k, s) at these times."""
        alpha, sigma = self.path.alpha(times), self.path.sigma(times)
        k = alpha if self.rho else alpha + sigma
        return k, sigma / k

    def _node(self, stage: int) -> Tensor:
        """The times of a stage; where only one answer is used, those of the step's start."""
        c = self.tableau.c[stage]
        if c in (0, 1):
            return torch.where(self.whole, self.times[int(c)], self.times[0])
        s = torch.where(self.whole, self.s[0] + c * (self.s[1] - self.s[0]), 0.5)
        lam = -s.log() if self.rho else torch.log1p(-s) - s.log()
        return torch.where(self.whole, self.path.t_of_lam(lam), self.times[0])

    def write(self, builder: Builder, stage: int, rows: range) -> None:
        """Write the rows in which answer number `stage` is asked."""
        last = stage + 1 == len(self.tableau.b)
        asked, to, node = "u" if stage else "x", "x" if last else "u", self._node(stage)
        builder.ask(asked, node, rows)
        if last and stage == 0:
            keep, gain = self._euler(self.times[1])
            builder.add("x", "x", keep, rows)
            builder.add("x", 0, gain, rows)
            return
        k, s = self._level(node)
        # The slope f = (y − m)/s of the answer just asked; s = 0 only where nothing moves.
        over = torch.where(s > 0, 1 / torch.where(s > 0, s, 1.0), 0.0)
        first = torch.where(self.s[0] > 0, 1 / torch.where(self.s[0] > 0, self.s[0], 1.0), 0.0)
        if not last and stage:
            builder.add(f"f{stage + 1}", asked, over / k, rows)
            builder.add(f"f{stage + 1}", 0, -over, rows)
        weights = self.tableau.b if last else self.tableau.a[stage]
        end = self.times[1] if last else self._node(stage + 1)
        # Euler's step and what the later slopes differ from the first by: the sum itself would cancel.
        keep, gain = self._euler(end)
        builder.add(to, "x", keep, rows)
        builder.add(to, "m0" if stage else 0, gain, rows)
        if stage == 0:
            builder.add("m0", 0, 1.0, rows)
        delta = torch.where(self.whole, self._level(end)[0] * (self.s[1] - self.s[0]), 0.0)
        for j, weight in enumerate(weights[1:], 1):
            share = delta * weight
            if j == stage:
                builder.add(to, asked, share * over / k, rows)
                builder.add(to, 0, -share * over, rows)
            else:
                builder.add(to, f"f{j + 1}", share, rows)
            builder.add(to, "x", -share * first / self.k[0], rows)
            builder.add(to, "m0", share * first, rows)

    def _euler(self, end: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of x and of its answer in Euler's step to times `end`."""
        moves, (k, s) = self.times[0] > end, self._level(end)
        ratio = torch.where(moves, s / torch.where(moves, self.s[0], 1.0), 1.0)
        return torch.where(moves, k / self.k[0], 1.0) * ratio, k * (1 - ratio)
