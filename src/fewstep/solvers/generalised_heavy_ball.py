"""Generalised heavy-ball methods: a running mean of noise predictions, extrapolated to any order.

With ε̂ = (x − α·x̂₀)/σ, damping β in (0, 1] and the last k velocities (Wizadwongsa et al. 2023),

    v₀ = (1 − β)·v₁ + β·ε̂,      x′ = (α′/α)·x + α′(σ′/α′ − σ/α)·Σ_j c_j v_j,      j = 0 … k − 1.

Rule "printed" has the paper's constants, which make the step exact for polynomials of degree below k on a grid that
is uniform in σ/α for ever; elsewhere its order is at most 2.  Rule "exact" solves for c in every step, so that

    Σ_j c_j·v_j = ∫ e^{−u}p(u)du / ∫ e^{−u}du      over [λ, λ′]

when ε̂ = p(λ) is a polynomial of degree below k in λ, with v as it really came about from the first step on.  β = 1 is
an exponential Adams–Bashforth method ("exact") or PLMS ("printed").

The steps that have fewer velocities use those, a step from α = 0 is DDIM's and leaves none, and the step to σ′ = 0 is
x̂₀.  A place that stands still keeps its velocities.
"""

from dataclasses import asdict, dataclass
from math import comb
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.solvers.gauss_legendre import gauss_legendre

NODES, WEIGHTS = gauss_legendre(32)
# c_j = (first + second·β)/(divisor·β), in rows of k.
PRINTED: dict[int, tuple[int, list[tuple[int, int]]]] = {
    1: (1, [(0, 1)]),
    2: (2, [(2, 1), (-2, 1)]),
    3: (12, [(18, 5), (-24, 8), (6, -1)]),
    4: (24, [(46, 9), (-78, 19), (42, -5), (-10, 1)]),
    5: (720, [(1650, 251), (-3420, 646), (2880, -264), (-1380, 106), (270, -19)]),
}


def printed_weights(velocities: int, damping: float) -> Tensor:
    """The paper's constants c_j of GHVB, float64 (velocities,), the newest velocity's first.

    Args:
        velocities: k, 1 to 5.
        damping: β in (0, 1].
    """
    divisor, rows = PRINTED[velocities]
    return torch.tensor([(a + b * damping) / (divisor * damping) for a, b in rows], dtype=torch.float64)


