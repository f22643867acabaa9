"""Exponential Runge–Kutta methods: several evaluations a step, in noise form (DPM-Solver) or data form (DPM-Solver++).

A step from (α, σ, λ) to (α′, σ′, λ′), h = λ′ − λ, asks at x and at one or two states u between, at λ + r₁h and λ + r₂h.
With p the answer as the form has it (ε̂ or x̂₀), S = σ′ or α′, z = h or −h, and φ_k of `exponential_adams`,

    x′ = [the exact step with p₀ held] − S·c₁(p₁ − p₀) − S·c₂(p₂ − p₀)

    two asks, r₁ = ½            c₁ = zφ₁(z)/(2r₁)  rule "midpoint",  zφ₂(z)/r₁  rule "exact"
    three, r₁ = ⅓ and r₂ = ⅔    c₁ = 0,  c₂ = zφ₂(z)/r₂  rule "midpoint"
                                c₁ = z(r₂φ₂ − 2φ₃)/(r₁(r₂ − r₁)),  c₂ = z(2φ₃ − r₁φ₂)/(r₂(r₂ − r₁))  rule "exact"

where the state at r₁ holds p₀ and the state at r₂ is a step of order 2, rule "exact", to there.  The state x stays at
its time until all answers of the step are known, so that a step of k evaluations is k rows.

With a share `eta` of fresh noise (two asks, data form, "midpoint") the state between and the next one are steps of the
reverse equation, each with its answer held and noise c = η·σ′√(1 − e^{−2h}) of its own length, driven by one Brownian
motion whose clock C is e^{2λ}, the equation's own (SEEDS-2), or −ρ = −σ/α (DPM++ SDE of k-diffusion):

    u = keep·x + gain·p₀ + c·ξ,      x′ = keep·x + gain·p₁ + c·(κξ + √(1 − κ²)ξ′),      κ² = (C_u − C)/(C′ − C).

With `groups`, one to three neighbouring intervals of the grid make a step, whose inner nodes are the grid's: n
intervals then cost exactly n evaluations.  As published ("last": 3, …, 3, 2, 1) the lower orders come last, where one
step of order 1 leaves the whole at order 2; "first" puts steps of order 2 in front, where the answer hardly changes,
and is of order 3.  A step to σ′ = 0 or from α = 0 is of order 1.
"""

from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.solvers.exponential_adams import phi
from fewstep.solvers.exponential_multistep import fresh_noise, held_answer


