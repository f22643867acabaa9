"""The unified sampling framework (USF): every step of an exponential multistep method chooses its own parts.

From (α, σ, λ) to (α′, σ′, λ′), h = λ′ − λ, with f = ε̂ or x̂₀ and its derivatives f^{(i)} in λ,

    noise   x′ = (α′/α)y − σ′h·φ₁(h)·ε̂ − Σ_i σ′h^{i+1}φ_{i+1}(h)·ε̂^{(i)}
    data    x′ = (σ′/σ)y + α′h·φ₁(−h)·x̂₀ + Σ_i α′h^{i+1}φ_{i+1}(−h)·x̂₀^{(i)},      i = 1 … order − 1,

φ_k of `exponential_adams`.  A derivative is Σ_k a_k(f_k − f) over some past points at Δ_k = λ_k − λ, with
Σ_k a_kΔ_k^j/j! = [j = i].  Scheme "full" takes order − 1 points for all derivatives, "low" only the i nearest for the
i-th.  A first derivative from one difference may be scaled by

    "bh1"  ½h²/(e^h − 1 − h)        "bh2"  ½h(e^h − 1)/(e^h − 1 − h)        "up", "down"  1 ± ½(e^h − 1)

(h → −h for data), all 1 + O(h).  With a corrector, the step is done again from y once f at its end is known, with that
point first among the others; no evaluation is spent, and the next step starts from there.  Constant choices are DDIM,
DPM-Solver++(2M) and UniPC.  A step from α = 0 or to σ′ = 0 holds its answer and is not corrected.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.solvers.exponential_adams import phi

Terms = dict[str | int, float]
PREDICTIONS, SCHEMES = ("data", "noise"), ("full", "low")
SCALES = ("none", "bh1", "bh2", "up", "down")
DEPTH = 4


@dataclass(frozen=True)
class Choice:
    """What one step is.

    Args:
        order: 1 to 4; fewer where there are not as many past points.
        prediction: "data" or "noise".
        scheme: "full" or "low", how derivatives are estimated.
        scale: of a first derivative from one difference: "none", "bh1", "bh2", "up" or "down".
        corrected: whether the step is done again with the next answer.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    order: int = 2
    prediction: str = "data"
    scheme: str = "full"
    scale: str = "bh2"
    corrected: bool = False

    def __post_init__(self) -> None:
        if self.order not in range(1, DEPTH + 1):
            raise ArgumentError(f"order must be 1, 2, 3 or 4, got {self.order!r}")
        for name, allowed in (("prediction", PREDICTIONS), ("scheme", SCHEMES), ("scale", SCALES)):
            if getattr(self, name) not in allowed:
                raise ArgumentError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")


def scaled(scale: str, z: float) -> float:
    """The factor of a first derivative; z is h for noise and −h for data."""
    if scale == "none":
        return 1.0
    if scale in ("up", "down"):
        return 1 + (0.5 if scale == "up" else -0.5) * math.expm1(z)
    second = float(phi(2, torch.tensor(z, dtype=torch.float64)))
    # e^z − 1 − z = z²φ₂(z).
    return 0.5 / second * (1.0 if scale == "bh1" else math.expm1(z) / z)


def derivative(i: int, points: Sequence[float]) -> list[float]:
    """a_k of the i-th derivative from differences at Δ_k: Σ_k a_kΔ_k^j/j! = [j = i], j = 1 … the number of points."""
    at = torch.tensor(points, dtype=torch.float64)
    rows = torch.stack([at**j / math.factorial(j) for j in range(1, len(points) + 1)])
    wanted = torch.zeros(len(points), dtype=torch.float64)
    wanted[i - 1] = 1.0
    solved: list[float] = torch.linalg.solve(rows, wanted).tolist()
    return solved


def _taylor(choice: Choice, h: float, points: Sequence[float], order: int) -> list[float]:
    """The weights of f and of the differences to the points, in units of −σ′h (noise) or α′h (data)."""
    z = h if choice.prediction == "noise" else -h
    at = torch.tensor(z, dtype=torch.float64)
    weights = [float(phi(1, at)), *[0.0] * len(points)]
    for i in range(1, order):
        used = points[:i] if choice.scheme == "low" else points[: order - 1]
        factor = h**i * float(phi(i + 1, at))
        if i == 1 and len(used) == 1:
            factor *= scaled(choice.scale, z)
        for k, a in enumerate(derivative(i, used), 1):
            weights[k] += factor * a
    return weights


