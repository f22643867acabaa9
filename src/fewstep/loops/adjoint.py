"""AdjointDEIS: the gradient of a loss on samples, by solving the adjoint equation with exponential integrators.

A plan's samples come out differentiable in the start, in conditions and in the network's weights without the graph of
the run: backwards, a = ∂L/∂x goes from each time t of the grid to the noisier s before it, asking the network once, at
the state that the run had at t (Blasingame & Liu 2024).  With h = λ_s − λ_t < 0, V at t and V_r at the time r before,

    eps   V = α²·aᵀ∂ε̂/∂x      a_s = (α/α_s)·a + (σ_s/α_s²)(e^h − 1)·(V + (h/2)(V − V_r)/(λ_t − λ_r))
    x0    V = aᵀ∂x̂₀/∂x        a_s = (σ/σ_s)·a + (1/σ_s)∫ (ασ′ − σα′)(V + (τ − t)(V − V_r)/(t − r)) dτ   over [t, s].

"eps" is as published; its V changes like α² at the noisy end, where it needs many steps.  "x0" is ours, from the same
equation in x̂₀; there V hardly changes at either end, and α_s may be 0.  Order 1 leaves V − V_r out.  A condition or a
weight z gathers the like of V with ∂z for ∂x.  For a plan of the reverse equation with its full noise the network's
part counts twice.  The last step, x = x̂₀ at σ′ = 0, is differentiated itself.  Kept are the states of all times.

This is the gradient of the continuous flow: it differs from the run's own, which `sample` with grad=True gives, by the
errors of both.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.grids import Grid
from fewstep.loops.adjoint_weights import WEIGHTS
from fewstep.loops.base import Loop, Walk, refuse_moving_guides, refuse_ordered_guides
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.results import Stats
from fewstep.session import Session

# Plans of the reverse equation with its full noise, whose drift has the score twice.
FULL_NOISE = ("ddpm", "sde-dpm-solver++")


@method(
    name="adjoint-deis", papers=["AdjointDEIS: Efficient Gradients for Diffusion Models"], arxiv="2405.15020",
    family="loops", order=2,
    summary="Differentiable samples without the graph of the run: the adjoint equation is solved backwards.",
)  # fmt: skip
@dataclass(frozen=True)
class Adjoint(Loop):
    """A plan whose samples are differentiable by the adjoint equation.

    Args:
        order: 1 or 2 of the adjoint's integrator.
        form: "x0", or "eps" as published.
        solver, grid: the names of the plan's solver and grid.
        steps: its number of steps, at least 2.
        begin: its first time, in (0, 1]; in the form "eps" α must be more than 0 there.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    order: int = 2
    form: str = "x0"
    solver: str = "ddim"
    grid: str | Grid = "logsnr"
    steps: int = 20
    begin: float = 1.0

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ArgumentError(f"order must be 1 or 2, got {self.order!r}")
        if self.form not in WEIGHTS:
            raise ArgumentError(f"form must be 'x0' or 'eps', got {self.form!r}")
        if not isinstance(self.steps, int) or self.steps < 2:
            raise ArgumentError(f"steps must be an integer of at least 2, got {self.steps!r}")

    def opening(self, path: Path) -> Plan:
        """The plan that is run."""
        plan = make_plan(path, self.solver, self.grid, self.steps, start=self.begin)
        if self.form == "eps" and not float(path.alpha(plan.times[0])) > 0:
            raise ArgumentError(f"the form 'eps' divides by α, which is 0 at t = {self.begin}: give begin below it")
        if plan.stochastic and self.solver not in FULL_NOISE:
            raise ArgumentError(f"adjoint-deis takes solvers without noise, or {' and '.join(FULL_NOISE)}")
        return replace(plan, source={**plan.source, **asdict(self), "loop": "adjoint-deis"})

    def run(self, session: Session) -> tuple[Tensor, Plan, Stats]:
        """The plan's samples, with the adjoint equation for a gradient."""
        refuse_ordered_guides(session, "adjoint-deis")
        refuse_moving_guides(session, "adjoint-deis")
        names = [k for k, v in session.cond.items() if isinstance(v, Tensor) and v.requires_grad]
        net = getattr(session.program.denoiser, "net", None)
        weights = [p for p in net.parameters() if p.requires_grad] if isinstance(net, nn.Module) else []
        work = _Work(self, session, names, weights)
        with torch.enable_grad():
            x = _Flow.apply(work, session.start, *(session.cond[k] for k in names), *weights)
        return x, session.program.plan, Stats(work.evaluations, 0.0)


class _Work:
    """A run and what its gradient needs: the state at every distinct time of the plan, and those times."""

    def __init__(self, loop: Adjoint, session: Session, names: list[str], weights: list[Any]) -> None:
        self.loop, self.session, self.names, self.weights = loop, session, names, weights
        self.states: list[Tensor] = []
        self.times: list[float] = []
        self.evaluations = 0

    def forward(self, start: Tensor) -> Tensor:
        """The samples."""
        session = replace(self.session, start=start)
        self.states, self.times = [start], [float(session.program.plan.times[0])]
        for event in session.events():
            self.evaluations = event.evaluations
            if float(event.t) < self.times[-1]:
                self.states.append(event.x)
                self.times.append(float(event.t))
            else:
                self.states[-1] = event.x
        return self.states[-1]

    def _pull(self, a: Tensor, index: int) -> list[Tensor]:
        """[aᵀ∂x̂₀/∂x, aᵀ∂x̂₀/∂z …] at the state of time `index`."""
        with torch.enable_grad():
            x = self.states[index].detach().requires_grad_()
            conds = {k: self.session.cond[k].detach().requires_grad_() for k in self.names}
            walk = Walk(replace(self.session, cond={**self.session.cond, **conds}))
            x0, _ = walk.ask(x, torch.tensor(self.times[index], dtype=torch.float64))
            wanted = [x, *conds.values(), *self.weights]
            pulled = torch.autograd.grad(x0, wanted, a, allow_unused=True)
        return [torch.zeros_like(w) if p is None else p for p, w in zip(pulled, wanted, strict=True)]

    def backward(self, a: Tensor) -> list[Tensor]:
        """∂L/∂start, ∂L/∂z … from a = ∂L/∂x."""
        plan, times = self.session.program.plan, self.times
        a, *totals = self._pull(a, len(times) - 2)
        before: list[Tensor] | None = None
        for at in range(len(times) - 2, 0, -1):
            older = times[at + 1] if self.loop.order == 2 and before is not None else None
            weights = WEIGHTS[self.loop.form](plan.path, times[at], times[at - 1], older, plan.stochastic)
            own, *others = self._pull(a, at)
            values = [weights.value_a * a + weights.value_x * own, *(weights.value_z * v for v in others)]
            change = [v - r for v, r in zip(values, before or values, strict=True)]
            a = weights.carry * a + weights.now_x * values[0] + weights.change_x * change[0]
            pairs = zip(totals, values[1:], change[1:], strict=True)
            totals = [z + weights.now_z * v + weights.change_z * d for z, v, d in pairs]
            before = values
        return [a, *totals]


class _Flow(torch.autograd.Function):
    """x = plan(start); its gradient is the adjoint's."""

    @staticmethod
    def forward(ctx: Any, work: _Work, start: Tensor, *_: Tensor) -> Tensor:
        ctx.work = work
        return work.forward(start)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.work.backward(grads[0]))
