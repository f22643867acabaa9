"""Exponential Adams–Bashforth methods in noise form: DEIS and iPNDM (Zhang & Chen 2023).

With ρ = σ/α the exact flow from time t to t′ is x′ = (α′/α)x + α′∫ ε̂ dρ over [ρ, ρ′].  For ε̂ one takes the polynomial
in some coordinate q through the last answers e₀ … e_{n−1}, asked at q₀ … q_{n−1}; with its Lagrange basis ℓ_j,

    x′ = [the exact step with e₀ held] + Σ_{j≥1} C_j(e_j − e₀),      C_j = α′∫ ℓ_j(q(ρ)) dρ  over [ρ, ρ′].

    basis "t"        q = t, the path's own time (tAB-DEIS)
          "rho"      q = ρ (ρAB-DEIS)
          "logrho"   q = log ρ = −λ
          "even"     C_j = α′(ρ′ − ρ)·b_j with the weights b_j of evenly spaced nodes (iPNDM)

The integrals are Gauss–Legendre sums in λ.  The first steps, a step to σ′ = 0 (unless `to_zero`) or from α = 0 and a
place that stood still before look at fewer answers, and so does a step after one whose coordinate is infinite.  With
four answers, basis "rho" and `to_zero`, not amended, it is the linear multistep method ("LMS") of k-diffusion.  A first
step that holds
its answer is wrong by h², which alone would leave order 2; the row after it knows the next answer and sets it right, at
no evaluation: with three answers or four, x gains there α∫ℓ(q(ρ))dρ·(e₀ − e₁) over the step before, ℓ from 0 at its
start to 1 at its end.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.solvers.exponential_multistep import held_answer, history_length
from fewstep.solvers.gauss_legendre import gauss_legendre

NODES, WEIGHTS = gauss_legendre(32)
BASES = ("t", "rho", "logrho", "even")
# The weights of e₁, e₂ … on evenly spaced nodes; that of e₀ makes their sum 1.
EVEN = {2: (-1 / 2,), 3: (-16 / 12, 5 / 12), 4: (-59 / 24, 37 / 24, -9 / 24)}


@method(
    name="deis", papers=["Fast Sampling of Diffusion Models with Exponential Integrator"],
    arxiv="2204.13902", family="solvers", answers=3, basis="t",
    summary="tAB-DEIS: the noise as a polynomial in time through the last three answers, one evaluation a step.",
)  # fmt: skip
@method(
    name="deis-rho", papers=["Fast Sampling of Diffusion Models with Exponential Integrator"],
    arxiv="2204.13902", family="solvers", answers=3, basis="rho",
    summary="ρAB-DEIS: the noise as a polynomial in σ/α through the last three answers, one evaluation a step.",
)  # fmt: skip
@method(
    name="ipndm", papers=["Fast Sampling of Diffusion Models with Exponential Integrator"],
    arxiv="2204.13902", family="solvers", answers=4, basis="even",
    summary="iPNDM: fixed Adams–Bashforth weights on the last four noises, of order 2 unless σ/α falls evenly.",
)  # fmt: skip
@dataclass(frozen=True)
class ExponentialAdamsBashforth:
    """An exponential Adams–Bashforth method in noise form.

    Args:
        answers: how many answers a step looks at, 1 to 4; the paper's r and one.
        basis: "t", "rho", "logrho" or "even", see the module.
        lower_order_final: whether a step looks at no more answers than there are steps left, itself counted.
        amend: whether the second row sets the first step right; False, as published, leaves order 2.
        to_zero: whether a step to σ′ = 0 looks at as many answers as others; its integral in ρ then ends at 0, which
            the basis "logrho" does not reach.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    answers: int = 3
    basis: str = "t"
    lower_order_final: bool = False
    amend: bool = True
    to_zero: bool = False

    def __post_init__(self) -> None:
        if self.answers not in (1, 2, 3, 4):
            raise ArgumentError(f"answers must be 1 to 4, got {self.answers!r}")
        if self.basis not in BASES:
            raise ArgumentError(f"basis must be one of {BASES}, got {self.basis!r}")
        if self.to_zero and self.basis == "logrho":
            raise ArgumentError("to_zero=True needs a basis that is finite at σ = 0, got basis='logrho'")

    @property
    def order(self) -> int:
        """The order of convergence: even weights are of order 2 where ρ is not even, and so is a start not amended.

        With four answers the first steps leave an error of order 3, so small that 4 is what one measures.
        """
        return self.answers if self.amend and self.basis != "even" else min(self.answers, 2)

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return False

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place)."""
        source = {**asdict(self), **(source or {})}
        restarts = tuple(self._plan(path, times, answers, source, ()) for answers in range(1, self.answers))
        return self._plan(path, times, self.answers, source, restarts)

    def _plan(
        self, path: Path, times: Tensor, answers: int, source: dict[str, Any], restarts: tuple[Plan, ...]
    ) -> Plan:
        kept = tuple(f"e{j}" for j in range(1, self.answers))
        builder = Builder(times, ("x", *kept), kept if answers < self.answers else ())
        alpha, sigma = path.alpha(times), path.sigma(times)
        keep, gain = held_answer(torch.stack([alpha[:-1], alpha[1:]]), torch.stack([sigma[:-1], sigma[1:]]))
        weights = self._weights(path, times, answers)
        # 1/σ and −α/σ turn x and x̂₀ into ε̂; where σ = 0 nothing moves any more.
        noisy = sigma[:-1] > 0
        on_x = torch.where(noisy, 1 / torch.where(noisy, sigma[:-1], torch.ones_like(keep)), torch.zeros_like(keep))
        on_answer = -alpha[:-1] * on_x
        held = sum(weights, torch.zeros_like(keep))
        builder.ask("x")
        builder.add("x", "x", keep - held * on_x)
        builder.add("x", 0, gain - held * on_answer)
        for j, name in enumerate(kept, 1):
            rows = range(min(j, builder.steps), builder.steps)
            if j <= len(weights):
                builder.add("x", name, weights[j - 1][rows.start :], rows)
            if j == 1:
                builder.add(name, "x", on_x)
                builder.add(name, 0, on_answer)
            else:
                # What was never written is not handed down.
                handed = range(min(j - 1, builder.steps), builder.steps)
                builder.add(name, f"e{j - 1}", 1.0, handed)
        return Plan.build(path, builder, order=self.order, source=source, restarts=restarts)

    def _weights(self, path: Path, times: Tensor, answers: int) -> list[Tensor]:
        """C_1 … C_{answers−1} of every step, the amendment of a held first step counted."""
        lam, alpha = path.lam(times), path.alpha(times)[1:]
        q = times if self.basis == "t" else self._coordinate(path, lam)
        moves = (times[1:] != times[:-1]) & (lam[1:].isfinite() | self.to_zero)
        count = history_length(moves, q[:-1].isfinite(), answers - 1, self.lower_order_final)
        # A node that is not used stands far from all others, so that no difference is zero.
        nodes = [torch.where(count > 0, q[:-1], 0.0)]
        nodes += [torch.where(count >= j, _earlier(q[:-1], j), 1e6 * j) for j in range(1, answers)]
        at, rho = self._quadrature(path, lam[:-1], lam[1:], count > 0)
        weights = [torch.zeros_like(alpha) for _ in nodes[1:]]
        for used in range(1, answers):
            for j in range(1, used + 1):
                even = self.basis == "even"
                share = EVEN[used + 1][j - 1] if even else _lagrange(at, nodes[: used + 1], j)
                weights[j - 1] = torch.where(count == used, alpha * (rho * share).sum(0), weights[j - 1])
        if self.order > 2 and answers > 1:
            before = _earlier(lam[:-1], 1)
            # A restart's second row follows a held one, whatever stood before it.
            held = (count > 0) & (_earlier(count, 1) == 0 if answers == self.answers else answers == 2)
            held = held & before.isfinite()
            at, rho = self._quadrature(path, before, lam[:-1], held)
            weights[0] = weights[0] - torch.where(held, alpha * (rho * _lagrange(at, nodes[1::-1], 1)).sum(0), 0.0)
        return weights

    def _coordinate(self, path: Path, lam: Tensor) -> Tensor:
        """q where the half-log-SNR is λ."""
        if self.basis == "t":
            return path.t_of_lam(lam)
        return torch.exp(-lam) if self.basis == "rho" else -lam

    def _quadrature(self, path: Path, start: Tensor, end: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
        """q and dρ at the points between λ = start and end, (points, steps, *place)."""
        finite = end.isfinite()
        start, end = torch.where(usable, start, 0.0), torch.where(usable & finite, end, 1.0)
        points, weights = (v.reshape(-1, *[1] * start.ndim) for v in (NODES, WEIGHTS))
        lam = start + (end - start) * (1 + points) / 2
        steps = -(end - start) / 2 * weights * torch.exp(-lam)
        # A step to σ′ = 0 is of infinite length in λ: its points lie evenly in ρ instead.
        lam = torch.where(finite, lam, start - torch.log((1 - points) / 2))
        steps = torch.where(finite, steps, -torch.exp(-start) / 2 * weights)
        return self._coordinate(path, lam), steps


def _earlier(values: Tensor, steps: int) -> Tensor:
    """The values of so many steps before, and of the first where there are none."""
    return torch.cat([values[:1].expand(steps, *values.shape[1:]), values[:-steps]])[: len(values)]


def _lagrange(at: Tensor, nodes: list[Tensor], j: int) -> Tensor:
    """ℓ_j on the nodes, at q = at."""
    value = torch.ones_like(at)
    for other, node in enumerate(nodes):
        if other != j:
            value = value * (at - node) / (nodes[j] - node)
    return value
