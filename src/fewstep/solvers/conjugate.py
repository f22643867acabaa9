"""Conjugate integrators: one Euler step in coordinates Ax in which the flow is nearly still (Pandey et al. 2024).

The flow is x′ = F(t)·x + G(t)·m, with m the network's answer: x̂₀ in data form (F = σ′/σ, G·dt = σ·d(α/σ)), ε̂ in noise
form (F = α′/α, G·dt = α·d(σ/α)).  With A = exp ∫(κ − F)dt it becomes d(Ax) = κ(Ax)dt + dΦ·m, dΦ = A·G·dt, and over
h = t − t′ back from t to t′

    Ax ← (1 − κh)·Ax + (Φ′ − Φ)·m,      A = e^{κt}/σ in data form, e^{κt}/α in noise form.

The linear part is exact in one step only at κ = 0, where either form is DDIM; κ ≠ 0 (λ-DDIM) weighs the answer by
e^{κ(t − t′)} within the step, for a factor of x that is wrong by (κh)²/2:

    data form     x ← (σ′/σ)·p·x + (α′ − q·α·σ′/σ + κ·σ′∫ e^{κ(τ−t′)}(α/σ)dτ)·x̂₀,      q = e^{κh},  p = q·(1 − κh)
    noise form    x ← (α′/α)·p·x + (σ′ − q·σ·α′/α + κ·α′∫ e^{κ(τ−t′)}(σ/α)dτ)·ε̂,      both integrals over [t′, t].
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.solvers.exponential_multistep import held_answer
from fewstep.solvers.gauss_legendre import gauss_legendre

# Nodes of a step's quadrature, and how far back in λ its integrand, which falls like e^{−|λ|}, still counts.
NODES, REACH = 48, 36.0
# Below this λ a state is noise alone, and α is too small to divide by.
LEAST = -14.0


@method(
    name="conjugate", papers=["Efficient Integrators for Diffusion Generative Models"], arxiv="2310.07894",
    family="solvers", kappa=-0.25, form="noise",
)  # fmt: skip
@dataclass(frozen=True)
class Conjugate:
    """DDIM in conjugate coordinates (λ-DDIM): one number κ, tuned for the steps that one has; 0 is DDIM.

    Args:
        kappa: κ, the paper's λ, finite; with time in [0, 1].
        form: "noise", as published, which takes κ = 0 in a step to clean data and in one from nothing but noise
            (λ < −14), where A ends; or "data", whose steps are finite at both ends of every path.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    kappa: float = -0.25
    form: str = "noise"

    def __post_init__(self) -> None:
        if not math.isfinite(self.kappa):
            raise ArgumentError(f"kappa must be finite, got {self.kappa!r}")
        if self.form not in ("data", "noise"):
            raise ArgumentError(f"form must be 'data' or 'noise', got {self.form!r}")

    @property
    def order(self) -> int:
        """The order of convergence."""
        return 1

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return False

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place)."""
        alpha, sigma = path.alpha(times), path.sigma(times)
        keep, gain = held_answer(torch.stack([alpha[:-1], alpha[1:]]), torch.stack([sigma[:-1], sigma[1:]]))
        if self.kappa:
            keep, gain = self._step(path, times, keep, gain)
        builder = Builder(times, ("x",))
        builder.ask("x")
        builder.add("x", "x", keep)
        builder.add("x", 0, gain)
        deviates = (
            f"a conjugate step with κ = {self.kappa:g} scales x by (1 − κh)e^(κh) too little" if self.kappa else ""
        )
        return Plan.build(path, builder, source={**asdict(self), **(source or {})}, deviates=deviates)

    def _step(self, path: Path, times: Tensor, keep: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of x and x̂₀, from those of DDIM."""
        h, (alpha, sigma) = times[:-1] - times[1:], (path.alpha(times), path.sigma(times))
        q = torch.exp(self.kappa * h)
        p = q * (1 - self.kappa * h)
        if self.form == "data":
            told = alpha[1:] - q * alpha[:-1] * keep + self.kappa * sigma[1:] * self._integral(path, times)
            return keep * p, torch.where(h == 0, gain, told)
        ends = (path.lam(times[:-1]) < LEAST) | (sigma[1:] == 0) | (h == 0)
        ratio = alpha[1:] / torch.where(ends, torch.ones_like(q), alpha[:-1])
        noisy = torch.where(ends, torch.ones_like(q), sigma[:-1])
        told = (sigma[1:] - q * sigma[:-1] * ratio + self.kappa * alpha[1:] * self._integral(path, times)) / noisy
        return torch.where(ends, keep, ratio * p + told), torch.where(ends, gain, -told * alpha[:-1])

    def _integral(self, path: Path, times: Tensor) -> Tensor:
        """∫ e^{κ(τ−t′)}·e^{±λ(τ)}dτ over each step, + in data form, by Gauss and Legendre in λ; 0 where unused."""
        before, after = path.lam(times[:-1]), path.lam(times[1:])
        moves = times[:-1] != times[1:]
        if self.form == "data":
            usable, sign = moves & after.isfinite(), 1.0
            end = torch.where(usable, after, torch.ones_like(after))
            begin = torch.where(usable, before.maximum(end - REACH), end - 1)
        else:
            usable, sign = moves & before.isfinite() & after.isfinite(), -1.0
            begin = torch.where(usable, before, torch.zeros_like(before))
            end = torch.where(usable, after.minimum(begin + REACH), begin + 1)
        nodes, weights = (v.reshape(-1, *[1] * times.ndim) for v in gauss_legendre(NODES))
        x, w = (nodes + 1) / 2, weights / 2
        inner = begin + (end - begin) * x
        tau = path.t_of_lam(inner)
        # dτ/dλ = 1/λ′, λ′ = α′/α − σ′/σ.
        slope = 1 / (path.d_alpha(tau) / path.alpha(tau) - path.d_sigma(tau) / path.sigma(tau))
        terms = torch.exp(self.kappa * (tau - times[1:]) + sign * inner) * -slope
        return torch.where(usable, (w * terms).sum(0) * (end - begin), torch.zeros_like(end))
