"""Soft values: what a noisy state will be worth, V_t(x) = log E[e^{κ·r(x₀)} | x_t = x].

    posterior mean   κ·r(x̂₀)                                free; by Jensen too low for convex r, and short of
                                                            ½κ²Var[aᵀx₀ | x_t] for r = aᵀx
    rollouts         log (1/J) Σ_j e^{κ·r(x₀ʲ)},            x₀ʲ sampled from x_t by J short inner runs
    a callable       V(x, t) itself: exact, or learned (`fewstep.search.learned_value`)

κ ≥ 0 is the strength of the tilt p*(x₀) ∝ p(x₀)·e^{κ·r(x₀)}; x (batch, *shape), t a float64 scalar.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.planning import make_plan
from fewstep.program import Program
from fewstep.search.particles import AHEAD, ParticleNoise, count, repeated
from fewstep.search.rewards import Scorer, checked_scores
from fewstep.session import Session


@dataclass(frozen=True)
class Rollouts:
    """Soft values from inner runs to the end of the path.

    Args:
        draws: J, inner runs of each particle, at least 1.
        steps: ancestral steps of each, at least 1; evenly spaced in λ.
    """

    draws: int = 4
    steps: int = 4

    def __post_init__(self) -> None:
        count("draws", self.draws)
        count("steps", self.steps)


SoftValue = str | Rollouts | Callable[[Tensor, Tensor], Tensor]


def check_value(value: SoftValue) -> None:
    """Refuse what is no soft value."""
    if value != "mean" and not callable(value) and not isinstance(value, Rollouts):
        raise ArgumentError(f"value must be 'mean', Rollouts(…) or a callable V(x, t), got {value!r}")


class Looking:
    """Soft values of the particles of one run of a program.

    Args:
        value: which.
        strength: κ.
        scorer: the reward.
        session: the widened session of the run.
    """

    def __init__(self, value: SoftValue, strength: float, scorer: Scorer, session: Session) -> None:
        check_value(value)
        if isinstance(value, Rollouts):
            for guide in session.program.guides:
                if guide.level == "state":
                    raise ArgumentError(f"rollouts take no guides that move the state, got {guide!r}")
        self.value, self.strength, self.scorer, self.session = value, strength, scorer, session
        self.evaluations = 0

    def __call__(self, x: Tensor, t: Tensor, x0: Tensor, number: int) -> Tensor:
        """V, float64 (batch,).

        Args:
            x: the state, (batch, *shape).
            t: its time.
            x0: x̂₀ there.
            number: of the weighing, by which rollouts draw noise of their own.
        """
        if self.value == "mean":
            return self.strength * self.scorer(x0)
        if isinstance(self.value, Rollouts):
            return self._roll(self.value, x, t, number)
        assert not isinstance(self.value, str)
        return checked_scores(self.value(x, t).double(), len(x), "the value")

    def _roll(self, rollouts: Rollouts, x: Tensor, t: Tensor, number: int) -> Tensor:
        program, noise = self.session.program, self.session.noise
        assert isinstance(noise, ParticleNoise)
        draws, path = rollouts.draws, program.plan.path
        plan = make_plan(path, "ddpm", "logsnr", rollouts.steps, start=float(t))
        inner = Program(plan, program.denoiser, program.guides, x.dtype, x.device)
        k, *shape = noise.shape
        fresh = ParticleNoise(
            noise.seed, noise.samples, k * draws, shape, x.dtype, x.device, AHEAD, number * rollouts.steps
        )
        run = inner.start(x.repeat_interleave(draws, 0), repeated(self.session.cond, draws), fresh)
        for index in range(plan.steps):
            inner.step(run, index)
        self.evaluations += run.evaluations * draws
        ends = run.registers[0]
        assert ends is not None
        scores = self.strength * self.scorer(ends)
        return scores.reshape(len(x), draws).logsumexp(1) - math.log(draws)
