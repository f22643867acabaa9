"""DPM-Solver-v3: a multistep predictor–corrector in the parameterisation that a model's own statistics make best.

With l, s, b functions of λ (see `empirical_statistics`) and f = (σε̂ − l·x)/α, the flow is d(x/α)/dλ = −l·x/α − f.  From
λ to λ′, with L, S the integrals of l, s from λ, and B(u) = ∫ e^{−S} b from λ to u,

    x′/α′ = e^{−L(λ′)}·[x/α − ∫ e^{L+S}B du − Σ_j w_j g_j],    g_j = e^{−S(λ_j)}f_j − B(λ_j),

where Σ w_j g_j integrates e^{L+S}·P over the step, P the polynomial through g at the last nodes (predictor), or at the
new node and the last ones (corrector).  l = 1, s = b = 0 is the data form, l = b = 0, s = −1 the noise form.
The answer is kept as f, which a correction of x leaves alone.  "Pseudo" order takes the k-th derivative of P from the
first k + 1 nodes alone.  A step from α = 0 or to σ′ = 0 is the data form's of order 1.
"""

from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.shapes import broadcast_shapes
from fewstep.solvers.empirical_statistics import GaussianStatistics, ModelStatistics
from fewstep.solvers.exponential_adams import node_weights
from fewstep.solvers.multistep_rows import Past, Rows

Statistics = ModelStatistics | GaussianStatistics
NODES = 16


@cache
def _legendre() -> tuple[Tensor, Tensor, Tensor]:
    """Gauss–Legendre nodes θ and weights on [0, 1], and the matrix that integrates from 0 to each node and to 1."""
    roots, weights = np.polynomial.legendre.leggauss(NODES)
    basis = np.polynomial.legendre.legvander(roots, NODES - 1)
    ends = np.append(roots, 1.0)
    integrals = [np.polynomial.legendre.legint(row, lbnd=-1) for row in np.eye(NODES)]
    upto = np.stack([np.polynomial.legendre.legval(ends, row) for row in integrals], -1) @ np.linalg.inv(basis)
    return torch.from_numpy((roots + 1) / 2), torch.from_numpy(weights / 2), torch.from_numpy(upto / 2)


@dataclass(frozen=True)
class Interval:
    """The integrals of the statistics from λ to λ + h, each (steps, *place): L, S, B, and what the step needs of them.

    Args:
        keep: e^{−L}.
        fade: e^{−S}.
        shift: B.
        moments: (n, steps, *place), ∫ e^{L+S} ((u − λ)/h)ᵏ du.
        shifted: ∫ e^{L+S} B du.
    """

    keep: Tensor
    fade: Tensor
    shift: Tensor
    moments: Tensor
    shifted: Tensor

    @staticmethod
    def of(statistics: Statistics, lam: Tensor, h: Tensor, degrees: int) -> "Interval":
        """The integrals over [λ, λ + h], h of either sign, with moments of the degrees below `degrees`."""
        theta, weights, upto = _legendre()
        at = lam + theta.reshape(-1, *[1] * lam.ndim) * h
        l, s, b = (v.reshape(*at.shape[:2], *v.shape[1:]) for v in statistics.at(at.flatten(0, 1)))  # noqa: E741

        def integrate(values: Tensor) -> Tensor:
            return h * torch.einsum("ij,j...->i...", upto, values)

        along, slow = integrate(l), integrate(s)
        shift = integrate(torch.exp(-slow[:-1]) * b)
        grown = h * torch.exp(along[:-1] + slow[:-1])
        moments = torch.stack([torch.einsum("i,i...->...", weights * theta**k, grown) for k in range(degrees)])
        shifted = torch.einsum("i,i...->...", weights, grown * shift[:-1])
        return Interval(torch.exp(-along[-1]), torch.exp(-slow[-1]), shift[-1], moments, shifted)


def pseudo_weights(nodes: Tensor, count: Tensor, moments: Tensor) -> Tensor:
    """As `node_weights`, but with the k-th divided difference, times the k-th moment, from the first k + 1 nodes."""
    weights = []
    for j in range(len(nodes)):
        weight = torch.zeros_like(moments[0])
        for k in range(j, len(nodes)):
            others = [nodes[j] - nodes[m] for m in range(k + 1) if m != j]
            product = torch.stack(others).prod(0) if others else torch.ones_like(nodes[0])
            weight = weight + torch.where(count > k, moments[k] / product, 0.0)
        weights.append(weight)
    return torch.stack(weights)


