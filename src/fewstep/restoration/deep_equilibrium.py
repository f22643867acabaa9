"""DeqIR: DDNM's whole chain as one system of equations, solved for all noise levels at once.

With P = A†A, DDNM's step from level j is x_{j+1} = α_{j+1}(x̂₀ + A†(y − A x̂₀)) + c₂·ε̂ + c₁·ξ_j, c₁ = η·σ_{j+1}, c₂ =
√(1 − η²)·σ_{j+1}, ε̂ from the unchanged x̂₀.  Unrolled from x₁ = the step from the start, it is X = F(X):

    (1 − P)x_{i+1} = α_{i+1}·(1 − P)[x₁/α₁ + Σ_{1≤j≤i} (c₂/α_{j+1} − σ_j/α_j)·ε̂(x_j) + c₁/α_{j+1}·ξ_j]
    P x_{i+1}      = α_{i+1}·A†y + P(c₂·ε̂(x_i) + c₁·ξ_i)

All ε̂ of a round are one batch.  Rounds are joined by Anderson's rule: of the last m rounds the weights θ with Σθ = 1
that make ‖Σθ(F(X) − X)‖² least (plus a ridge), X ← Σθ·((1 − β)X + β·F(X)).  x_{j+1} depends on levels before it alone,
so that as many plain rounds as there are steps give DDNM's chain itself, and a tolerance needs fewer.

The chain's gradient with respect to its start follows from the solution alone: λ = ∂L/∂X + (∂F/∂X)ᵀλ, which as many
rounds solve exactly, and then ∂L/∂x_start = (∂F/∂x_start)ᵀλ.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.loops.base import Walk, refuse_moving_guides, refuse_ordered_guides
from fewstep.loops.picard import ParallelStats, _gathered
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.restoration.base import RestorationLoop, levels
from fewstep.restoration.ddnm import redrawing
from fewstep.restoration.measurement import Measurement, observed_share
from fewstep.results import Stats
from fewstep.session import Session, prepare


class Chain:
    """F of the module's equations for one batch.

    Args:
        session: what `prepare` made, on the plan of the chain.
        measurement: one row a sample.
        eta: η.
    """

    def __init__(self, session: Session, measurement: Measurement, eta: float) -> None:
        plan, like = session.program.plan, session.start
        self.steps, self.rows, self.measurement, self.path = plan.steps, len(like), measurement, plan.path
        alpha, sigma = (torch.tensor(v, dtype=torch.float64) for v in zip(*levels(plan.path, plan.times), strict=True))
        drawn, kept = eta * sigma[1:], math.sqrt(1 - eta**2) * sigma[1:]
        self._numbers = [
            v.to(like.device, like.dtype).reshape(-1, *[1] * like.ndim)
            for v in (alpha, sigma, drawn, kept, kept / alpha[1:] - sigma[:-1] / alpha[:-1].clamp_min(1e-300))
        ]
        self._known = measurement.project(measurement.seen(like)).expand_as(like)
        self._noise = like.new_zeros(self.steps, *like.shape)
        if eta > 0:
            self._noise = torch.stack([session.noise.step(j, 0.0, 0.0) for j in range(self.steps)])
        row = torch.arange(self.rows).repeat(self.steps)
        step = torch.arange(self.steps).repeat_interleave(self.rows)
        self._walk = Walk(_gathered(session, row, step))
        self._times = plan.times[:-1][step]

    @property
    def evaluations(self) -> int:
        """The network's evaluations a sample so far."""
        return self._walk.evaluations * self.steps

    def sweep(self, states: Tensor, start: Tensor) -> Tensor:
        """F(X): the states x₁ … x_N from guesses of them, both (steps, batch, *shape), and the start x₀."""
        alpha, sigma, drawn, kept, drift = self._numbers
        asked = torch.cat([start[None], states[:-1]])
        x0 = self._walk.ask(asked.flatten(0, 1), self._times)[0].reshape(asked.shape)
        eps = (asked - alpha[:-1] * x0) / sigma[:-1]
        free = drift * eps + drawn / alpha[1:] * self._noise
        # The first step is taken from x̂₀, so that it may begin where α = 0.
        first = x0[:1] + (kept * eps + drawn * self._noise)[:1] / alpha[1]
        unseen = alpha[1:] * torch.cat([first, free[1:]]).cumsum(0)
        seen = kept * eps + drawn * self._noise
        return unseen + self._observed(seen - unseen) + alpha[1:] * self._known

    def _observed(self, x: Tensor) -> Tensor:
        return observed_share(self.measurement, x.flatten(0, 1)).reshape(x.shape)


def anderson(guesses: list[Tensor], images: list[Tensor], beta: float, ridge: float) -> Tensor:
    """Σθ·((1 − β)X + β·F(X)) with the weights of least residual, every sample by itself.

    Args:
        guesses, images: the last X and F(X), each (steps, batch, *shape).
        beta: β in (0, 1].
        ridge: added to the diagonal of the residuals' products, in units of its mean.
    """
    off = torch.stack([(f - x).transpose(0, 1).flatten(1) for x, f in zip(guesses, images, strict=True)], 1)
    products = (off @ off.mT).double()
    size = products.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-300)
    eye = torch.eye(len(guesses), dtype=torch.float64, device=off.device)
    solved = torch.linalg.solve(products / size[:, None, None] + ridge * eye, eye.new_ones(len(off), len(guesses), 1))
    theta = (solved / solved.sum(1, keepdim=True)).to(off.dtype)[..., 0].mT  # (m, batch)
    places = theta.reshape(len(guesses), 1, -1, *[1] * (guesses[0].ndim - 2))
    mixed = [(1 - beta) * x + beta * f for x, f in zip(guesses, images, strict=True)]
    return (places * torch.stack(mixed)).sum(0)


