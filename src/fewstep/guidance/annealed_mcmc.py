"""Annealed MCMC: after each step of a solver, chains that leave the composed density of the new level as it is.

    ula:    x ← x + η·s + √(2η)·z                        mala:   the same, accepted or not
    u-hmc:  v ← d·v + √(1 − d²)·z, L leapfrogs of h      hmc:    the same, accepted or not (v turns round if not)

with s the composed score (α·x̂₀ − x)/σ², η = size·σ² and h = √(2η), so that hmc with one leapfrog and d = 0 is mala.
At precision k the variance of ula is 1/(k·(1 − η·k/2)); that of mala and hmc is 1/k.
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError, unknown
from fewstep.guidance.base import Ask, Guide, coefficient
from fewstep.guidance.composition import Composition

KINDS = ("ula", "mala", "u-hmc", "hmc")
# A guide has 64 draws a step: one of the shape of x and one to accept by, a round.
MOST = 32


@method(
    name="annealed-mcmc",
    papers=["Reduce, Reuse, Recycle: Compositional Generation with Energy-Based Diffusion Models and MCMC"],
    family="guidance",
    arxiv="2302.11552",
)
@dataclass(frozen=True)
class AnnealedMCMC(Guide):
    """MCMC at every level (Du et al. 2023), so that products and negations are sampled where plain solvers fail.

    Args:
        composition: whose density the chains keep; the one among the run's guides, or the plain model's.
        kind: "ula", "mala", "u-hmc" or "hmc"; those with Metropolis need the composition's log_probs.
        rounds: transitions a level, 0 … 32; 0 leaves the state as it is.
        size: η/σ², more than 0.
        leapfrogs: L, at least 1.
        damping: d in [0, 1), how much of the velocity stays between transitions.
        below: in (0, 1]; only levels with t at most it are walked.

    A plan of several steps' history should go on as if nothing had happened only for few small transitions, so that a
    solver of one step (ddim, ddpm) is meant; the state is said to have jumped.

    Raises:
        ArgumentError: an unknown kind, or numbers out of their ranges.
    """

    level: ClassVar[str] = "state"
    composition: Composition = field(default_factory=Composition)
    kind: str = "ula"
    rounds: int = 10
    size: float = 0.1
    leapfrogs: int = 3
    damping: float = 0.5
    below: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of MCMC", self.kind, KINDS)
        if not 0 <= self.rounds <= MOST or self.size <= 0 or self.leapfrogs < 1 or not 0 <= self.damping < 1:
            raise ArgumentError(
                f"rounds must be 0 … {MOST}, size more than 0, leapfrogs at least 1 and damping in [0, 1); got "
                f"{self.rounds}, {self.size}, {self.leapfrogs}, {self.damping}"
            )
        if not 0 < self.below <= 1:
            raise ArgumentError(f"below must be in (0, 1], got {self.below}")
        if self.kind in ("mala", "hmc") and self.rounds and not self.composition.log_probs:
            raise ArgumentError(f"{self.kind} needs the log_probs of the composition to accept by")

    def init(self, denoiser: Denoiser, batch: int) -> Any:
        return self.composition.init(denoiser, batch)

    def extra(self) -> int:
        each = self.leapfrogs if "hmc" in self.kind else 1
        return (self.rounds * each + (self.rounds > 0)) * (1 + len(self.composition.experts))

    def move(self, ask: Ask, x: Tensor, state: Any) -> tuple[Tensor, Any, bool]:
        sigma = ask.path.sigma(ask.t)
        walked = (sigma > 0) & (ask.t <= self.below)
        if self.rounds == 0 or not bool(walked.any()):
            return x, state, False
        chain = _Chain(self, ask, x, coefficient((2 * self.size * sigma.square()).sqrt(), x))
        for round_ in range(self.rounds):
            chain.transit(2 * round_)
        # Samples of other times may have come to the end of theirs, or not yet to where they are walked.
        return chain.x if bool(walked.all()) else torch.where(walked.to(x.device), chain.x, x), state, True


class _Chain:
    """One level's chain: the state, its score and log-density, and the velocity."""

    def __init__(self, walk: AnnealedMCMC, ask: Ask, x: Tensor, h: float | Tensor) -> None:
        self.walk, self.ask, self.x, self.h = walk, ask, x, h
        self.corrected = walk.kind in ("mala", "hmc")
        self.score = self._score(x)
        self.log = self._log(x)
        self.v: Tensor | None = None

    def _score(self, x: Tensor) -> Tensor:
        path, t = self.ask.path, self.ask.t
        believed = self.walk.composition.believed(self.ask, x, t)
        alpha, variance = coefficient(path.alpha(t), x), coefficient(path.sigma(t).square().clamp_min(1e-30), x)
        return (alpha * believed - x) / variance

    def _log(self, x: Tensor) -> Tensor | None:
        return self.walk.composition.log_prob(x, self.ask.t) if self.corrected else None

    def transit(self, slot: int) -> None:
        """One transition, with the draws `slot` and `slot + 1`."""
        hamiltonian = "hmc" in self.walk.kind
        d = self.walk.damping if hamiltonian and self.v is not None else 0.0
        fresh = self.ask.noise(slot)
        v = fresh if self.v is None or d == 0 else d * self.v + math.sqrt(1 - d * d) * fresh
        before, x, score = v, self.x, self.score
        for _ in range(self.walk.leapfrogs if hamiltonian else 1):
            v = v + 0.5 * self.h * score
            x = x + self.h * v
            score = self._score(x)
            v = v + 0.5 * self.h * score
        log = self._log(x)
        if log is None or self.log is None:
            self.x, self.score, self.v = x, score, v
            return
        gain = log - self.log - (v.square() - before.square()).flatten(1).sum(1) / 2
        uniform = torch.special.ndtr(self.ask.noise(slot + 1).flatten(1)[:, 0].double())
        taken = uniform.log() < gain
        wide = taken.reshape(-1, *[1] * (x.ndim - 1))
        self.x, self.score = torch.where(wide, x, self.x), torch.where(wide, score, self.score)
        self.v, self.log = torch.where(wide, v, -before), torch.where(taken, log, self.log)
