"""Bespoke solvers: a Runge–Kutta method on the flow, in a scale and a time that are learned for the model.

With r from 0 (noise) to 1 (data), h = 1/n, learned times t_r, paces p = −dt/dr > 0, scales s_r > 0 and their slopes
g = ds/dr, the method steps x̄ = s·x(t_r), whose flow is ū = (g/s)·x̄ + p·s·u with u = −dx/dt (Shaul et al. 2024):

    RK1    x′ = [(s + h·g)·x + h·p·s·u(x, t)]/s′
    RK2    z  = [(s + h/2·g)·x + h/2·p·s·u(x, t)]/s_½
           x′ = [s·x + h·(g_½·z + p_½·s_½·u(z, t_½))]/s′

t, p, s and g are free numbers at every node, 4n − 1 of them for RK1 and 8n − 1 for RK2.  The order of the base method
holds whatever they are, as long as they are those of smooth functions of r.  The loss bounds the error at the end by
the errors d_i of single steps along the exact flow, and by how much later steps can amplify them:

    Σ_i d_i·Π_{j≥i} L_j,    RK1  L_j = (s/s′)(1 + h·ℓ),    RK2  L_j = (s/s′)(1 + h·ℓ_½(1 + h/2·ℓ)),    ℓ = |g|/s + p·L.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.grids.logsnr import LogSNR
from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.planning import make_plan
from fewstep.sampling import stream
from fewstep.tuning.adam import descend
from fewstep.tuning.pairs import rows_of
from fewstep.tuning.problem import Problem, Tuner

FINE = 128
DEVIATES = "times and scales are free of their slopes, so that a step lands on its path only as nearly as it is exact"


@dataclass(frozen=True)
class ScaleTime:
    """The numbers of a bespoke solver of some steps.

    Args:
        path: where it runs.
        stages: 1 (RK1) or 2 (RK2, whose nodes stand half a step apart).
        h: the length of a step in r.
        times: t at the nodes, float64 (steps·stages + 1, *place), falling.
        scales: s there, of the same shape, more than 0.
        paces: −dt/dr at all nodes but the last.
        growths: ds/dr there.
    """

    path: Path
    stages: int
    h: float
    times: Tensor
    scales: Tensor
    paces: Tensor
    growths: Tensor

    @staticmethod
    def of(
        path: Path, stages: int, steps: int, time: Callable[[Tensor], Tensor], scale: Callable[[Tensor], Tensor]
    ) -> "ScaleTime":
        """Those of smooth functions t(r) and s(r), r in [0, 1], with their slopes."""
        r = torch.linspace(0, 1, steps * stages + 1, dtype=torch.float64).requires_grad_()
        values, slopes = [], []
        with torch.enable_grad():
            for function in (time, scale):
                value = function(r) + 0 * r
                values.append(value.detach())
                slopes.append(torch.autograd.grad(value.sum(), r)[0][:-1])
        return ScaleTime(path, stages, 1 / steps, values[0], values[1], -slopes[0], slopes[1])

    @staticmethod
    def identity(path: Path, stages: int, steps: int) -> "ScaleTime":
        """Those of the base method itself on the path's own flow."""
        return ScaleTime.of(path, stages, steps, lambda r: 1 - r, torch.ones_like)

    def plan(self) -> Plan:
        """The solver as a plan."""
        s, g, h = self.scales, self.growths, self.h
        on_x, on_answer = self._velocity()
        if self.stages == 1:
            builder = Builder(self.times, ("x",))
            builder.ask("x")
            builder.add("x", "x", (s[:-1] + h * g + h * on_x) / s[1:])
            builder.add("x", 0, h * on_answer / s[1:])
        else:
            start, half, end = s[:-1:2], s[1::2], s[2::2]
            nodes = self.times[:-1:2].repeat_interleave(2, 0)
            builder = Builder(torch.cat([nodes, self.times[-1:]]), ("x", "z"))
            first, second = (range(k, 2 * len(end), 2) for k in (0, 1))
            builder.ask("x", self.times[:-1:2], first)
            builder.add("z", "x", (start + h / 2 * (g[::2] + on_x[::2])) / half, first)
            builder.add("z", 0, h / 2 * on_answer[::2] / half, first)
            builder.ask("z", self.times[1::2], second)
            builder.add("x", "x", start / end, second)
            builder.add("x", "z", h * (g[1::2] + on_x[1::2]) / end, second)
            builder.add("x", 0, h * on_answer[1::2] / end, second)
        return Plan.build(self.path, builder, order=self.stages, source={"solver": "bespoke"}, deviates=DEVIATES)

    def _velocity(self) -> tuple[Tensor, Tensor]:
        """The factors of x and x̂₀ in p·s·u at all nodes but the last."""
        t = self.times[:-1]
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        over = self.path.d_sigma(t) / sigma
        along = self.paces * self.scales[:-1]
        return -along * over, -along * (self.path.d_alpha(t) - alpha * over)

    def apart(self, batch: int, dims: int) -> "ScaleTime":
        """All steps beside each other: one step whose place is (steps·batch, 1 …), step by step."""
        steps = (len(self.times) - 1) // self.stages

        def beside(values: Tensor, ends: int) -> Tensor:
            rows = [values[k : k + self.stages * steps : self.stages][:steps] for k in range(self.stages + ends)]
            wide = torch.stack(rows).repeat_interleave(batch, 1)
            return wide.reshape(*wide.shape, *[1] * dims)

        return replace(
            self, times=beside(self.times, 1), scales=beside(self.scales, 1), paces=beside(self.paces, 0),
            growths=beside(self.growths, 0),
        )  # fmt: skip

    def amplification(self, lipschitz: float) -> Tensor:
        """What an error after each step can grow to at the end, (steps,)."""
        bound = self.growths.abs() / self.scales[:-1] + self.paces * lipschitz
        s, h, k = self.scales, self.h, self.stages
        inner = bound if k == 1 else bound[1::2] * (1 + h / 2 * bound[::2])
        grows = s[:-1:k] / s[k::k] * (1 + h * inner)
        after = torch.cat([grows[1:], torch.ones_like(grows[:1])])
        return after.flip(0).cumprod(0).flip(0)


