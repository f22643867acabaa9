"""What searches over start noises share: a deterministic map from noise to sample, and pools of scored candidates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.search.particles import ParticleNoise, repeated, widened
from fewstep.search.rewards import Scorer
from fewstep.search.verifiers import Verifier, mean_ranks, rewards_of
from fewstep.session import Session


@dataclass
class Pool:
    """Candidates of every run.

    Args:
        noises: (runs, candidates, *shape), standard normal.
        samples: of the same shape.
        scores: float64 (verifiers, runs, candidates).
    """

    noises: Tensor
    samples: Tensor
    scores: Tensor

    def joined(self, other: "Pool") -> "Pool":
        """Both pools as one."""
        return Pool(
            torch.cat([self.noises, other.noises], 1), torch.cat([self.samples, other.samples], 1),
            torch.cat([self.scores, other.scores], 2),
        )  # fmt: skip

    def ranked(self) -> Tensor:
        """One score a candidate, (runs, candidates)."""
        return mean_ranks(self.scores)

    def taken(self, numbers: Tensor) -> "Pool":
        """The candidates of these numbers, (runs, count)."""
        rows = torch.arange(len(numbers), device=numbers.device)[:, None]
        return Pool(self.noises[rows, numbers], self.samples[rows, numbers], self.scores[:, rows, numbers])

    def best(self) -> "Pool":
        """The best candidate of each run."""
        return self.taken(self.ranked().argmax(1, keepdim=True))


class NoiseMap:
    """noise ↦ sample ↦ score, counted; all candidates of all runs as one batch.

    Args:
        session: what `prepare` made, one row a run.
        verifier: what scores samples.
        started: whether a start was given, which is refused.
        who: the search, for its errors.

    Raises:
        ArgumentError: a plan that draws noise, or a given start.
    """

    def __init__(self, session: Session, verifier: Verifier, started: bool, who: str) -> None:
        if started:
            raise ArgumentError(f"{who} chooses the start noise itself and takes no start")
        if session.program.plan.stochastic:
            raise ArgumentError(
                f"{who} needs a deterministic map from noise to sample, but the plan draws noise: take solver='ddim', "
                "'dpm-solver++', 'heun' …"
            )
        self.session, self.program, self.runs = session, session.program, len(session.start)
        self.sigma = float(self.program.plan.path.sigma(self.program.plan.times[0]))
        self.scorers = [Scorer(reward, session.cond, self.runs) for reward in rewards_of(verifier)]
        self.evaluations, self._drawn = 0, 0
        shape = self.program.denoiser.shape
        self._noise = ParticleNoise(
            session.noise.seed, session.noise.samples, 1, shape, self.program.dtype, self.program.device
        )

    @property
    def calls(self) -> int:
        """Pictures scored, a run."""
        return sum(scorer.calls for scorer in self.scorers)

    def fresh(self, candidates: int) -> Tensor:
        """New standard normal noises, (runs, candidates, *shape)."""
        drawn = [self._noise.guide(self._drawn + i) for i in range(candidates)]
        self._drawn += candidates
        return torch.stack(drawn, 1)

    def uniforms(self, index: int, many: int) -> Tensor:
        """Numbers in (0, 1) for choice number `index`, (runs, many)."""
        return self._noise.uniforms(index, many)

    def start(self) -> Tensor:
        """The noise that plain sampling starts from, (runs, 1, *shape)."""
        return (self.session.start / self.sigma)[:, None]

    def several(self, candidates: int) -> Tensor:
        """The noise of plain sampling and new ones, (runs, candidates, *shape)."""
        start = self.start()
        return start if candidates == 1 else torch.cat([start, self.fresh(candidates - 1)], 1)

    def score(self, samples: Tensor) -> Tensor:
        """(verifiers, runs, candidates) of samples (runs, candidates, *shape)."""
        return torch.stack([s(samples.flatten(0, 1)).reshape(samples.shape[:2]) for s in self.scorers])

    def pool(self, noises: Tensor) -> Pool:
        """The candidates of these noises, (runs, candidates, *shape)."""
        count = noises.shape[1]
        x = self.advance(noises.flatten(0, 1) * self.sigma, count, range(self.program.plan.steps))
        samples = x.reshape(noises.shape)
        return Pool(noises, samples, self.score(samples))

    def cond(self, count: int) -> Mapping[str, Any]:
        """The conditions of `count` candidates a run."""
        return repeated(self.session.cond, count)

    def advance(self, x: Tensor, count: int, rows: range) -> Tensor:
        """States after these steps of the plan."""
        run = self.program.start(x, self.cond(count), widened(self.session, count, True).noise)
        for index in rows:
            self.program.step(run, index)
        self.evaluations += run.evaluations * count
        end = run.registers[0]
        assert end is not None
        return end
