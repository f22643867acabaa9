"""Ensemble Kalman guidance (EnKG): an inverse problem by calls of the forward model alone, no derivative, no adjoint.

In z = x_t/α at σ̄ = σ/α, J particles; at each level, with x̂(z) the end of n_i Euler steps of the flow from z,
g = A(x̂(z)) and bars for means over the particles,

    correct   c_jl = (1/J)·⟨g_j − y, g_l − ḡ⟩,      z_j ← z_j − (w/‖c‖_F)·Σ_l c_jl (z_l − z̄)
    predict   z_j ← x̂₀ + (σ̄′/σ̄)(z_j − x̂₀)

The correction is −C_zg(g − y), the gradient of ½‖A(x̂(z)) − y‖² preconditioned by the ensemble's covariance where
z ↦ A(x̂(z)) is affine; particles never leave the span of their deviations.  Its length is about w·σ̄ however small the
misfit is and however many numbers a sample has: w does not carry over between dimensions, and for the paper's w = 2 on
its pictures an equal one for d numbers is 2√(d/16384).  The ensemble gathers near the posterior's mean; its spread is
not the posterior's, as σ_y is nowhere in it.

An option that is not the paper's, for what a calibrated spread asks for: σ_y, and a step of Kalman's own a correction,

    z_j ← z_j − C_zg(C_gg + n·σ_y²·I)⁻¹(g_j − y + √n·σ_y·ξ_j),      ξ ~ N(0, I),  n corrections in all,

each with the n-th part of the likelihood.  Where z ↦ A(x̂(z)) is affine and the particles Gaussian, all n together are
the posterior as J grows, at whichever levels they stand; the inner flows must be fine for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError, not_finite
from fewstep.grids.karras import descend
from fewstep.loops.questions import Questions
from fewstep.noise import draw
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.search.base import Ending, Search, descending
from fewstep.search.particles import CHOICE, count, number, widened
from fewstep.session import Session


@method(
    name="enkg", papers=["Ensemble Kalman Diffusion Guidance: A Derivative-free Method for Inverse Problems"],
    arxiv="2409.20175", family="search", summary="Ensemble Kalman guidance: inverse problems by black-box calls alone.",
)  # fmt: skip
@dataclass(frozen=True, eq=False)
class EnKG(Search):
    """Ensemble Kalman guidance, on levels of its own.

    Args:
        forward: A, a black box: forward(x) of (batch, *shape) → (batch, …), real and finite.
        y: what was measured, (1, …) for all runs or (runs, …).
        particles: J ≥ 2, more than the directions that matter.
        weight: w > 0, 2 in the paper at 16,384 numbers and more; scaled as said above if `scaled`.
        scaled: whether w is multiplied by √(d/16384) for a sample of d numbers.
        updates: corrections a level, at least 1.
        steps: levels, at least 2.
        inner: the most Euler steps of a correction's inner flow; the i-th of N levels has min(1 + (N − i)//4, inner).
        skip_first, skip_last: the shares of the levels that are not corrected, in [0, 1).
        least: w falls in a line from 1 at the first level to this share of it at the last, in [0, 1].  (The authors'
            code adds the share to w times the line, not times w.)
        noise: σ_y > 0 for Kalman's own steps; weight, scaled and least then say nothing.
        sigma_max, sigma_min: the first level, or the path's own if that is less, and the last one above 0.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    forward: Callable[[Tensor], Tensor]
    y: Tensor
    particles: int = 128
    weight: float = 2.0
    scaled: bool = True
    updates: int = 2
    steps: int = 80
    inner: int = 20
    skip_first: float = 0.05
    skip_last: float = 0.05
    least: float = 0.0
    sigma_max: float = 80.0
    sigma_min: float = 0.002
    noise: float | None = None

    def __post_init__(self) -> None:
        if not callable(self.forward):
            raise ArgumentError(f"forward must be a callable on pictures, got {self.forward!r}")
        if not isinstance(self.y, Tensor) or self.y.ndim < 2 or not bool(self.y.isfinite().all()):
            raise ArgumentError("y must be a finite tensor (1, …) or (runs, …)")
        for name, smallest in (("particles", 2), ("updates", 1), ("steps", 2), ("inner", 1)):
            count(name, getattr(self, name), smallest)
        for name in ("weight", "sigma_max", "sigma_min"):
            number(name, getattr(self, name), open_=True)
        for name in ("skip_first", "skip_last", "least"):
            number(name, getattr(self, name), 0, 1)
        if self.noise is not None:
            number("noise", self.noise, open_=True)

    def opening(self, path: Path) -> Plan:
        """The levels, as a plan of the flow."""
        return descending(path, self.steps, self.sigma_max, self.sigma_min)

    def run(self, session: Session, started: bool) -> Ending:
        """Correct and predict, level by level."""
        if started:
            raise ArgumentError("particles that all begin at one start have no spread to follow: EnKG takes no start")
        if len(self.y) not in (1, len(session.start)):
            raise ArgumentError(f"y has {len(self.y)} rows for {len(session.start)} runs; give one or all")
        return _Kalman(self, widened(session, self.particles, started)).run()


