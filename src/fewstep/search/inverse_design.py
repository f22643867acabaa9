"""Diffusion generative inverse design: particles in the space of start noises, weighed by what a simulator says.

Each noise is mapped to a design by a deterministic solver and simulated once.  A round draws N noises from all so far,
by weights ∝ e^{−E/τ}, and shakes them,

    n′ = √(1 − ρ²)·n + ρ·ξ        leaves N(0, I) as it is, so that designs stay such as the model makes
    n′ = n + ρ·ξ                  plain: the noise grows by ρ² a generation and leaves its shell.

After the last round the design of the least E of all is the answer; with weights over the whole pool this is a search
and no sampler of p·e^{−E/τ}.  E = −r of a reward r.  A fixed τ where E spreads over orders of magnitude leaves one
ancestor, so unless given it is how far the pool's upper quartile lies below its best, at every round.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.search.base import Ending, Search
from fewstep.search.noises import NoiseMap
from fewstep.search.particles import count, number
from fewstep.search.resampling import multinomial
from fewstep.search.verifiers import Verifier
from fewstep.session import Session


@method(
    name="inverse-design", papers=["Diffusion Generative Inverse Design"], arxiv="2309.02040", family="search",
    summary="Particles in the space of start noises, weighed by a simulator's energy.",
)  # fmt: skip
@dataclass(frozen=True)
class InverseDesign(Search):
    """Particle sampling of designs.

    Args:
        reward: −E, a callable on designs or a `Reward`; a black box, called once a design.
        particles: N ≥ 1 a round.
        rounds: K ≥ 0 after the first.
        temperature: τ > 0; how far the pool's upper quartile lies below its best unless given.
        jitter: ρ in (0, 1] where the noise's law is preserved, else any above 0.
        preserving: which of the two shakes.

    Raises:
        ArgumentError: a parameter out of its range; a plan that draws noise.
    """

    solver: ClassVar[str] = "ddim"
    reward: Verifier
    particles: int = 16
    rounds: int = 8
    temperature: float | None = None
    jitter: float = 0.7
    preserving: bool = True

    def __post_init__(self) -> None:
        count("particles", self.particles)
        count("rounds", self.rounds, 0)
        number("jitter", self.jitter, open_=True, **({"most": 1.0} if self.preserving else {}))
        if self.temperature is not None:
            number("temperature", self.temperature, open_=True)

    def paths(self) -> int:
        """One path a particle a round."""
        return self.particles * (self.rounds + 1)

    def run(self, session: Session, started: bool) -> Ending:
        """Rounds of particles, each as one batch; the best design of all."""
        noises = NoiseMap(session, self.reward, started, "inverse design")
        pool = noises.pool(noises.several(self.particles))
        for i in range(self.rounds):
            weights = self._weights(pool.ranked())
            uniforms = noises.uniforms(i, self.particles)
            chosen = multinomial(weights, uniforms)
            pool = pool.joined(noises.pool(self._shaken(pool.taken(chosen).noises, noises.fresh(self.particles))))
        best = pool.best()
        return Ending(
            best.samples[:, 0], noises.evaluations, noises.calls, best.scores[0, :, 0], pool.samples, pool.ranked()
        )

    def _weights(self, scores: Tensor) -> Tensor:
        """∝ e^{r/τ} over all particles so far, (runs, pool)."""
        if self.temperature is not None:
            return (scores / self.temperature).softmax(1)
        gap = scores.amax(1, keepdim=True) - scores.quantile(0.75, dim=1, keepdim=True)
        return (scores / gap.clamp_min(torch.finfo(scores.dtype).tiny ** 0.5)).softmax(1)

    def _shaken(self, noise: Tensor, drawn: Tensor) -> Tensor:
        kept = (1 - self.jitter**2) ** 0.5 if self.preserving else 1.0
        return kept * noise + self.jitter * drawn
