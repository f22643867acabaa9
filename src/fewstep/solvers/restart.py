"""Restart and churn: noise is added on the way, and the solver takes it off again.

A jump up from (α, σ) to (α⁺, σ⁺), σ⁺/α⁺ > σ/α, is the path's own forward kernel times a scale s (1 is exact),

    x⁺ = (α⁺/α)·x + s·√(σ⁺² − (α⁺/α)²σ²)·ξ,

so it keeps the law and contracts the errors made so far.  Between jumps any solver runs, its history anew after each.

Restart (Xu et al. 2023) runs the grid down to the time whose ρ = σ/α is nearest to ρ_min, then K times jumps up to
ρ_max and comes down again, then goes on.  Churn (Karras et al. 2022) jumps before every step with ρ in [ρ_min, ρ_max]
from ρ to ρ(1 + γ), γ = min(churn/steps, √2 − 1), never above t = 1.
"""

import math
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Flow, Path
from fewstep.plan import Builder, Plan
from fewstep.solvers import Solver, solver_named


def concatenate(plans: list[Plan], source: dict[str, Any] | None = None, live: bool = False) -> Plan:
    """One plan that runs several after one another; each begins at the time at which the one before ends.

    Args:
        plans: on one path; registers of the same name are the same register.
        source: where the whole came from.
        live: whether somebody beyond the whole reads registers other than x.
    """
    names = tuple(dict.fromkeys(name for plan in plans for name in plan.registers))
    times = torch.cat([plans[0].times[:1], *(plan.times[1:] for plan in plans)])
    builder, row = Builder(times, names, names[1:] if live else ()), 0
    for plan in plans:
        for step in plan:
            steps = range(row, row + 1)
            for slot, (register, t) in enumerate(step.asks):
                builder.ask(plan.registers[register], t[None], steps, slot)
            for to, entries in step.writes.items():
                for kind, origin, value in entries:
                    name = {"M": plan.registers[origin] if kind == "M" else "", "N": f"noise{origin}"}
                    builder.add(plan.registers[to], origin if kind == "B" else name[kind], value[None], steps)
            row += 1
    count = max(len(plan.restarts) for plan in plans)
    shorter = [[plan.restarts[k] if k < len(plan.restarts) else plan for plan in plans] for k in range(count)]
    return Plan.build(
        plans[0].path, builder, order=max(plan.order for plan in plans), source=source or {},
        deviates=next((plan.deviates for plan in plans if plan.deviates), ""),
        restarts=tuple(concatenate(parts, source, live=True) for parts in shorter),
    )  # fmt: skip


def jump(path: Path, start: Tensor, end: Tensor, scale: float = 1.0) -> Plan:
    """The plan of one step up, from time `start` to the noisier `end`; float64 (), `scale` of its noise."""
    builder = Builder(torch.stack([start, end]), ("x",))
    ratio = path.alpha(end) / path.alpha(start)
    builder.add("x", "x", ratio[None])
    variance = (path.sigma(end) ** 2 - (ratio * path.sigma(start)) ** 2).clamp(min=0)
    builder.add("x", "noise", (scale * variance.sqrt())[None])
    deviates = "" if scale == 1 else f"a jump up adds {scale} times the noise of its path"
    return Plan.build(path, builder, order=0, deviates=deviates)


@cache
def order_without_history(base: str) -> int:
    """The order of a solver of that name whose history ends at every step."""
    engine = solver_named(base)
    remembers = bool(engine(Flow(), torch.tensor([0.8, 0.5, 0.2], dtype=torch.float64)).restarts)
    return 1 if remembers else engine.order


def _checked(base: str, scale: float, times: Tensor | None = None) -> Solver:
    if not 0 <= scale < math.inf:
        raise ArgumentError(f"noise_scale must be finite and at least 0, got {scale!r}")
    if times is not None and times.ndim > 1:
        raise ArgumentError(f"jumps up need one time for all, got times of shape {tuple(times.shape)}")
    return solver_named(base)


