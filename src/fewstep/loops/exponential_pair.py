"""Exponential integrators in pairs: a step of order p beside one of order p − 1 from the same evaluations.

In the noise form, ε̂ = (x − α·x̂₀)/σ, with h = λ′ − λ, φ₁(h) = (e^h − 1)/h, φ₂(h) = (φ₁(h) − 1)/h, s_r the time at
λ + r·h and D(x → s) the exact step with ε̂ constant (Lu et al. 2022),

    order 2:   u = D(x → s_½)
               x_low = D(x → t′),    x_high = x_low − σ′hφ₁(h)·(ε̂_u − ε̂)
    order 3:   u₁ = D(x → s_⅓),    u₂ = D(x → s_⅔) − (4/3)σ₂hφ₂(2h/3)·(ε̂₁ − ε̂)
               x_low = D(x → t′) − (3/2)σ′hφ₁(h)·(ε̂₁ − ε̂)
               x_high = D(x → t′) − (3/2)σ′hφ₂(h)·(ε̂₂ − ε̂).

A step from or to infinite λ is D itself.  A place that stands still does not change.
"""

from typing import Any

import torch
from torch import Tensor

from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.solvers.exponential_adams import phi

# x_low, D(x → t′), D(x → s_⅔) and ε̂ are kept beside the state.
REGISTERS = ("x", "low", "end", "mid", "e")


def exponential_pair(path: Path, times: Tensor, order: int, source: dict[str, Any]) -> Plan:
    """The plan of order `order` whose register "low" holds, after every step, what the lower order says.

    Args:
        path: any path.
        times: float64 (steps + 1, *place), falling or standing; λ may be infinite at the first and the last.
        order: 2 or 3.
        source: where it comes from.
    """
    lam = path.lam(times)
    finite = lam.isfinite().reshape(len(lam), -1).all(1)
    stages: list[list[Tensor]] = []
    for step, full in enumerate((finite[:-1] & finite[1:]).tolist()):
        h = torch.where(times[step + 1] == times[step], 0.0, lam[step + 1] - lam[step]) if full else lam[step]
        inner = [torch.minimum(path.t_of_lam(lam[step] + h * k / order), times[step]) for k in range(1, order)]
        stages.append([times[step], *(inner if full else []), times[step + 1]])
    rows = [t for ts in stages for t in ts[:-1]]
    builder = Builder(torch.stack([*rows, times[-1]]), REGISTERS, live=("low",))
    row = 0
    for ts in stages:
        _Writer(builder, path, ts, row).write()
        row += len(ts) - 1
    return Plan.build(path, builder, order=order, source=source)


class _Writer:
    """Writes the rows of one step, whose stages are at times ts, from `row` on."""

    def __init__(self, builder: Builder, path: Path, ts: list[Tensor], row: int) -> None:
        self.builder, self.path, self.ts, self.row = builder, path, ts, row
        self.moves = ts[0] != ts[-1]

    def write(self) -> None:
        order = len(self.ts) - 1
        for stage in range(order):
            self.builder.ask("x", steps=range(self.row + stage, self.row + stage + 1))
        if order == 1:
            return self._hold("x", 1)
        h = torch.where(self.moves, self.path.lam(self.ts[-1]) - self.path.lam(self.ts[0]), 0.0)
        end = self.path.sigma(self.ts[-1]) * h
        self._hold("x", 1)
        self._hold("low" if order == 2 else "end", order)
        self._noise("e", 0, torch.ones_like(h))
        if order == 2:
            return self._slope("x", "low", 1, -end * phi(1, h))
        self._hold("mid", 2)
        self._slope("x", "mid", 1, -4 / 3 * self.path.sigma(self.ts[2]) * h * phi(2, 2 * h / 3))
        self._slope("low", "end", 1, -1.5 * end * phi(1, h))
        self._slope("x", "end", 2, -1.5 * end * phi(2, h))

    def _add(self, to: str, source: str | int, value: Tensor, stage: int) -> None:
        self.builder.add(to, source, value[None], range(self.row + stage, self.row + stage + 1))

    def _hold(self, to: str, stage: int) -> None:
        """D(x → ts[stage])."""
        (a, s), (a_next, s_next) = ((self.path.alpha(t), self.path.sigma(t)) for t in (self.ts[0], self.ts[stage]))
        keep = torch.where(self.moves, s_next / torch.where(s > 0, s, 1.0), 1.0)
        self._add(to, "x", keep, 0)
        self._add(to, 0, torch.where(self.moves, a_next - a * keep, 0.0), 0)

    def _noise(self, to: str, stage: int, weight: Tensor) -> None:
        """weight·ε̂ of a stage."""
        alpha, sigma = self.path.alpha(self.ts[stage]), self.path.sigma(self.ts[stage])
        self._add(to, "x", weight / sigma, stage)
        self._add(to, 0, -weight * alpha / sigma, stage)

    def _slope(self, to: str, base: str, stage: int, weight: Tensor) -> None:
        """base + weight·(ε̂ of a stage − ε̂); where the place stands still x is kept to the last bit."""
        self._add(to, base, torch.ones_like(weight), stage)
        self._noise(to, stage, weight)
        self._add(to, "e", -weight, stage)