class _Kalman:
    """The particles z of one call."""

    def __init__(self, method: EnKG, wide: Session) -> None:
        self.method, self.plan = method, wide.program.plan
        path, n = self.plan.path, method.steps
        self.path, self.calls, self.number, self.corrections = path, 0, 0, 0
        self.noise = wide.noise
        self.levels = self._told(self.plan.times)
        corrected = [i for i in range(n) if method.skip_first * n <= i < n - method.skip_last * n]
        flows = {i: self._flow(i) for i in corrected}
        self.flows = {i: self._told(times) for i, times in flows.items()}
        asked = []
        for i in range(n):
            asked += list(flows[i][:-1]) * method.updates if i in flows else []
            asked.append(self.plan.times[i])
        self.questions = Questions(wide, torch.stack(asked))
        self.z = wide.start / self.levels[0][0]
        self.y = method.y.to(self.z).repeat_interleave(len(self.z) // len(method.y), 0).flatten(1)

    def _flow(self, level: int) -> Tensor:
        """The times of the inner flow from a level to 0."""
        count_, ratio = min(1 + (self.method.steps - level) // 4, self.method.inner), self.levels[level][1]
        return descend(
            self.path, count_, float(self.plan.times[level]), ratio, min(self.method.sigma_min, ratio / 2), 7.0
        )

    def _told(self, times: Tensor) -> list[tuple[float, float]]:
        """(α, σ̄) of each time."""
        alpha = self.path.alpha(times)
        return list(zip(alpha.tolist(), (self.path.sigma(times) / alpha).tolist(), strict=True))

    def _euler(self, z: Tensor, here: tuple[float, float], there: tuple[float, float]) -> Tensor:
        """One step of the flow between two (α, σ̄); z itself is kept where a guide moved it."""
        alpha, now = here
        x0, asked = self.questions.ask(self.number, alpha * z)
        self.number += 1
        return x0 + there[1] / now * (asked / alpha - x0)

    def _measure(self, x: Tensor) -> Tensor:
        self.calls += 1
        made = torch.as_tensor(self.method.forward(x)).to(x)
        if made.ndim < 1 or len(made) != len(x) or made.flatten(1).shape != self.y.shape:
            raise ArgumentError(
                f"forward makes {tuple(made.shape)} of {len(x)} samples, but y has {self.y.shape[1]} numbers a row"
            )
        if not bool(made.isfinite().all()):
            raise not_finite(made, "the forward model's answers to rows")
        return made.flatten(1)

    def correct(self, level: int) -> None:
        """One Kalman step of all particles."""
        method, end = self.method, self.z
        for here, there in pairwise(self.flows[level]):
            end = self._euler(end, here, there)
        j = method.particles
        g = self._measure(end).reshape(-1, j, self.y.shape[1])
        off, spread = g - self.y.reshape(g.shape), g - g.mean(1, keepdim=True)
        z = self.z.reshape(-1, j, self.z[0].numel())
        if method.noise is not None:
            self.z = (z - self._kalman(off, spread, method.noise) @ (z - z.mean(1, keepdim=True))).reshape(self.z.shape)
            return
        c = off @ spread.mT / j
        w = method.weight * (1 - (1 - method.least) * level / method.steps)
        w *= (z.shape[2] / 16384) ** 0.5 if method.scaled else 1.0
        length = c.flatten(1).norm(dim=1).clamp_min(torch.finfo(c.dtype).tiny)[:, None, None]
        self.z = (z - w / length * (c @ (z - z.mean(1, keepdim=True)))).reshape(self.z.shape)

    def _kalman(self, off: Tensor, spread: Tensor, sigma: float) -> Tensor:
        """What the deviations of z are multiplied by, (runs, J, J): by pushing through, C_zg stays in their span."""
        j, sigma = self.method.particles, sigma * (len(self.flows) * self.method.updates) ** 0.5
        drawn = draw(self.noise.seed, self.noise.samples, off.shape[1:], self.corrections, CHOICE)[:, 0]
        self.corrections += 1
        seen = spread @ spread.mT / j + sigma**2 * torch.eye(j, dtype=spread.dtype, device=spread.device)
        return (off + sigma * drawn.to(off)) @ torch.linalg.solve(seen, spread).mT / j

    def run(self) -> Ending:
        """All levels; the particle of the least misfit is the run's sample."""
        for level in range(self.method.steps):
            for _ in range(self.method.updates if level in self.flows else 0):
                self.correct(level)
            self.z = self._euler(self.z, self.levels[level], self.levels[level + 1])
        j = self.method.particles
        scores = -(self._measure(self.z) - self.y).double().square().sum(1).reshape(-1, j)
        particles, at = self.z.reshape(-1, j, *self.z.shape[1:]), torch.arange(len(scores), device=self.z.device)
        chosen = scores.argmax(1)
        return Ending(
            particles[at, chosen], j * self.questions.evaluations, j * self.calls, scores[at, chosen], particles, scores
        )