@method(
    name="restart", papers=["Restart Sampling for Improving Generative Processes"], arxiv="2306.14878",
    family="solvers", intervals=((0.14, 0.3, 2, 0),), base="heun",
    summary="A solver that goes back up by adding much noise and comes down again, which contracts its errors.",
)  # fmt: skip
@dataclass(frozen=True)
class Restart:
    """Restart sampling (Xu et al. 2023) on any solver.

    Args:
        intervals: (ρ_min, ρ_max, repeats K, steps down) each, 0 < ρ_min < ρ_max, K at least 1; the steps are spaced as
            Karras' grid is, and 0 stands for as many as the main grid has between.  An interval whose nearest
            grid point is not below ρ_max is left out.
        base: the name of the solver, for the main run and the way down.
        noise_scale: s, at least 0; 1 is exact, the paper's S_noise is 1.003 on ImageNet.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    intervals: tuple[tuple[float, float, int, int], ...] = ((0.14, 0.3, 2, 0),)
    base: str = "heun"
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        _checked(self.base, self.noise_scale)
        for interval in self.intervals:
            low, high, repeats, steps = interval
            if not 0 < low < high < math.inf or repeats < 1 or steps < 0:
                raise ArgumentError(f"an interval is (ρ_min < ρ_max, repeats ≥ 1, steps ≥ 0), got {interval}")

    @property
    def order(self) -> int:
        """The order in which its law converges: the solver's if every interval is as fine as the main grid."""
        return solver_named(self.base).order if all(i[3] == 0 for i in self.intervals) else 0

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return True

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the main grid `times`, float64 (steps + 1,).

        Raises:
            ArgumentError: times within a sample, or an interval that reaches beyond the path's own noise.
        """
        engine = _checked(self.base, self.noise_scale, times)
        rho = torch.exp(-path.lam(times))
        parts: list[Plan] = []
        begin = 0
        for low, high, repeats, steps in sorted(self.intervals, key=lambda i: -i[0]):
            if -math.log(high) < float(path.lam(1.0)):
                raise ArgumentError(f"ρ_max = {high} is more noise than the path ever has")
            far = torch.where(rho > 0, (rho - low).abs(), torch.inf)
            far[0] = torch.inf
            end = int(far.argmin())
            if not rho[end] < high or rho[end] == 0:
                continue
            if end > begin:
                parts.append(engine(path, times[begin : end + 1]))
                begin = end
            down = self._down(path, times[end], rho, high, steps)
            parts += [jump(path, times[end], down[0], self.noise_scale), engine(path, down)] * repeats
        if begin < len(times) - 1:
            parts.append(engine(path, times[begin:]))
        return concatenate(parts, {**asdict(self), **(source or {})})

    def _down(self, path: Path, end: Tensor, rho: Tensor, high: float, steps: int) -> Tensor:
        """The times from ρ_max down to `end`."""
        low = torch.exp(-path.lam(end))
        steps = steps or 1 + int(((rho > low) & (rho < high)).sum())
        share = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        ratio = (high ** (1 / 7) + share * (low ** (1 / 7) - high ** (1 / 7))) ** 7
        return torch.cat([path.t_of_lam(-ratio[:-1].log()), end[None]])


@method(
    name="churn", papers=[], arxiv="2206.00364", family="solvers", churn=10.0, rho_min=0.05, rho_max=50.0,
    base="heun", summary="Noise is added before every step and taken off by it (Karras et al. 2022).",
)  # fmt: skip
@dataclass(frozen=True)
class Churn:
    """The stochastic sampler of Karras et al. (2022) on any solver.

    Args:
        churn: their S_churn, at least 0; the noise level rises by the factor 1 + min(churn/steps, √2 − 1).
        rho_min, rho_max: between which ρ = σ/α it does, at least 0.
        base: the name of the solver that takes the steps.
        noise_scale: s, at least 0; 1 is exact, theirs is 1.003 to 1.007.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    churn: float = 10.0
    rho_min: float = 0.05
    rho_max: float = 50.0
    base: str = "heun"
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        _checked(self.base, self.noise_scale)
        if not self.churn >= 0 or not 0 <= self.rho_min <= self.rho_max:
            got = (self.churn, self.rho_min, self.rho_max)
            raise ArgumentError(f"churn must be at least 0 and 0 <= rho_min <= rho_max, got {got}")

    @property
    def order(self) -> int:
        """The order in which its law converges: that of the solver's first step, as its history ends at each jump."""
        return order_without_history(self.base)

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return self.churn > 0 or solver_named(self.base).stochastic

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1,).

        Raises:
            ArgumentError: times within a sample.
        """
        engine = _checked(self.base, self.noise_scale, times)
        lam = path.lam(times)
        gamma = min(self.churn / (len(times) - 1), math.sqrt(2) - 1)
        raised = path.t_of_lam(lam[:-1] - math.log1p(gamma)).clamp(max=1.0)
        rho = torch.exp(-lam[:-1])
        churned = (rho >= self.rho_min) & (rho <= self.rho_max) & (raised > times[:-1])
        parts: list[Plan] = []
        begin = 0
        for i in [*churned.nonzero().flatten().tolist(), len(times) - 1]:
            if i > begin:
                head = raised[begin] if churned[begin] else times[begin]
                parts.append(engine(path, torch.cat([head[None], times[begin + 1 : i + 1]])))
            if i < len(times) - 1:
                parts.append(jump(path, times[i], raised[i], self.noise_scale))
            begin = i
        return concatenate(parts, {**asdict(self), **(source or {})})
