"""Adams methods on the exponential integrals of the flow and of its noisy kin, predictor and corrector.

With a share of fresh noise τ ≥ 0 (0 the probability flow, 1 the reverse equation), c = 1 + τ², h = λ′ − λ, a step is

    data form    x′ = e^{−τ²h}(σ′/σ)x + cα′∫₀ʰ e^{−c(h−s)} x̂₀(λ+s) ds + σ′√(1 − e^{−2τ²h})·ξ
    noise form   x′ = (α′/α)x − cσ′∫₀ʰ e^{h−s} ε̂(λ+s) ds + τσ′√(e^{2h} − 1)·ξ

and the answer under the integral is the polynomial in λ through n nodes: those of the last answers (predictor), or the
new answer and the last ones (corrector).  With r_j = (λ_j − λ)/h the weights w_j of the nodes solve

    Σ_j w_j r_jᵏ = k!·φ_{k+1}(z),     z = −ch or h,     φ_k(z) = ∫₀¹ e^{z(1−θ)} θ^{k−1}/(k−1)! dθ,

and are multiplied by cα′h or −cσ′h.  With two nodes the moment of k = 1 may be replaced by ½ ("bh1") or φ₁/2 ("bh2"),
which changes a step by O(h³).  A step from α = 0 or to σ′ = 0 has one node and is not corrected.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.solvers.multistep_rows import Past, Rows

# Up to here the series is exact to rounding with the terms taken; beyond, the recurrence loses less than two digits.
SERIES = 1.0


def phis(count: int, z: Tensor) -> Tensor:
    """φ_1(z), φ_2(z) … of φ_k(z) = Σ_j zʲ/(j + k)!, for finite z: (count, *z.shape)."""
    small = z.abs() < SERIES
    near = torch.where(small, z, 0.0)
    series = torch.zeros(count, *z.shape, dtype=z.dtype)
    terms = [[1 / math.factorial(j + k) for k in range(1, count + 1)] for j in range(20, -1, -1)]
    for term in torch.tensor(terms, dtype=z.dtype).reshape(-1, count, *[1] * z.ndim):
        series = series * near + term
    far = torch.where(small, SERIES, z)
    values = [torch.expm1(far) / far]
    for j in range(1, count):
        values.append((values[-1] - 1 / math.factorial(j)) / far)
    return torch.where(small, series, torch.stack(values))


def phi(k: int, z: Tensor) -> Tensor:
    """φ_k(z), k ≥ 1, of `phis`."""
    return phis(k, z)[-1]


def node_weights(nodes: Tensor, count: Tensor, moments: Tensor, line: Tensor | None = None) -> Tensor:
    """The weights of a quadrature on the first `count` nodes that has the given moments.

    Args:
        nodes: (n, …), distinct; the places r_j of the nodes, also of those that are not used.
        count: int64 (…), how many of them are used, from 0.
        moments: (n, …), the moments of degree 0, 1 …: Σ_j w_j r_jᵏ is to be the k-th.
        line: (…), what stands for the moment of degree 1 where there are two nodes; itself unless given.

    Returns:
        (n, …), 0 for the nodes beyond `count`.
    """
    weights = torch.zeros_like(moments)
    for n in range(1, len(nodes) + 1):
        wanted = moments[:n] if n != 2 or line is None else torch.stack([moments[0], line])
        powers = torch.stack([nodes[:n] ** k for k in range(n)], -1).movedim(0, -1)
        solved = torch.linalg.solve(powers, wanted.movedim(0, -1)).movedim(-1, 0)
        weights = torch.where(count == n, torch.cat([solved, torch.zeros_like(moments[n:])]), weights)
    return weights


@dataclass(frozen=True)
class Adams:
    """An exponential Adams predictor–corrector.

    Args:
        predictor: the number of nodes of the predictor, 1 to 4.
        corrector: the number of nodes of the corrector, the new one counted, 2 to 5; 0 for none.
        slope: "vary", "bh1" or "bh2", see the module.
        form: "data" or "noise".
        lower_order_final: whether the last steps take no more nodes than there are steps left.
    """

    predictor: int
    corrector: int
    slope: str
    form: str
    lower_order_final: bool

    def __post_init__(self) -> None:
        if self.form not in ("data", "noise"):
            raise ArgumentError(f"form must be 'data' or 'noise', got {self.form!r}")

    @property
    def depth(self) -> int:
        """How many older answers are kept."""
        return max(self.predictor, self.corrector) - 1

    def plan(
        self,
        path: Path,
        times: Tensor,
        order: int,
        source: dict[str, Any],
        tau: Tensor | None = None,
        deviates: str = "",
    ) -> Plan:
        """The plan on a grid, with its restarts.

        Args:
            path: any path.
            times: float64 (steps + 1, *place).
            order: the order that the solver declares.
            source: where the plan came from.
            tau: (steps, *place), τ of every step; 0 unless given.
            deviates: see `Plan`.
        """
        tau = torch.zeros_like(times[1:]) if tau is None else tau

        def build(window: int | None, restarts: tuple[Plan, ...]) -> Plan:
            past = Past.of(times, max(self.depth, 1), window)
            builder = self.rows(path, times, past, tau).builder(times, past, window is not None)
            return Plan.build(path, builder, order=order, source=source, deviates=deviates, restarts=restarts)

        return build(None, tuple(build(window, ()) for window in range(self.depth)))

    def rows(self, path: Path, times: Tensor, past: Past, tau: Tensor) -> Rows:
        """The coefficients of every row."""
        lam, alpha, sigma = path.lam(times), path.alpha(times), path.sigma(times)
        on_x, on_answer = torch.zeros_like(lam[1:]), torch.ones_like(lam[1:])
        # Where α = 0 the answer itself is kept in either form: ε̂ says nothing of it there, and nobody looks back.
        noise = (alpha[:-1] > 0) & (sigma[:-1] > 0) if self.form == "noise" else torch.zeros_like(past.moves)
        safe = torch.where(sigma[:-1] > 0, sigma[:-1], 1.0)
        on_x, on_answer = torch.where(noise, 1 / safe, on_x), torch.where(noise, -alpha[:-1] / safe, on_answer)
        keep, drawn, held = self._one_node(alpha, sigma, tau, noise)
        count, nodes, h, z = self._predictor_nodes(lam, past, tau, noise)
        scale = (1 + tau**2) * h * torch.where(noise, -sigma[1:], alpha[1:])
        predict = scale * self._weights(nodes, count, z)
        beyond = torch.where(count <= 1, 0.0, torch.stack([predict[0] - held, *predict[1:]]))
        scale = torch.where(noise, -sigma[:-1], alpha[:-1])
        correct, corrects = self._correction(lam, scale, held, past, tau, noise)
        return Rows(on_x, on_answer, keep, held, drawn, beyond, correct, corrects)

    def _one_node(self, alpha: Tensor, sigma: Tensor, tau: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(keep, drawn, weight) with the answer held; finite at both ends."""
        safe_alpha = torch.where(alpha[:-1] > 0, alpha[:-1], 1.0)
        safe_sigma = torch.where(sigma[:-1] > 0, sigma[:-1], 1.0)
        # e^{−h}, and its power τ², which at h = ∞ is 1 where τ = 0.
        fade = alpha[:-1] * sigma[1:] / (safe_sigma * torch.where(alpha[1:] > 0, alpha[1:], 1.0))
        tempered = torch.where(tau > 0, fade.clamp(max=1.0) ** (tau**2), 1.0)
        keep = torch.where(noise, alpha[1:] / safe_alpha, tempered * sigma[1:] / safe_sigma)
        variance = (1 + tempered) * (1 - tempered) * sigma[1:] ** 2
        grown = tau**2 * ((alpha[1:] * sigma[:-1] / safe_alpha) ** 2 - sigma[1:] ** 2)
        drawn = torch.where(tau > 0, torch.where(noise, grown, variance).clamp(min=0), 0.0)
        drawn = torch.where(drawn > 0, drawn, 1.0).sqrt() * (drawn > 0)
        held = torch.where(noise, (1 + tau**2) * (sigma[1:] - sigma[:-1] * keep), alpha[1:] - alpha[:-1] * keep)
        return keep, drawn, held

    def _weights(self, nodes: Tensor, count: Tensor, z: Tensor) -> Tensor:
        """∫₀¹ e^{z(1−θ)} ℓ_j(θ) dθ for the Lagrange basis ℓ_j on the first `count` nodes."""
        factorials = torch.tensor([math.factorial(k) for k in range(len(nodes))], dtype=z.dtype)
        moments = factorials.reshape(-1, *[1] * z.ndim) * phis(len(nodes), z)
        if self.slope == "vary":
            return node_weights(nodes, count, moments)
        return node_weights(nodes, count, moments, torch.full_like(z, 0.5) if self.slope == "bh1" else moments[0] / 2)

    def _predictor_nodes(self, lam: Tensor, past: Past, tau: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        """(count, places r_j, h, z) of every step; count is 1 where h is infinite."""
        finite = past.moves & lam[1:].isfinite() & lam[:-1].isfinite()
        start = torch.where(finite, lam[:-1], 0.0)
        h = torch.where(finite, torch.where(finite, lam[1:], 1.0) - start, 1.0)
        places, older = past.older(lam[:-1], finite, start, h, range(1, self.predictor))
        nodes, count = torch.stack([torch.zeros_like(h), *places]), 1 + older
        if self.lower_order_final:
            count = torch.minimum(count, past.left().clamp(min=1))
        return count, nodes, h, torch.where(noise, h, -(1 + tau**2) * h)

    def _correction(
        self, lam: Tensor, scale: Tensor, held: Tensor, past: Past, tau: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(weights beyond the base, where) of the correction of the last move, which ended at each row's own time."""
        if not self.corrector:
            return torch.zeros(0, *scale.shape, dtype=torch.float64), torch.zeros_like(past.moves)
        before, end = past.at(1, lam[:-1]), lam[:-1]
        corrects = past.moves & before.isfinite() & end.isfinite()
        before, end = torch.where(corrects, before, 0.0), torch.where(corrects, end, 1.0)
        h, c = end - before, 1 + torch.where(corrects, past.at(1, tau), 0.0) ** 2
        places, older = past.older(lam[:-1], corrects, before, h, range(2, self.corrector))
        nodes, count = torch.stack([torch.ones_like(h), torch.zeros_like(h), *places]), 1 + corrects + older
        if self.lower_order_final:
            count = torch.minimum(count, 1 + past.at(1, past.left().double(), 1.0).long())
        weights = c * h * scale * self._weights(nodes, count, torch.where(noise, h, -c * h))
        return torch.stack([weights[0], weights[1] - past.at(1, held, 0.0), *weights[2:]]), corrects