@method(
    name="ghvb", papers=["Diffusion Sampling with Momentum for Mitigating Divergence Artifacts"],
    arxiv="2307.11118", family="solvers", velocities=2, damping=0.8,
    summary="GHVB 1.8: momentum of order 2, between DDIM and the two-step method in accuracy and stability.",
)  # fmt: skip
@dataclass(frozen=True)
class GeneralisedHeavyBall:
    """A generalised heavy-ball method (Wizadwongsa et al. 2023); their GHVB 1.8 has 2 velocities and damping 0.8.

    Args:
        velocities: k, how many velocities a step looks at, 1 to 5; 1 is DDIM with momentum.
        damping: β, in (0, 1]; 1 is no momentum.
        rule: how the velocities are weighed: "exact" or "printed".

    Raises:
        ArgumentError: a parameter out of its range.
    """

    velocities: int = 2
    damping: float = 0.8
    rule: str = "exact"

    def __post_init__(self) -> None:
        if self.velocities not in PRINTED:
            raise ArgumentError(f"velocities must be 1 to 5, got {self.velocities!r}")
        if not 0 < self.damping <= 1:
            raise ArgumentError(f"damping must lie in (0, 1], got {self.damping!r}")
        if self.rule not in ("exact", "printed"):
            raise ArgumentError(f"rule must be 'exact' or 'printed', got {self.rule!r}")

    @property
    def order(self) -> int:
        """The order of convergence once the velocities are there; at most 2 for the printed constants."""
        return self.velocities if self.rule == "exact" else min(self.velocities, 2)

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return False

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place)."""
        source = {**asdict(self), **(source or {})}
        # The velocity forgets what was before a jump only at the rate (1 − β); the rows of full order overlook that.
        short = range(1, max(self.velocities, 1 + (self.damping < 1)))
        restarts = tuple(self._plan(path, times, n, source, ()) for n in short)
        return self._plan(path, times, len(times), source, restarts)

    def _plan(self, path: Path, times: Tensor, window: int, source: dict[str, Any], restarts: tuple[Plan, ...]) -> Plan:
        """The plan whose steps know the last `window` answers at most."""
        registers = ("x", *(f"v{j}" for j in range(1, max(self.velocities, 2))))
        builder = Builder(times, registers, registers[1:] if window < len(times) else ())
        alpha, sigma, lam = path.alpha(times), path.sigma(times), path.lam(times)
        moves = times[1:] != times[:-1]
        noisy = torch.where(moves, sigma[:-1], 1.0)
        keep = torch.where(moves, sigma[1:] / noisy, 1.0)
        data = torch.where(moves, alpha[1:] - alpha[:-1] * keep, 0.0)
        known = moves & lam[:-1].isfinite()
        usable = known & lam[1:].isfinite()
        gain = torch.where(usable, sigma[1:] - alpha[1:] * sigma[:-1] / torch.where(usable, alpha[:-1], 1.0), 0.0)
        c, fresh = self._weights(lam, known, usable, window)
        damping = torch.where(fresh, torch.ones_like(gain), self.damping)
        # What velocities change is counted from DDIM's step, in which Σ c v would be ε̂.
        share = gain * (c[:, 0] * damping - 1)
        builder.ask("x")
        builder.add("x", "x", keep + share / noisy)
        builder.add("x", 0, data - share * alpha[:-1] / noisy)
        builder.add("x", "v1", gain * c[:, 0] * (1 - damping))
        for j in range(1, self.velocities):
            builder.add("x", f"v{j}", gain * c[:, j])
        taken = torch.where(known, damping, 0.0)
        builder.add("v1", "x", taken / noisy)
        builder.add("v1", 0, -taken * alpha[:-1] / noisy)
        builder.add("v1", "v1", torch.where(known, 1 - damping, 1.0))
        for j in range(2, self.velocities):
            builder.add(f"v{j}", f"v{j - 1}", known.double())
            builder.add(f"v{j}", f"v{j}", (~known).double())
        return Plan.build(path, builder, order=self.order, source=source, restarts=restarts)

    def _weights(self, lam: Tensor, known: Tensor, usable: Tensor, window: int) -> tuple[Tensor, Tensor]:
        """c (steps, k, *place), and where the newest velocity is the answer alone (steps, *place)."""
        weights, fresh = [], []
        for i in range(len(known)):
            begin = max(0, i + 1 - window)
            if begin or not i:
                moments = torch.zeros(self.velocities, self.velocities, *known.shape[1:], dtype=torch.float64)
                count = torch.zeros(known.shape[1:], dtype=torch.int64)
            for j in range(begin, i + 1) if begin else (i,):
                first = count == 0
                moments = self._push(moments, first, lam[max(j - 1, 0)], lam[j], known[j])
                count = count + known[j]
            fresh.append(first)
            if self.rule == "exact":
                weights.append(self._solve(moments, count, lam[i], lam[i + 1], usable[i]))
            else:
                rows = [torch.zeros(self.velocities, dtype=torch.float64)] + [
                    self._row(n) for n in range(1, self.velocities + 1)
                ]
                weights.append(torch.stack(rows)[count.clamp(max=self.velocities)].movedim(-1, 0))
        return torch.stack(weights), torch.stack(fresh)

    def _row(self, count: int) -> Tensor:
        return torch.nn.functional.pad(printed_weights(count, self.damping), (0, self.velocities - count))

    def _push(self, moments: Tensor, first: Tensor, before: Tensor, now: Tensor, known: Tensor) -> Tensor:
        """The moments Σ_i w_i (λ_i − λ)^m of each velocity's weights w on the answers, when the answer at λ joins.

        moments: (velocities, powers, *place), about `before` where a velocity is there; returned about `now`.
        """
        step = torch.where(~first & now.isfinite(), before - now, 0.0)
        powers = range(self.velocities)
        moved = [sum(comb(m, n) * step ** (m - n) * moments[:, n] for n in range(m + 1)) for m in powers]
        moments = torch.stack([torch.as_tensor(m) for m in moved], 1)
        newest = torch.where(first, 0.0, (1 - self.damping) * moments[0])
        newest[0] += torch.where(first, torch.ones_like(newest[0]), self.damping)
        return torch.where(known, torch.cat([newest[None], moments[:-1]]), moments)

    def _solve(self, moments: Tensor, count: Tensor, now: Tensor, end: Tensor, usable: Tensor) -> Tensor:
        """The weights c (k, *place) that make the step exact for as many powers as there are velocities."""
        h = torch.where(usable, torch.where(usable, end, 1.0) - torch.where(usable, now, 0.0), 1.0)
        share = (NODES.reshape(-1, *[1] * h.ndim) + 1) / 2
        mass = WEIGHTS.reshape(-1, *[1] * h.ndim) / 2 * h * torch.exp(-h * share) / -torch.expm1(-h)
        want = torch.stack([(mass * share**m).sum(0) for m in range(self.velocities)], -1)
        powers = torch.arange(self.velocities)
        matrix = (moments.movedim((0, 1), (-1, -2))) / h[..., None, None] ** powers[:, None]
        there = (powers < count[..., None]) & usable[..., None]
        both = there[..., :, None] & there[..., None, :]
        matrix = torch.where(both, matrix, torch.eye(self.velocities, dtype=torch.float64))
        return torch.linalg.solve(matrix, torch.where(there, want, 0.0)).movedim(-1, 0)