@method(
    name="dpm-solver-v3",
    papers=["DPM-Solver-v3: Improved Diffusion ODE Solver with Empirical Model Statistics"],
    arxiv="2310.13268", family="solvers", predictor=2, corrector=3,
    summary="Multistep predictor–corrector in the parameterisation of the model's own statistics, or a Gaussian's.",
)  # fmt: skip
@dataclass(frozen=True)
class StatisticsMultistep:
    """DPM-Solver-v3 (Zheng et al. 2023).

    Args:
        predictor: the number of nodes of the predictor, 1 to 4.
        corrector: the number of nodes of the corrector, the new one counted, 2 to 4; 0 for none.
        statistics: those of a model, or the file that `ModelStatistics.save` wrote; "" for those of Gaussian data.
        variance: of that Gaussian, more than 0.
        pseudo_predictor, pseudo_corrector: whether the orders are pseudo-orders, steadier at very few steps.
        lower_order_final: whether the last steps take no more nodes than there are steps left.

    Raises:
        ArgumentError: a parameter out of its range.
        WeightsError: the file does not hold model statistics.
    """

    predictor: int = 2
    corrector: int = 3
    statistics: str | ModelStatistics = ""
    variance: float = 0.25
    pseudo_predictor: bool = False
    pseudo_corrector: bool = False
    lower_order_final: bool = False

    def __post_init__(self) -> None:
        if self.predictor not in range(1, 5):
            raise ArgumentError(f"predictor must be 1, 2, 3 or 4, got {self.predictor!r}")
        if self.corrector not in (0, 2, 3, 4):
            raise ArgumentError(f"corrector must be 0 (none), 2, 3 or 4, got {self.corrector!r}")
        if not isinstance(self.statistics, str | ModelStatistics):
            raise ArgumentError(f"statistics must be ModelStatistics or a file's name, got {self.statistics!r}")
        if not self.statistics:
            GaussianStatistics(self.variance)

    @property
    def order(self) -> int:
        """The order of convergence from a cold start, where the last steps do not lower it."""
        predictor = min(self.predictor, 2) if self.pseudo_predictor else self.predictor
        corrector = min(self.corrector, 2) if self.pseudo_corrector else self.corrector
        return min(predictor + 1, corrector, 3) if corrector else min(predictor, 2)

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return False

    @property
    def depth(self) -> int:
        """How many older answers are kept."""
        return max(self.predictor, self.corrector) - 1

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place)."""
        known: Statistics = GaussianStatistics(self.variance)
        if self.statistics:
            known = ModelStatistics.load(self.statistics) if isinstance(self.statistics, str) else self.statistics
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        own["statistics"] = self.statistics if isinstance(self.statistics, str) else "given"
        deviates = "dpm-solver-v3 holds f, not x̂₀ or ε̂, over a step: where these are constant it lands beside its path"
        # Coefficients that differ by element need times with as many axes; the network is told the times as given.
        missing = max(0, len(known.place) - (times.ndim - 1))
        wide = times.reshape(len(times), *[1] * missing, *times.shape[1:])
        wide = wide.expand(len(times), *broadcast_shapes(wide.shape[1:], known.place))

        def build(window: int | None, restarts: tuple[Plan, ...]) -> Plan:
            past = Past.of(wide, max(self.depth, 1), window)
            builder = self._rows(path, wide, past, known).builder(times, past, window is not None)
            asks, _, m, b, n = builder.finish()
            told, made = times[:-1][asks[:, 0]], {**own, **(source or {})}
            return Plan(path, builder.registers, times, asks, told, m, b, n, self.order, made, deviates, restarts)

        return build(None, tuple(build(window, ()) for window in range(self.depth)))

    def _rows(self, path: Path, times: Tensor, past: Past, known: Statistics) -> Rows:
        lam, alpha, sigma = path.lam(times), path.alpha(times), path.sigma(times)
        inside = past.moves & lam[:-1].isfinite() & lam[1:].isfinite()
        start = torch.where(lam[:-1].isfinite(), lam[:-1], 0.0)
        h = torch.where(inside, torch.where(inside, lam[1:], 1.0) - start, 1.0)
        safe = torch.where(alpha[:-1] > 0, alpha[:-1], 1.0)
        on_x = torch.where(lam[:-1].isfinite() & (sigma[1:] > 0), (1 - known.at(start)[0]) / safe, 0.0)
        step = Interval.of(known, start, h, self.predictor)
        fixed = torch.where(sigma[:-1] > 0, sigma[1:] / torch.where(sigma[:-1] > 0, sigma[:-1], 1.0), 0.0)
        keep = torch.where(inside, alpha[1:] * step.keep / safe, fixed)
        scale = torch.where(inside, -alpha[1:] * step.keep, 0.0)
        held = torch.where(inside, scale * step.moments[0], alpha[:-1] * fixed - alpha[1:])
        predict, ones = self._predict(known, lam, start, h, inside, past, step)
        correct, correct_ones, corrects = self._correct(known, lam, alpha, past, held)
        predict = scale * torch.cat([predict[:1] - step.moments[:1], predict[1:]])
        constants = scale * step.shifted, -scale * ones, correct_ones
        zero = torch.zeros_like(keep)
        return Rows(on_x, zero - 1, keep, held, zero, predict, correct, corrects, constants)

    def _predict(
        self, known: Statistics, lam: Tensor, start: Tensor, h: Tensor, inside: Tensor, past: Past, step: Interval
    ) -> tuple[Tensor, Tensor]:
        """(weights of f₀, f₁ …, Σ w_j B_j) of the integral of P over every step."""
        places, older = past.older(lam[:-1], inside, start, h, range(1, self.predictor))
        nodes, count = torch.stack([torch.zeros_like(h), *places]), 1 + older
        if self.lower_order_final:
            count = torch.minimum(count, past.left().clamp(min=1))
        quadrature = pseudo_weights if self.pseudo_predictor else node_weights
        weights = quadrature(nodes, count, step.moments)
        return _on_f(weights, [None, *(Interval.of(known, start, place * h, 1) for place in places)])

    def _correct(
        self, known: Statistics, lam: Tensor, alpha: Tensor, past: Past, held: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(weights beyond the base, constant, where) of the correction of the last move, which ended at the row."""
        if not self.corrector:
            return (
                torch.zeros(0, *held.shape, dtype=torch.float64),
                torch.zeros_like(held),
                torch.zeros_like(past.moves),
            )
        before, end = past.at(1, lam[:-1]), lam[:-1]
        corrects = past.moves & before.isfinite() & end.isfinite()
        before, end = torch.where(corrects, before, 0.0), torch.where(corrects, end, 1.0)
        h = end - before
        step = Interval.of(known, before, h, self.corrector)
        places, older = past.older(lam[:-1], corrects, before, h, range(2, self.corrector))
        nodes, count = torch.stack([torch.zeros_like(h), torch.ones_like(h), *places]), 1 + corrects + older
        back = [None, step, *(Interval.of(known, before, place * h, 1) for place in places)]
        if self.lower_order_final:
            count = torch.minimum(count, 1 + past.at(1, past.left().double(), 1.0).long())
        quadrature = pseudo_weights if self.pseudo_corrector else node_weights
        weights, ones = _on_f(quadrature(nodes, count, step.moments), back)
        scale = -alpha[:-1] * step.keep
        current, new = scale * weights[0] - past.at(1, held, 0.0), scale * weights[1]
        return torch.stack([new, current, *(scale * weights[2:])]), -scale * ones, corrects


def _on_f(weights: Tensor, intervals: list[Interval | None]) -> tuple[Tensor, Tensor]:
    """From weights of g_j = e^{−S_j}f_j − B_j to those of f_j, and Σ w_j B_j; no interval for the step's start."""
    on_f = torch.stack([w if i is None else w * i.fade for w, i in zip(weights, intervals, strict=True)])
    shifts = [w * i.shift for w, i in zip(weights, intervals, strict=True) if i is not None]
    return on_f, torch.stack(shifts).sum(0) if shifts else torch.zeros_like(weights[0])