class Flowlines:
    """The model's flow from some noises as a function of time, differentiable in it.

    Between the nodes of a fine grid the states are cubic in t with the flow's own slopes at both ends, and so the slope
    in t is the flow's velocity; the last interval, where the velocity may be infinite, is straight.

    Args:
        problem: the model.
        start: (batch, *shape), the noises.
    """

    def __init__(self, problem: Problem, start: Tensor) -> None:
        path = problem.denoiser.path
        plan = make_plan(path, "dpm-solver++3m", LogSNR(rho_min=0.003, rho_max=2000.0), FINE)
        cond = problem.condition(len(start))
        states, answers = [start], []
        for event in stream(problem.denoiser, start=start, plan=plan, cond=cond, guides=problem.guides):
            states.append(event.x)
            answers.append(event.x0)
        problem.spent += event.evaluations * len(start)
        self.times, self.states = plan.times, torch.stack(states)
        t = plan.times[:-1].reshape(-1, *[1] * start.ndim)
        over = path.d_sigma(t) / path.sigma(t)
        slopes = over * self.states[:-1] + (path.d_alpha(t) - path.alpha(t) * over) * torch.stack(answers)
        self.slopes = torch.cat([slopes, slopes[-1:]])

    def at(self, times: Tensor, rows: Tensor) -> Tensor:
        """The states of some rows at times (k,), (k, rows, *shape)."""
        right = torch.searchsorted(-self.times, -times.detach().contiguous()).clamp(1, FINE)
        dims = [1] * (self.states.ndim - 1)
        first, last = self.times[right - 1], self.times[right]
        width = (last - first).reshape(-1, *dims)
        u = ((times - first) / (last - first)).reshape(-1, *dims)
        a, b = self.states[right - 1][:, rows], self.states[right][:, rows]
        m, n = self.slopes[right - 1][:, rows] * width, self.slopes[right][:, rows] * width
        bend = torch.where((right == FINE).reshape(-1, *dims), 0.0, u * (1 - u))
        return a + u * (b - a) + bend * ((1 - u) * (m - (b - a)) - u * (n - (b - a)))