@method(
    name="deq", papers=["Deep Equilibrium Diffusion Restoration with Parallel Sampling"], arxiv="2311.11600",
    family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class DeepEquilibrium(RestorationLoop):
    """DDNM's chain as a fixed point, found in a few rounds that ask all noise levels at once (Cao et al. 2024).

    Args:
        measurement: linear; taken as free of noise.
        steps: N, the steps of the chain, at least 1; the paper has 25 and fewer.
        eta: η in [0, 1], the share of noise drawn afresh.
        rounds: at most so many, at least 1.
        memory: m ≥ 1 of Anderson's rule; 1 is plain iteration.
        beta: β in (0, 1]; 1 as published, 0.9 where the start is optimised.
        ridge: of Anderson's weights, in units of the mean squared residual; published 0.001 in units of x.
        tolerance: a sample stands still once ‖F(X) − X‖ ≤ tolerance·‖F(X)‖.

    Raises:
        ArgumentError: a parameter out of its range, or an operator that is not linear.
    """

    budget: ClassVar[int] = 375
    measurement: Measurement
    steps: int = 25
    eta: float = 0.0
    rounds: int = 15
    memory: int = 5
    beta: float = 1.0
    ridge: float = 1e-6
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        redrawing(self.eta)
        if min(self.steps, self.rounds, self.memory) < 1:
            raise ArgumentError(
                f"steps, rounds and memory must be at least 1, got {self.steps}, {self.rounds}, {self.memory}"
            )
        if not (0 < self.beta <= 1 and self.ridge > 0 and self.tolerance >= 0):
            raise ArgumentError(
                f"beta must lie in (0, 1], ridge above 0 and tolerance at least 0, got {self.beta}, {self.ridge}, "
                f"{self.tolerance}"
            )
        self.measurement.need_linear("deq")

    def spending(self, evaluations: int) -> Self:
        steps = max(n for n in range(1, self.steps + 1) if n == 1 or n * min(self.rounds, n) <= evaluations)
        return replace(self, steps=steps, rounds=min(self.rounds, evaluations // steps))

    def opening(self, path: Path) -> Plan:
        """The chain's times, evenly spaced."""
        return make_plan(path, "ddim", "uniform", self.steps)

    def run(self, session: Session) -> tuple[Tensor, Plan, Stats]:
        """Rounds until every sample stands still."""
        chain = self._chain(session)
        states, count = self.solve(chain, session.start)
        each = (chain.evaluations,) * len(session.start)
        return states[-1], session.program.plan, ParallelStats(chain.evaluations, 0.0, count, each)

    def _chain(self, session: Session) -> Chain:
        refuse_ordered_guides(session, "deq")
        refuse_moving_guides(session, "deq")
        return Chain(session, self.measurement, self.eta)

    def solve(self, chain: Chain, start: Tensor) -> tuple[Tensor, int]:
        """(x₁ … x_N, rounds) of the fixed point from the start x₀; the states begin as x₀ itself."""
        guess = start.expand(chain.steps, *start.shape)
        found = guess
        moving = torch.ones(len(start), dtype=torch.bool, device=start.device)
        guesses: list[Tensor] = []
        images: list[Tensor] = []
        count = 0
        while count < self.rounds:
            count += 1
            image = chain.sweep(guess, start)
            found = torch.where(moving.reshape(1, -1, *[1] * (start.ndim - 1)), image, found)
            off, size = ((v.transpose(0, 1).flatten(1)).norm(dim=1) for v in (image - guess, image))
            moving = moving & (off > self.tolerance * size)
            if not bool(moving.any()):
                break
            guesses, images = [*guesses, guess][-self.memory :], [*images, image][-self.memory :]
            guess = anderson(guesses, images, self.beta, self.ridge)
        return found, count

    def from_start(
        self, denoiser: Denoiser, start: Tensor, cond: Mapping[str, Any] | None = None, seed: int = 0
    ) -> Tensor:
        """The restored samples as a differentiable function of the start, at the memory of one round.

        Args:
            denoiser: the model.
            start: (batch, *shape), the state at the first time; one row of the measurement each.
            cond, seed: as in `restore`.
        """
        plan = self.opening(denoiser.path)
        chain = self._chain(prepare(denoiser, None, plan=plan, start=start.detach(), cond=cond, seed=seed))
        with torch.no_grad():
            solved, _ = self.solve(chain, start.detach())
        at = solved.detach().requires_grad_()
        with torch.enable_grad():
            inner = chain.sweep(at, start.detach())
            states = chain.sweep(solved.detach(), start)

        def adjoint(grad: Tensor) -> Tensor:
            total = grad
            for _ in range(self.steps):
                (back,) = torch.autograd.grad(inner, at, total, retain_graph=True)
                moved, total = total, grad + back
                if bool((total - moved).norm() <= 1e-9 * total.norm()):
                    break
            return total

        if states.requires_grad:
            states.register_hook(adjoint)
        return states[-1]
