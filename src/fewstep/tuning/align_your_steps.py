"""Align Your Steps: the grid that minimises a bound on how far a sampler's law is from the exact one (KLUB).

In x/α and ρ = σ/α, a step from ρ_{i+1} down to ρ_i that holds its answer adds to the Kullback–Leibler divergence

    KLUB_i = ∫ s⁻³ E‖x̂₀(x_s, s) − x̂₀(x_{ρ_{i+1}}, ρ_{i+1})‖² ds      over s in [ρ_i, ρ_{i+1}]

at most, x_s of data and noise, x_{ρ_{i+1}} = x_s + √(ρ_{i+1}² − s²)·ε.  It is estimated with s drawn from

    π(s) ∝ s⁻³(1/(s² + c²) − 1/(ρ_{i+1}² + c²)),

for which the estimate has no variance in s on Gaussian data of standard deviation c; the same random numbers serve all
grids.  Nodes are improved one at a time, each over some places between its neighbours, and a place is taken only if the
bound falls.  A grid of few steps is found first; then every interval is halved in log ρ, twice, and only the new nodes
move.  The bound spends more on small ρ than a deterministic sampler needs: descent stops when the sampler itself,
on noises of its own, gains no more, and the best grid that it met is taken.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.tuning.levels import intervals, karras_levels, plan_on
from fewstep.tuning.problem import Problem, Tuner

PLACES = 11
# Points of the table from which s is drawn; its trapezoids are exact to a thousandth.
TABLE = 512


class Klub:
    """The bound of an interval, with one set of random numbers for all of them.

    Args:
        problem: whose denoiser is asked and whose evaluations are counted.
        samples: of data.
        spread: c, the standard deviation of the data; that of the samples unless more than 0.
    """

    def __init__(self, problem: Problem, samples: int, spread: float = 0.0) -> None:
        self.problem, self.clean = problem, problem.clean(samples)
        self.spread = spread or float(self.clean.std())
        generator = torch.Generator().manual_seed(problem.seed)
        shape = (2, *self.clean.shape)
        self.noise, self.more = torch.randn(shape, dtype=torch.float64, generator=generator)
        share = torch.randperm(samples, generator=generator).double()
        # One s in each of as many equal parts of π.
        self.share = (share + torch.rand(samples, dtype=torch.float64, generator=generator)) / samples
        kept = problem.state.get("bounds", [])
        self._known: dict[tuple[float, float], float] = {(low, high): value for low, high, value in kept}

    def known(self) -> list[tuple[float, float, float]]:
        """(low, high, KLUB) of every interval so far."""
        return [(*ends, value) for ends, value in self._known.items()]

    def drawn(self, low: float, high: float) -> tuple[Tensor, float]:
        """s (samples,) from π on [low, high], and the mass of π before it is scaled to 1."""
        s = torch.logspace(0, 1, TABLE, base=high / low, dtype=torch.float64) * low
        weight = s**-3 * self.gap(s, high)
        mass = torch.cumulative_trapezoid(weight, s)
        mass = torch.cat([torch.zeros(1, dtype=torch.float64), mass])
        want = self.share * mass[-1]
        right = torch.searchsorted(mass, want).clamp(1, TABLE - 1)
        part = (want - mass[right - 1]) / (mass[right] - mass[right - 1])
        return s[right - 1] + part * (s[right] - s[right - 1]), float(mass[-1])

    def gap(self, s: Tensor, high: float) -> Tensor:
        """1/(s² + c²) − 1/(high² + c²), without cancelling."""
        c = self.spread**2
        return (high - s) * (high + s) / ((s**2 + c) * (high**2 + c))

    def __call__(self, low: float, high: float) -> float:
        """KLUB of the interval."""
        if (low, high) not in self._known:
            s, mass = self.drawn(low, high)
            s = s.clamp(max=high * (1 - 1e-9))
            column = s.reshape(-1, *[1] * (self.clean.ndim - 1))
            state = self.clean + column * self.noise
            above = state + (high**2 - column**2).sqrt() * self.more
            moved = self._believed(state, s) - self._believed(above, torch.full_like(s, high))
            square = moved.flatten(1).square().sum(1)
            self._known[low, high] = mass * float((square / self.gap(s, high)).mean())
        return self._known[low, high]

    def _believed(self, state: Tensor, level: Tensor) -> Tensor:
        path = self.problem.denoiser.path
        t = path.t_of_lam(-level.log())
        alpha = path.alpha(t).reshape(-1, *[1] * (state.ndim - 1))
        return self.problem.believed(alpha * state, t)


def sweep(klub: Callable[[float, float], float], levels: Tensor, nodes: range, width: float = 1.0) -> Tensor:
    """The levels after each node in turn went to the best of some places between its neighbours.

    Args:
        klub: (low, high) → the bound of the interval.
        levels: (n + 1,), falling.
        nodes: which of them may move; not the ends.
        width: of the places about the node, as a share of the way to its neighbours; 1 is all of it.
    """
    levels = levels.clone()
    for i in nodes:
        above, here, below = levels[i - 1 : i + 2].log().tolist()
        best, found = klub(float(levels[i]), float(levels[i - 1])) + klub(float(levels[i + 1]), float(levels[i])), here
        for j in range(1, PLACES):
            side = 2 * j / PLACES - 1
            place = here + width * (side * (above - here) if side > 0 else -side * (below - here))
            level = float(torch.tensor(place, dtype=torch.float64).exp())
            value = klub(level, float(levels[i - 1])) + klub(float(levels[i + 1]), level)
            if value < best:
                best, found = value, place
        if found != here:
            levels[i] = torch.tensor(found, dtype=torch.float64).exp()
    return levels


def halved(levels: Tensor) -> Tensor:
    """Levels with one more, the geometric mean, between every two."""
    between = (levels[1:] * levels[:-1]).sqrt()
    return torch.cat([torch.stack([levels[:-1], between], 1).flatten(), levels[-1:]])


def interpolated(levels: Tensor, steps: int) -> Tensor:
    """Levels of another number of steps: log ρ is linear between the nodes."""
    at = torch.linspace(0, len(levels) - 1, steps + 1, dtype=torch.float64)
    left = at.long().clamp(max=len(levels) - 2)
    log, share = levels.log(), at - left
    return (log[left] * (1 - share) + log[left + 1] * share).exp()


@method(
    name="align-your-steps",
    papers=["Align Your Steps: Optimizing Sampling Schedules in Diffusion Models"],
    arxiv="2404.14507", family="tuning",
    summary="The grid that minimises a Kullback-Leibler bound along data, by coordinates, refined by halving.",
)  # fmt: skip
@dataclass(frozen=True)
class AlignYourSteps(Tuner):
    """A solver on the grid that Align Your Steps finds.

    Args:
        solver: of the catalogue; the bound is that of a stochastic one that holds its answer, and serves others too.
        base: steps of the first grid, at least 2.
        doublings: how often it is refined; a grid of base·2^k steps is taken as it is, others are interpolated from the
            finest.
        sweeps: over all nodes, at most; fewer where one brings the sampler nothing.
        samples: of data in an estimate of the bound.
        spread: c of the density from which s is drawn; that of the data unless more than 0.
        bottom: the last ρ of the bound, which stands for the data themselves when sampling; 0.03 in the published grid
            of Stable Diffusion, 0.002 in that of a video model.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    solver: str = "dpm-solver++"
    base: int = 10
    doublings: int = 2
    sweeps: int = 8
    samples: int = 64
    spread: float = 0.0
    bottom: float = 0.01

    def __post_init__(self) -> None:
        for name, least in (("base", 2), ("doublings", 0), ("sweeps", 1), ("samples", 2)):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise ArgumentError(f"{name} must be an integer of at least {least}, got {getattr(self, name)!r}")
        if not 0 < self.bottom < 1:
            raise ArgumentError(f"bottom must lie in (0, 1), got {self.bottom!r}")

    def __call__(self, problem: Problem) -> Plan:
        """The plan; where the budget ends, the grid as it stands is taken."""
        path, steps = problem.denoiser.path, intervals(problem.denoiser.path, self.solver, problem.evaluations)
        klub = Klub(problem, self.samples, self.spread)
        start, ends = problem.pairs(problem.samples, part=1)

        def wanted(levels: Tensor) -> Plan:
            return plan_on(path, self.solver, levels if len(levels) - 1 == steps else interpolated(levels, steps))

        def error(levels: Tensor) -> float:
            return problem.error(wanted(levels), start, ends)

        best, least = self._first(problem, klub, error)
        levels = best
        for _ in range(self.doublings):
            if len(levels) - 1 >= steps and steps % self.base == 0:
                break
            name = f"{2 * len(levels) - 2} steps"
            if name not in problem.state and not problem.left(self._cost(problem, len(levels) - 1)):
                break
            problem.tell(f"refining to {name}")
            levels = problem.once(name, partial(sweep, klub, halved(levels), range(1, 2 * len(levels) - 2, 2)))
            got = problem.once(f"error of {name}", partial(error, levels))
            if got < least:
                best, least = levels, got
        return wanted(best)

    def _cost(self, problem: Problem, nodes: int) -> int:
        """The most that a sweep over so many nodes costs: two intervals a place, two answers a sample; and its runs."""
        answers = problem.run_cost(PLACES * 2 * 2, self.samples)
        return nodes * (answers + problem.run_cost(problem.evaluations, problem.samples))

    def least(self, problem: Problem) -> int:
        """The flow's ends, data where none are given, and one run."""
        run = problem.run_cost(problem.evaluations, problem.samples)
        return problem.pairs_cost(problem.samples) + problem.clean_cost(self.samples) + run

    def _first(self, problem: Problem, klub: Klub, error: Callable[[Tensor], float]) -> tuple[Tensor, float]:
        """The grid of `base` steps at which descent stopped, and the sampler's error there."""
        now = problem.state.get("first")
        if now is None:
            levels = karras_levels(problem.denoiser.path, self.base + 1, bottom=self.bottom)
            now = {"sweep": 0, "width": 1.0, "best": levels, "levels": levels, "error": error(levels), "done": False}
        while now["sweep"] < self.sweeps and not now["done"] and problem.left(self._cost(problem, self.base - 1)):
            levels, best, least = now["levels"], now["best"], now["error"]
            for i in range(1, self.base):
                levels = sweep(klub, levels, range(i, i + 1), now["width"])
                got = error(levels)
                best, least = (levels, got) if got < least else (best, least)
            bound = sum(klub(float(low), float(high)) for high, low in pairwise(levels))
            problem.record(bound)
            problem.tell(f"sweep {now['sweep'] + 1}: bound {bound:.4g}, the sampler's least error {least:.4g}")
            still = torch.equal(levels, now["levels"])
            done = (still and now["width"] < 0.2) or (not still and least == now["error"])
            now = {
                "sweep": now["sweep"] + 1, "width": now["width"] / 2 if still else now["width"], "levels": levels,
                "best": best, "error": least, "done": done,
            }  # fmt: skip
            problem.keep(first=now, bounds=klub.known())
        problem.keep(first=now)
        return now["best"], now["error"]

    def untuned(self, problem: Problem) -> Plan:
        """The same solver on Karras' grid."""
        return make_plan(problem.denoiser.path, self.solver, "karras", evaluations=problem.evaluations)