@method(
    name="bespoke", papers=["Bespoke Solvers for Generative Flow Models"], arxiv="2310.19075", family="tuning",
    summary="Learn a scale and a time in which two-stage Runge–Kutta is most exact: bespoke RK2.",
)  # fmt: skip
@method(
    name="bespoke-rk1", papers=["Bespoke Solvers for Generative Flow Models"], arxiv="2310.19075", family="tuning",
    stages=1, summary="Learn a scale and a time in which Euler's method is most exact: bespoke RK1.",
)  # fmt: skip
@dataclass(frozen=True)
class Bespoke(Tuner):
    """A Runge–Kutta method in a learned scale and time (Shaul et al. 2024).

    Args:
        stages: 1 (RK1) or 2 (RK2, two evaluations a step).
        learns: "both", or the "time" or the "scale" alone.
        lipschitz: the constant of u that the bound takes.
        rounds: steps of the optimiser, unless the budget ends before.
        rate: its learning rate.
        batch: noises a step of it.

    Raises:
        ArgumentError: stages or what is learned is not one of these.
    """

    stages: int = 2
    learns: str = "both"
    lipschitz: float = 1.0
    rounds: int = 300
    rate: float = 0.01
    batch: int = 16

    def __post_init__(self) -> None:
        if self.stages not in (1, 2):
            raise ArgumentError(f"stages must be 1 or 2, got {self.stages!r}")
        if self.learns not in ("both", "time", "scale"):
            raise ArgumentError(f"learns must be 'both', 'time' or 'scale', got {self.learns!r}")

    def untuned(self, problem: Problem) -> Plan:
        """The base method on the path's own flow, at times even in t."""
        return ScaleTime.identity(problem.denoiser.path, self.stages, problem.evaluations // self.stages).plan()

    def least(self, problem: Problem) -> int:
        """The exact flow's own evaluations, and one round."""
        return problem.run_cost(FINE, problem.samples) + problem.run_cost(problem.evaluations, self.batch)

    def __call__(self, problem: Problem) -> Plan:
        """The tuned plan."""
        if problem.samples < self.batch:
            raise ArgumentError(f"samples must be at least {self.batch}, got {problem.samples}")
        steps = problem.evaluations // self.stages
        size = steps * self.stages
        one, zero = torch.ones(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
        thetas = {"time": one.clone(), "pace": one.clone(), "scale": zero.clone(), "growth": zero.clone()}
        names = {"both": list(thetas), "time": ["time", "pace"], "scale": ["scale", "growth"]}[self.learns]
        learned = [thetas[name].requires_grad_() for name in names]

        def numbers() -> ScaleTime:
            gaps = thetas["time"].abs()
            times = torch.cat([one[:1], 1 - gaps.cumsum(0)[:-1] / gaps.sum(), zero[:1]])
            scales = torch.cat([one[:1], thetas["scale"].exp()])
            return ScaleTime(
                problem.denoiser.path, self.stages, 1 / steps, times, scales, thetas["pace"].abs(), thetas["growth"]
            )

        lines = Flowlines(problem, problem.starts(problem.samples, part=1))
        generator = torch.Generator().manual_seed(problem.seed)

        def loss() -> Tensor:
            rows = torch.randperm(problem.samples, generator=generator)[: self.batch]
            return self.bound(problem, numbers(), lines, rows)

        each = problem.run_cost(problem.evaluations, self.batch)
        descend(
            learned, loss, problem.affordable("batches", self.rounds, each), self.rate, problem=problem,
            generator=generator, keep_best=False, more=lambda: problem.left(each),
        )  # fmt: skip
        with torch.no_grad():
            return numbers().plan()

    def bound(self, problem: Problem, numbers: ScaleTime, lines: Flowlines, rows: Tensor) -> Tensor:
        """The bound on the mean RMSE of some of the flow lines, with gradients; every step begins on the exact flow."""
        nodes = lines.at(numbers.times[:: self.stages], rows)
        steps, wide = len(nodes) - 1, numbers.apart(len(rows), nodes.ndim - 2)
        part = rows_of(problem, rows.tolist() * steps)
        x = part.run(wide.plan(), nodes[:-1].flatten(0, 1), grad=True)
        problem.spent += part.spent
        off = (x.reshape(nodes[1:].shape) - nodes[1:]).flatten(2).square().mean(2).add(1e-14).sqrt().mean(1)
        return (numbers.amplification(self.lipschitz) * off).sum()