@method(
    name="dpm-solver-2",
    papers=["DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps"],
    arxiv="2206.00927", family="solvers", stages=2, form="noise", rule="midpoint",
    summary="Second-order exponential Runge–Kutta in noise form: two evaluations a step.",
)  # fmt: skip
@method(
    name="dpm-solver-3",
    papers=["DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps"],
    arxiv="2206.00927", family="solvers", stages=3, form="noise", rule="midpoint",
    summary="Third-order exponential Runge–Kutta in noise form: three evaluations a step.",
)  # fmt: skip
@method(
    name="dpm-solver-fast",
    papers=["DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps"],
    arxiv="2206.00927", family="solvers", stages=3, form="noise", rule="exact", groups="first",
    summary="Steps of order 3 and 2 in noise form, mixed so that a grid of n intervals costs n evaluations.",
)  # fmt: skip
@method(
    name="dpm-solver++2s",
    papers=["DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models"],
    arxiv="2211.01095", family="solvers", stages=2, form="data", rule="midpoint",
    summary="Second-order single-step in data form (2S): two evaluations a step.",
)  # fmt: skip
@method(
    name="dpm-solver++3s",
    papers=["DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models"],
    arxiv="2211.01095", family="solvers", stages=3, form="data", rule="midpoint",
    summary="Third-order single-step in data form (3S): three evaluations a step.",
)  # fmt: skip
@dataclass(frozen=True)
class ExponentialRungeKutta:
    """An exponential Runge–Kutta method of two or three stages.

    Args:
        stages: evaluations a step, 2 or 3; of most steps with `groups`.
        form: "noise" or "data", what is taken for a polynomial in λ.
        rule: "midpoint" (as published) or "exact" (the code's "taylor"); "midpoint" of order 3 wants r₂ = ⅔.
        groups: "" for one grid interval a step with its own inner nodes; "first" or "last" for several, see the module.
        eta: the share of fresh noise, in [0, 1]; above 0 with two stages, form "data", rule "midpoint" and no groups.
        clock: the clock of that noise, "snr" (e^{2λ}) or "rho" (−σ/α).

    Raises:
        ArgumentError: a parameter out of its range.
    """

    stages: int = 2
    form: str = "data"
    rule: str = "midpoint"
    groups: str = ""
    eta: float = 0.0
    clock: str = "snr"

    def __post_init__(self) -> None:
        if self.stages not in (2, 3):
            raise ArgumentError(f"stages must be 2 or 3, got {self.stages!r}")
        if not 0 <= self.eta <= 1:
            raise ArgumentError(f"eta must lie in [0, 1], got {self.eta!r}")
        allowed = {"form": ("noise", "data"), "rule": ("midpoint", "exact"), "groups": ("", "first", "last")}
        allowed["clock"] = ("snr", "rho")
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ArgumentError(f"{name} must be one of {values}, got {getattr(self, name)!r}")
        if self.eta and (self.stages, self.form, self.rule, self.groups) != (2, "data", "midpoint", ""):
            raise ArgumentError(f"eta={self.eta!r} goes with stages=2, form='data', rule='midpoint' and no groups")

    @property
    def order(self) -> int:
        """The order of convergence, of the law with fresh noise; two where one step of order 1 ends the run."""
        return 2 if self.groups == "last" else self.stages

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return self.eta > 0

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place)."""
        sizes = self._sizes(path, times)
        runs, at = [], 0
        for size, equal in groupby(sizes):
            count = len(list(equal))
            runs.append(self._nodes(path, times, at, size, count))
            at += count * (size if self.groups else 1)
        rows = [nodes[0].repeat_interleave(len(nodes) - 1, dim=0) for nodes in runs]
        older = ("p1",) if self.stages == 3 and self.rule == "exact" else ()
        registers = ("x", "u", "p0", *older, *(("drawn",) if self.eta else ()))
        builder, first = Builder(torch.cat([*rows, times[-1:]]), registers), 0
        for nodes in runs:
            stages, count = len(nodes) - 1, nodes.shape[1]
            for stage in range(stages):
                row = range(first + stage, first + stages * count, stages)
                _Stage(self, path, nodes, stage).write(builder, row)
            first += stages * count
        return Plan.build(path, builder, order=self.order, source={**asdict(self), **(source or {})})

    def _sizes(self, path: Path, times: Tensor) -> list[int]:
        """How many evaluations each step has; one where no place could use more."""
        able = _usable(path, torch.stack([times[:-1], times[1:]])).reshape(len(times) - 1, -1).any(1).tolist()
        if not self.groups:
            return [self.stages if one else 1 for one in able]
        sizes, at = [], 0
        if self.groups == "first":
            for usable, run in groupby(able):
                count = len(list(run))
                sizes += self._mix(count) if usable else [1] * count
            return sizes
        for size in self._mix(len(able)):
            sizes += [size] if all(able[at : at + size]) else [1] * size
            at += size
        return sizes

    def _mix(self, count: int) -> list[int]:
        """The sizes of the groups that `count` intervals are divided into."""
        full, rest = divmod(count, self.stages)
        if self.groups == "first":
            if self.stages == 3 and rest == 1 and full:
                return [2, 2] + [3] * (full - 1)
            return [rest] * (rest > 0) + [self.stages] * full
        if self.stages == 3 and rest == 0:
            return [3] * (full - 1) + [2, 1]
        return [self.stages] * full + [rest] * (rest > 0)

    def _nodes(self, path: Path, times: Tensor, at: int, size: int, count: int) -> Tensor:
        """The times (size + 1, count, *place) of `count` equal steps that begin at interval `at`."""
        if self.groups:
            ends = [times[at + j : at + j + 1 + size * (count - 1) : size] for j in range(size + 1)]
        else:
            start, end = times[at : at + count], times[at + 1 : at + 1 + count]
            usable = _usable(path, torch.stack([start, end]))
            first, last = (torch.where(usable, path.lam(t), 0.0) for t in (start, end))
            between = [path.t_of_lam(first + (last - first) * j / size) for j in range(1, size)]
            ends = [start, *between, end]
        nodes = torch.stack(ends)
        usable = _usable(path, nodes)
        # Where a step cannot be taken whole, its inner states stay at its start.
        inner = torch.where(usable, nodes[1:-1], nodes[:1])
        return torch.cat([nodes[:1], inner, nodes[-1:]])


def _usable(path: Path, nodes: Tensor) -> Tensor:
    """Where all nodes (n, …) fall and have a finite λ: bool (…)."""
    return path.lam(nodes).isfinite().all(0) & (nodes[1:] < nodes[:-1]).all(0)


@dataclass(frozen=True)
class _Stage:
    """One row of several equal steps: the answer asked at node `stage` leads on to the next node.

    Args:
        solver: whose form and rule they are.
        path: the path.
        nodes: float64 (stages + 1, steps, *place), the times of each step's nodes.
        stage: from 0.
    """

    solver: ExponentialRungeKutta
    path: Path
    nodes: Tensor
    stage: int

    def write(self, builder: Builder, rows: range) -> None:
        """Write the row of every step."""
        final, noise = self.stage + 2 == len(self.nodes), self.solver.form == "noise"
        alpha, sigma = self.path.alpha(self.nodes), self.path.sigma(self.nodes)
        asked, to = "u" if self.stage else "x", "x" if final else "u"
        ends = torch.tensor([0, self.stage + 1])
        drawn = self.solver.eta * fresh_noise(alpha[ends], sigma[ends])
        keep, gain = held_answer(alpha[ends], sigma[ends], drawn if self.solver.eta else 0.0)
        builder.ask(asked, self.nodes[self.stage], rows)
        builder.add(to, "x", keep, rows)
        if self.solver.eta:
            self._add_noise(builder, rows, drawn)
            if self.stage:
                builder.add("x", 0, gain, rows)
                return
        if self.stage == 0:
            builder.add(to, 0, gain, rows)
            if not final:
                builder.add("p0", 0, 1.0, rows)
            return
        builder.add(to, "p0", gain, rows)
        # 1/σ and α/σ turn x and x̂₀ into ε̂; σ = 0 only where nothing moves.
        on_x = 1 / torch.where(sigma > 0, sigma, torch.ones_like(sigma)) if noise else torch.zeros_like(sigma)
        on_answer = -alpha * on_x if noise else torch.ones_like(sigma)
        first, current = self._weights(final)
        held = first + current
        builder.add(to, "x", -held * on_x[0], rows)
        builder.add(to, "p0", -held * on_answer[0], rows)
        builder.add(to, asked, current * on_x[self.stage], rows)
        builder.add(to, 0, current * on_answer[self.stage], rows)
        if "p1" in builder.registers:
            if final and self.stage == 2:
                builder.add(to, "p1", first, rows)
            elif not final:
                builder.add("p1", asked, on_x[1], rows)
                builder.add("p1", 0, on_answer[1], rows)

    def _add_noise(self, builder: Builder, rows: range, drawn: Tensor) -> None:
        """Fresh noise in the state between, which is kept, and in the next one, of which it is a part."""
        if self.stage == 0 and len(self.nodes) == 2:
            builder.add("x", "noise", drawn, rows)
        elif self.stage == 0:
            builder.add("u", "noise", drawn, rows)
            builder.add("drawn", "noise", 1.0, rows)
        else:
            share = self._shared()
            builder.add("x", "drawn", drawn * share.sqrt(), rows)
            builder.add("x", "noise", drawn * (1 - share).sqrt(), rows)

    def _shared(self) -> Tensor:
        """κ²: how much of the step's clock has run at the state between."""
        usable = _usable(self.path, self.nodes)
        before, between, after = torch.where(usable, self.path.lam(self.nodes), torch.zeros_like(self.nodes))
        if self.solver.clock == "rho":
            share = torch.expm1(before - between) / torch.expm1(before - after)
        else:
            share = torch.exp(2 * (between - after)) * torch.expm1(2 * (before - between)) / torch.expm1(
                2 * (before - after)
            )  # fmt: skip
        return torch.where(usable, share, 0.5)

    def _weights(self, final: bool) -> tuple[Tensor, Tensor]:
        """−S·c of the answer at node 1, where it is an older one, and of the answer just asked."""
        noise, target = self.solver.form == "noise", self.stage + 1
        usable = _usable(self.path, self.nodes)
        evenly = torch.arange(len(self.nodes)).reshape(-1, *[1] * usable.ndim)
        lam = torch.where(usable, self.path.lam(self.nodes), evenly)
        h = lam[target] - lam[0]
        z = h if noise else -h
        scale = torch.where(usable, -z * (self.path.sigma if noise else self.path.alpha)(self.nodes[target]), 0.0)
        r = (lam[1 : self.stage + 1] - lam[0]) / h
        midpoint = final and self.solver.rule == "midpoint"
        if self.stage == 1:
            weight = phi(1, z) / 2 if midpoint else phi(2, z)
            return torch.zeros_like(h), scale * weight / r[0]
        if midpoint:
            return torch.zeros_like(h), scale * phi(2, z) / r[1]
        across = scale / (r[1] - r[0])
        first = across * (r[1] * phi(2, z) - 2 * phi(3, z)) / r[0]
        return first, across * (2 * phi(3, z) - r[0] * phi(2, z)) / r[1]
