"""Soft value-based decoding (SVDD): of M candidates for every step one is taken, by what it promises.

    x_s^m ~ q(· | x_t),   m = 1 … M,        x_s = x_s^m with probability ∝ e^{V_s(x_s^m)}

in every run by itself: no particles interact, and no weight remains.  With the exact V the law tends to p* ∝ p·e^{κ·r}
as M grows; with small steps M candidates give (1 − 1/M) of the exact drift g²∇V.  choice="argmax" is the released code:
the best candidate always, whose law is not p* for any M and runs away where r has no maximum.

Several chains in a run are SVDD-R, Algorithm 2 as printed: after every choice the B chains are drawn anew with
probability ∝ e^V, with no V of the step before to divide by.  So e^V is given again at every step, the law is not p*
for any M and B, and all chains end as copies; the more of them, the further off.

The candidates' answers, from which "mean" has V = κ·r(x̂₀), are what the chosen one moves on with, so that a step costs
M evaluations.  The M start noises are candidates too.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError, unknown
from fewstep.program import Run
from fewstep.search.base import Ending, Search
from fewstep.search.particles import ParticleNoise, choose, count, go_on, number, widened
from fewstep.search.resampling import multinomial
from fewstep.search.rewards import Function, Reward, Scorer
from fewstep.search.values import Looking, SoftValue, check_value
from fewstep.session import Session


@method(
    name="svdd",
    papers=[
        "Derivative-Free Guidance in Continuous and Discrete Diffusion Models with Soft Value-Based Decoding"
    ],
    arxiv="2408.08252", family="search", summary="Of M candidates for every step one is taken, by its soft value.",
)  # fmt: skip
@dataclass(frozen=True)
class SVDD(Search):
    """Soft value-based decoding on any plan that draws noise; ancestral sampling unless given.

    Args:
        reward: r, a callable on pictures or a `Reward`.
        strength: κ ≥ 0, the paper's 1/α.
        candidates: M ≥ 1; one candidate is the plain sampler.
        value: "mean" (r at x̂₀), `Rollouts(…)`, or a callable V(x, t) with κ in it, such as `fit_value` makes.
        choice: "draw" by e^V, or "argmax" as the released code.
        chains: B ≥ 1; more than one are resampled against one another (SVDD-R), and a sample is one of them.

    Raises:
        ArgumentError: a parameter out of its range; several candidates or chains on a plan without noise.
    """

    solver: ClassVar[str] = "ddpm"
    reward: Function | Reward
    strength: float = 1.0
    candidates: int = 10
    value: SoftValue = "mean"
    choice: str = "draw"
    chains: int = 1

    def __post_init__(self) -> None:
        number("strength", self.strength)
        count("candidates", self.candidates)
        count("chains", self.chains)
        check_value(self.value)
        if self.choice not in ("draw", "argmax"):
            raise unknown("choice", self.choice, ("draw", "argmax"))

    def paths(self) -> int:
        """One path a candidate of every chain."""
        return self.candidates * self.chains

    def run(self, session: Session, started: bool) -> Ending:
        """The plan's steps, a choice before every move and one at the end."""
        width, program = self.paths(), session.program
        if width > 1 and not program.plan.stochastic:
            raise ArgumentError(
                "candidates for a step are all the same on a plan without noise: take solver='ddpm' or another that "
                "draws noise"
            )
        wide = widened(session, width, started)
        noise = wide.noise
        assert isinstance(noise, ParticleNoise)
        scorer = Scorer(self.reward, wide.cond, len(wide.start))
        looking = Looking(self.value, self.strength, scorer, wide)
        at = 0

        def between(run: Run, answers: list[Tensor]) -> list[Tensor]:
            x = run.registers[0]
            assert x is not None
            worth = looking(x, program.plan.times[at], program.preview(run), at)
            rows = self._choose(worth, noise, at).repeat_interleave(self.candidates)
            go_on(run, rows)
            return [choose(answer, rows) for answer in answers]

        run = program.start(wide.start, wide.cond, noise)
        run.between = between if width > 1 else None
        for index in range(program.plan.steps):
            at = index
            program.step(run, index)
        x = run.registers[0]
        assert x is not None
        scores = scorer(x)
        rows = self._choose(self.strength * scores, noise, program.plan.steps)
        ends, scores = x[rows], scores[rows]
        cost = width * (run.evaluations + looking.evaluations), width * scorer.calls
        if self.chains == 1:
            return Ending(ends, *cost, scores)
        particles, scores = ends.reshape(-1, self.chains, *x.shape[1:]), scores.reshape(-1, self.chains)
        # Chains were drawn independently of their places, so that the first is as good a draw as any.
        return Ending(particles[:, 0], *cost, scores[:, 0], particles, scores)

    def _choose(self, worth: Tensor, noise: ParticleNoise, at: int) -> Tensor:
        """The row of every chain's chosen candidate, (runs·B,), chains resampled where there are several."""
        worth, b = worth.reshape(-1, self.candidates), self.chains
        # A choice for every chain; where there are several, as many numbers again to resample them by.
        uniforms = noise.uniforms(at, b if b == 1 else 2 * b)
        if self.choice == "argmax":
            chosen = worth.argmax(1)
        else:
            chosen = multinomial(worth.softmax(1), uniforms[:, :b].reshape(-1, 1))[:, 0]
        rows = chosen + self.candidates * torch.arange(len(worth), device=worth.device)
        if b == 1:
            return rows
        weights = worth.flatten()[rows].reshape(-1, b).softmax(1)
        return rows.reshape(-1, b).gather(1, multinomial(weights, uniforms[:, b:])).flatten()