class _Rows:
    """Writes the steps, one at a time."""

    def __init__(self, path: Path, times: Tensor, choices: Sequence[Choice]) -> None:
        self.choices, self.builder = (
            choices,
            Builder(times, ("x", "y", *(f"{f}{k}" for k in range(1, 5) for f in "me"))),
        )
        self.alpha, self.sigma, self.lam = (v(times).tolist() for v in (path.alpha, path.sigma, path.lam))

    def usable(self, i: int) -> bool:
        """Whether the step has a finite h."""
        return math.isfinite(self.lam[i]) and math.isfinite(self.lam[i + 1])

    def step(self, i: int, state: Terms, names: list[str], new: bool) -> Terms:
        """x at time i + 1 from `state` at time i.

        Args:
            i: the step.
            state: what it starts from.
            names: of f at time i, and of the past points from the nearest; "0" is the answer of this row.
            new: whether the answer at time i + 1 is known: then "0" is that, and the first point.
        """
        choice = self.choices[i]
        noise = choice.prediction == "noise"
        if not self.usable(i):
            if noise and self.alpha[i]:
                keep = self.alpha[i + 1] / self.alpha[i]
                return _plus(
                    _times(keep, state), _times(self.sigma[i + 1] - self.sigma[i] * keep, self.value("0", i, noise))
                )
            keep = self.sigma[i + 1] / self.sigma[i]
            return _plus(_times(keep, state), _times(self.alpha[i + 1] - self.alpha[i] * keep, {0: 1.0}))
        h = self.lam[i + 1] - self.lam[i]
        past = [i - k for k in range(1, len(names) - new) if math.isfinite(self.lam[i - k])]
        points = [h] * new + [self.lam[j] - self.lam[i] for j in past]
        order = min(choice.order + new, len(points) + 1)
        scale = -self.sigma[i + 1] * h if noise else self.alpha[i + 1] * h
        keep = self.alpha[i + 1] / self.alpha[i] if noise else self.sigma[i + 1] / self.sigma[i]
        weights = _taylor(choice, h, points, order)
        own, others = self.value(names[0], i, noise), names[1:]
        out = _plus(_times(keep, state), _times(scale * weights[0], own))
        at = [i + 1] * new + past
        for weight, name, j in zip(weights[1:], others, at, strict=False):
            if weight:
                difference = _plus(self.value(name, j, noise), _times(-1.0, own))
                out = _plus(out, _times(scale * weight, difference))
        return out

    def value(self, name: str, j: int, noise: bool) -> Terms:
        """f at time j: the answer of this row for "0", else what is kept of an older one."""
        if name == "0":
            return {"x": 1 / self.sigma[j], 0: -self.alpha[j] / self.sigma[j]} if noise else {0: 1.0}
        return {("e" if noise else "m") + name: 1.0}

    def row(self, i: int) -> None:
        """Write row i."""
        seen = min(i, DEPTH)
        state: Terms = {"x": 1.0}
        if i and self.choices[i - 1].corrected and self.usable(i - 1) and math.isfinite(self.lam[i]):
            state = self.step(i - 1, {"y": 1.0}, ["1", "0", *(str(k) for k in range(2, seen + 1))], True)
        ahead = self.step(i, state, ["0", *(str(k) for k in range(1, min(i, DEPTH - 1) + 1))], False)
        kept: dict[str, Terms] = {"x": ahead, "y": state, "m1": {0: 1.0}, "e1": self.value("0", i, True)}
        for k in range(2, seen + 2):
            if k <= DEPTH:
                kept |= {f"{f}{k}": {f"{f}{k - 1}": 1.0} for f in "me"}
        rows = range(i, i + 1)
        self.builder.ask("x", steps=rows)
        for to, terms in kept.items():
            for source, number in terms.items():
                self.builder.add(to, source, number, rows)


def _times(factor: float, terms: Terms) -> Terms:
    return {source: factor * value for source, value in terms.items()}


def _plus(one: Terms, other: Terms) -> Terms:
    return {source: one.get(source, 0.0) + other.get(source, 0.0) for source in {**one, **other}}


def unified_plan(path: Path, times: Tensor, choices: Sequence[Choice], source: dict[str, Any] | None = None) -> Plan:
    """The plan of these choices on a grid.

    Args:
        path: any.
        times: float64 (steps + 1,), falling.
        choices: one a step.
        source: where it came from.

    Raises:
        ArgumentError: not as many choices as steps.
    """
    if times.ndim != 1 or len(choices) != len(times) - 1:
        raise ArgumentError(f"{len(times) - 1} steps need as many choices, got {len(choices)}")
    rows = _Rows(path, times, choices)
    for i in range(len(choices)):
        rows.row(i)
    order = min(min((c.order for c in choices[1:-1]), default=1), 2)
    return Plan.build(path, rows.builder, order=order, source=source or {"solver": "unified"})
