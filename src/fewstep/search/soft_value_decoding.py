"""Soft value-based decoding (SVDD): of M candidates for every step one is taken, by what it promises.

    x_s^m ~ q(· | x_t),   m = 1 … M,        x_s = x_s^m with probability ∝ e^{V_s(x_s^m)}

in every run by itself: no particles interact, and no weight remains.  With the exact V the law tends to p* ∝ p·e^{κ·r}
as M grows; with small steps M candidates give (1 − 1/M) of the exact drift g²∇V.  choice="argmax" is the released code:
the best candidate always, whose law is not p* for any M and runs away where r has no maximum.

The candidates' answers, from which "mean" has V = κ·r(x̂₀), are what the chosen one moves on with, so that a step costs
M evaluations.  The M start noises are candidates too.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import unknown
from fewstep.program import Run
from fewstep.search.base import Ending, Search
from fewstep.search.particles import ParticleNoise, choose, count, go_on, number, widened
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

    Raises:
        ArgumentError: a parameter out of its range.
    """

    solver: ClassVar[str] = "ddpm"
    reward: Function | Reward
    strength: float = 1.0
    candidates: int = 10
    value: SoftValue = "mean"
    choice: str = "draw"

    def __post_init__(self) -> None:
        number("strength", self.strength)
        count("candidates", self.candidates)
        check_value(self.value)
        if self.choice not in ("draw", "argmax"):
            raise unknown("choice", self.choice, ("draw", "argmax"))

    def paths(self) -> int:
        """One path a candidate."""
        return self.candidates

    def run(self, session: Session, started: bool) -> Ending:
        """The plan's steps, a choice before every move and one at the end."""
        wide, program = widened(session, self.candidates, started), session.program
        noise = wide.noise
        assert isinstance(noise, ParticleNoise)
        scorer = Scorer(self.reward, wide.cond, len(wide.start))
        looking = Looking(self.value, self.strength, scorer, wide)
        at = 0

        def between(run: Run, answers: list[Tensor]) -> list[Tensor]:
            x = run.registers[0]
            assert x is not None
            worth = looking(x, program.plan.times[at], program.preview(run), at)
            rows = self._choose(worth, noise.uniforms(at, 1)).repeat_interleave(self.candidates)
            go_on(run, rows)
            return [choose(answer, rows) for answer in answers]

        run = program.start(wide.start, wide.cond, noise)
        run.between = between if self.candidates > 1 else None
        for index in range(program.plan.steps):
            at = index
            program.step(run, index)
        x = run.registers[0]
        assert x is not None
        scores = scorer(x)
        rows = self._choose(self.strength * scores, noise.uniforms(program.plan.steps, 1))
        m = self.candidates
        return Ending(x[rows], m * (run.evaluations + looking.evaluations), m * scorer.calls, scores[rows])

    def _choose(self, worth: Tensor, uniforms: Tensor) -> Tensor:
        """The row of each run's chosen candidate, (runs,)."""
        worth = worth.reshape(-1, self.candidates)
        if self.choice == "argmax":
            chosen = worth.argmax(1)
        else:
            ends = worth.softmax(1).cumsum(1)
            chosen = (ends < uniforms * ends[:, -1:]).sum(1).clamp_max(self.candidates - 1)
        return chosen + self.candidates * torch.arange(len(worth), device=worth.device)
