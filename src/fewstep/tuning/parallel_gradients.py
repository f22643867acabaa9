"""EPD: a step asks the network at several inner points at once, and learns where they are and how they are weighed.

In coordinates where the flow is dy/ds = d = (y − x̂₀)/s (y = x/k and s = σ/k, with k = α, or k = α + σ where the grid
begins at α = 0), a step from s to s′ is (Zhu et al. 2025)

    y_k = y + (s_k − s)·D,      s_k = s^{1−r_k}·s′^{r_k},      D = d(y, s)
    y′  = y + (s′ − s)·Σ_k w_k·o_k·d_k,      d_k = (y_k − x̂₀(y_k, told c_k·s_k))/s_k

with learned 0 < r_k < 1, weights w_k ≥ 0 of sum 1, and factors c_k and o_k near 1 of the time that the network is told
and of the direction.  The K asks at inner points do not depend on each other and run as one batch, so that a step takes
as long as two evaluations whatever K is, and costs 1 + K.  The plugin gets to the inner points by the Adams–Bashforth
method on d with up to four of the earlier D (iPNDM) and not by Euler's.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.planning import make_plan
from fewstep.tuning.adam import descend
from fewstep.tuning.pairs import Pairs
from fewstep.tuning.problem import Problem, Tuner

# The step to s′ = 0 takes its points as if it ended at this part of the s that it begins at.
FLOOR = 0.1
# The network is told no level above this part of the noisiest.
TOP = 0.999
ADAMS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
DEVIATES = "directions are scaled and told times shifted by learned factors, so that a step lands on its path nearly"


def parallel_plan(
    path: Path, times: Tensor, places: Tensor, weights: Tensor, told: Tensor, scales: Tensor, history: int = 1
) -> Plan:
    """The plan of given numbers; differentiable in them.

    Args:
        path: any.
        times: float64 (steps + 1,), falling.
        places: r, float64 (steps, K), in (0, 1).
        weights: w, (steps, K).
        told: c, (steps, K).
        scales: o, (steps, K).
        history: how many D the way to the inner points looks at, 1 to 4.
    """
    steps, count = places.shape
    rho = bool(path.alpha(times[0]) > 0)

    def level(t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = path.alpha(t), path.sigma(t)
        k = alpha if rho else alpha + sigma
        return k, sigma / k

    def time(s: Tensor) -> Tensor:
        return path.t_of_lam(-s.log() if rho else torch.log1p(-s) - s.log())

    k, s = level(times)
    end = torch.where(s[1:] > 0, s[1:], FLOOR * s[:-1])
    inner = s[:-1, None] ** (1 - places) * end[:, None] ** places
    asked = torch.minimum(told * inner, TOP * s[0])
    k_inner = level(time(inner))[0]
    points, kept = [f"u{j}" for j in range(count)], [f"d{j}" for j in range(1, history)]
    builder = Builder(torch.cat([times[:-1].repeat_interleave(2), times[-1:]]), ("x", *points, *kept))
    first, second = (range(row, 2 * steps, 2) for row in (0, 1))
    adams = _adams(steps, history)
    builder.ask("x", times[:-1], first)
    for j, point in enumerate(points):
        jump, ask, over = inner[:, j] - s[:-1], k_inner[:, j], 1 / s[:-1]
        builder.add(point, "x", ask / k[:-1] * (1 + jump * over * adams[:, 0]), first)
        builder.add(point, 0, -ask * jump * over * adams[:, 0], first)
        for back, name in enumerate(kept, 1):
            builder.add(point, name, (ask * jump * adams[:, back])[back:], first[back:])
        builder.ask(point, time(asked[:, j]), second, slot=j)
        share = k[1:] * (s[1:] - s[:-1]) * weights[:, j] * scales[:, j] / inner[:, j]
        builder.add("x", point, share / ask, second)
        builder.add("x", j, -share, second)
    builder.add("x", "x", k[1:] / k[:-1], second)
    if kept:
        builder.add("d1", "x", 1 / (k * s)[:-1], first)
        builder.add("d1", 0, -1 / s[:-1], first)
    for back, name in enumerate(kept[1:], 1):
        builder.add(name, f"d{back}", 1.0, first[back:])
    source: dict[str, Any] = {"solver": "epd", "directions": count, "history": history}
    return Plan.build(path, builder, order=1, source=source, deviates=DEVIATES)


def _adams(steps: int, history: int) -> Tensor:
    """The weights of D now and before in every step, (steps, 4)."""
    rows = [ADAMS[min(i + 1, history) - 1] for i in range(steps)]
    return torch.tensor([row + (0.0,) * (4 - len(row)) for row in rows], dtype=torch.float64)


@method(
    name="epd", papers=["Distilling Parallel Gradients for Fast ODE Solvers of Diffusion Models"], arxiv="2507.14797",
    family="tuning", summary="Learn inner points of a step, asked as one batch, and their weights: EPD.",
)  # fmt: skip
@method(
    name="epd-plugin", papers=["Distilling Parallel Gradients for Fast ODE Solvers of Diffusion Models"],
    arxiv="2507.14797", family="tuning", history=4,
    summary="Learn inner points that iPNDM leads to, asked as one batch, and their weights: the EPD plugin.",
)  # fmt: skip
@dataclass(frozen=True)
class ParallelGradients(Tuner):
    """Learned parallel directions (Zhu et al. 2025), by the error at the end through the whole run.

    It begins with points even in log s, equal weights and factors of 1, where the published code draws them at random.

    Args:
        directions: K, at least 1; a step costs 1 + K evaluations and takes as long as two.
        history: how many D lead to the inner points, 1 (Euler) to 4 (the plugin).
        told: how far the told time may be scaled, in [0, 1); 0 for a network that knows only some times.
        scaled: how far the directions may be scaled, in [0, 1).
        grid: the nodes.
        rounds: steps of the optimiser, unless the budget ends before.
        rate: its learning rate.
        batch: noises a step of it.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    directions: int = 2
    history: int = 1
    told: float = 0.05
    scaled: float = 0.05
    grid: str = "uniform"
    rounds: int = 300
    rate: float = 0.05
    batch: int = 32

    def __post_init__(self) -> None:
        if self.directions < 1:
            raise ArgumentError(f"directions must be at least 1, got {self.directions!r}")
        if self.history not in (1, 2, 3, 4):
            raise ArgumentError(f"history must be 1, 2, 3 or 4, got {self.history!r}")
        for name in ("told", "scaled"):
            if not 0 <= getattr(self, name) < 1:
                raise ArgumentError(f"{name} must lie in [0, 1), got {getattr(self, name)!r}")

    def untuned(self, problem: Problem) -> Plan:
        """The plan that it begins with."""
        return self._plan(problem.denoiser.path, self._begin(problem))

    def least(self, problem: Problem) -> int:
        """The flow's ends, and one batch."""
        return Pairs.least(problem, self.batch)

    def __call__(self, problem: Problem) -> Plan:
        """The tuned plan, of as many steps as the evaluations allow."""
        pairs, thetas = Pairs(problem, self.batch), self._begin(problem).requires_grad_()
        path = problem.denoiser.path
        rounds = pairs.affordable(self.rounds)
        descend([thetas], lambda: pairs.error(self._plan(path, thetas)), rounds, self.rate, **pairs.options)
        return self._plan(path, thetas.detach())

    def _begin(self, problem: Problem) -> Tensor:
        """The free numbers of the start, float64 (4, steps, K)."""
        steps, count = problem.evaluations // (1 + self.directions), self.directions
        if steps < 1:
            raise ArgumentError(f"a step costs {1 + count} evaluations, got evaluations={problem.evaluations}")
        even = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        zero = torch.zeros(steps, count, dtype=torch.float64)
        return torch.stack([even.logit() + zero, zero, zero, zero])

    def _plan(self, path: Path, thetas: Tensor) -> Plan:
        times = make_plan(path, "ddim", self.grid, thetas.shape[1]).times
        places, weights = thetas[0].sigmoid(), thetas[1].softmax(1)
        told, scales = (1 + a * (theta / 2).tanh() for a, theta in ((self.told, thetas[2]), (self.scaled, thetas[3])))
        return parallel_plan(path, times, places, weights, told, scales, self.history)
