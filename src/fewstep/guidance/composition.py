"""Composition of densities by their scores: products, negations and mixtures of what several experts believe.

    product:   s = Σᵢ wᵢ·sᵢ      ⇔   x̂₀′ = Σᵢ wᵢ·x̂₀ᵢ + (1 − Σᵢ wᵢ)·x/α      (a negation has wᵢ < 0)
    mixture:   p = Σᵢ wᵢ·pᵢ      ⇔   x̂₀′ = Σᵢ πᵢ·x̂₀ᵢ,   πᵢ ∝ wᵢ·pᵢ(x_t)

A mixture's score is that of a diffusion; a product's is not, so that a solver alone samples something else, and MCMC at
every level (`AnnealedMCMC`) is needed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError, unknown
from fewstep.guidance.base import Ask, Branch, Guide, coefficient
from fewstep.guidance.factorized import expanded
from fewstep.guidance.gradient import one_a_sample

LogProb = Callable[[Tensor, Tensor], Tensor]
KINDS = ("product", "mixture")


@method(
    name="composition",
    papers=["Reduce, Reuse, Recycle: Compositional Generation with Energy-Based Diffusion Models and MCMC"],
    family="guidance",
    arxiv="2302.11552",
)
@dataclass(frozen=True)
class Composition(Guide):
    """Composition (Du et al. 2023) of the run's own model and further experts; each costs an evaluation a step.

    Args:
        experts: (weight, expert) pairs; an expert is conditions for the same network, asked in the same batch, or
            another denoiser on the same path, asked with the run's conditions.
        weight: of the run's own answer; 1 and no experts leave it as it is.
        kind: "product" (negation by negative weights) or "mixture".
        log_probs: log p(x, t) → (batch,) of the run's own model and of each expert, up to one common constant; needed
            for mixtures and for Metropolis corrections of products.

    Raises:
        ArgumentError: an unknown kind, experts that are no pairs, a mixture without log_probs or of weights that are
            none, or a wrong number of log_probs; at the run, an expert on another path or of another shape.
    """

    level: ClassVar[str] = "network"
    experts: Sequence[tuple[float, Mapping[str, Any] | Denoiser]] = ()
    weight: float = 1.0
    kind: str = "product"
    log_probs: Sequence[LogProb] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of composition", self.kind, KINDS)
        if (self.kind == "mixture" or self.log_probs) and len(self.log_probs) != len(self.experts) + 1:
            raise ArgumentError(
                f"{self.kind} of {len(self.experts) + 1} needs as many log_probs, got {len(self.log_probs)}"
            )
        for pair in self.experts:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[1], (Mapping, Denoiser)):
                raise ArgumentError(f"experts must be pairs of a weight and conditions or a denoiser, got {pair!r}")
        if self.kind == "mixture" and (min(self._weights()) < 0 or not sum(self._weights()) > 0):
            raise ArgumentError(f"the weights of a mixture must be at least 0, and one more, got {self._weights()}")

    def _weights(self) -> list[float]:
        return [self.weight, *(w for w, _ in self.experts)]

    def init(self, denoiser: Denoiser, batch: int) -> Any:
        for _, expert in self.experts:
            if isinstance(expert, Denoiser) and (expert.path, expert.shape) != (denoiser.path, denoiser.shape):
                raise ArgumentError(f"every expert must be on {denoiser.path} with shape {denoiser.shape}")
        return None

    def extra(self) -> int:
        return len(self.experts)

    def branches(self, ask: Ask, cond: Mapping[str, Any], state: Any) -> list[Branch]:
        mine = [e for _, e in self.experts if not isinstance(e, Denoiser)]
        return [Branch({**cond, **expanded(expert, cond, len(ask.x))}) for expert in mine]

    def mix(self, ask: Ask, x0: Tensor, main: Tensor, others: list[Tensor], state: Any) -> tuple[Tensor, Any]:
        if not self.experts and self.weight == 1:
            return x0, state
        asked = iter(others)
        answers = [main]
        for _, expert in self.experts:
            theirs = isinstance(expert, Denoiser)
            answers.append(ask.again(ask.x, ask.t, ask.cond, expert) if theirs else next(asked))
        # What other guides have added to the plain answer stays.
        return x0 + self._composed(ask, ask.x, ask.t, answers) - main, state

    def _composed(self, ask: Ask, x: Tensor, t: Tensor, answers: list[Tensor]) -> Tensor:
        weights = self._weights()
        if self.kind == "mixture":
            shares = torch.tensor(weights, dtype=torch.float64, device=x.device)[:, None]
            logs = self._logs(x, t) + shares.log()
            share = logs.softmax(0).to(x.dtype).reshape(len(logs), -1, *[1] * (x.ndim - 1))
            return (share * torch.stack(answers)).sum(0)
        alpha = ask.path.alpha(t)
        rest = torch.where(alpha > 0, (1 - sum(weights)) / alpha.clamp_min(1e-300), 0.0)
        out = coefficient(rest, x) * x
        for weight, answer in zip(weights, answers, strict=True):
            out = out + weight * answer
        return out

    def _logs(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.stack([one_a_sample(p(x, t), len(x), "log_probs") for p in self.log_probs])

    def believed(self, ask: Ask, x: Tensor, t: Tensor) -> Tensor:
        """The composed x̂₀ at another state or time; each expert is asked and counted."""
        answers = [ask.again(x, t, ask.cond)]
        for _, expert in self.experts:
            if isinstance(expert, Denoiser):
                answers.append(ask.again(x, t, ask.cond, expert))
            else:
                answers.append(ask.again(x, t, {**ask.cond, **expanded(expert, ask.cond, len(x))}))
        return self._composed(ask, x, t, answers)

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """The composed log-density at (x, t) up to a constant, (batch,)."""
        if not self.log_probs:
            raise ArgumentError("a Metropolis correction needs the log_probs of the composition")
        values = self._logs(x, t)
        weights = torch.tensor(self._weights(), dtype=values.dtype, device=values.device)[:, None]
        return (values + weights.log()).logsumexp(0) if self.kind == "mixture" else (weights * values).sum(0)
