"""Feynman–Kac steering: particles that are reweighted and resampled on their way, by what they promise.

With V_i the soft value of a particle at its i-th weighing (V_n = κ·r(x₀) at the end) and any potentials whose product
along a particle's own ancestry is e^{κ·r(x₀)}, the particles' law tends to p* ∝ p·e^{κ·r}:

    difference    G_i = e^{V_i − V_{i−1}},  V_0 = 0
    max           G_i = e^{R_i},  R_i = max(R_{i−1}, V_i)
    sum           G_i = e^{R_i},  R_i = R_{i−1} + V_i           and at the end  G_n = e^{V_n}/Π_{i<n} G_i.

Under max and sum the last potential has to take back what the others gave, so that in practice they optimise and only
"difference" samples p*.  ending="running" is the released code: max begins at R_0 = 0, and at the end the running R_n
stands for V_n, so that the law is not p* however many particles there are.

Twisted, the fresh noise of every step leans towards the slope of V, and p/τ of what was drawn goes into the weights too
(`fewstep.search.twisted_proposal`).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError, unknown
from fewstep.program import Run
from fewstep.search.base import Ending, Search
from fewstep.search.particles import ParticleNoise, Weights, choose, count, go_on, number, widened
from fewstep.search.resampling import RULES, multinomial
from fewstep.search.rewards import Function, Reward, Scorer
from fewstep.search.twisted_proposal import lean, promised, twisted
from fewstep.search.values import Looking, SoftValue, check_value
from fewstep.session import Session

POTENTIALS = ("difference", "max", "sum")


@method(
    name="fk-steering", papers=["A General Framework for Inference-time Scaling and Steering of Diffusion Models"],
    arxiv="2501.06848", family="search", summary="Particles reweighted and resampled on their way towards p·e^{κr}.",
)  # fmt: skip
@dataclass(frozen=True)
class FKSteering(Search):
    """Feynman–Kac steering on any plan that draws noise; ancestral sampling unless given.

    Args:
        reward: r, a callable on pictures or a `Reward`.
        strength: κ ≥ 0.
        particles: k ≥ 1; one particle is the plain sampler.
        potential: "difference", "max" or "sum".
        value: "mean" (r at x̂₀), `Rollouts(…)`, or a callable V(x, t) with κ in it.
        weighings: how many, spread evenly over the steps, the last one at the end; or the numbers of the steps before
            which particles are weighed, the end added.
        resample: "multinomial" (the paper's), "systematic", "residual" or "ssp".
        below: resampled where the effective size is below this share of k, in [0, 1]; 1, the paper's, is always but
            for equal weights.  Weights that are not used are kept.
        pick: "draw" gives a particle by its weight, a sample of p*; "best", the paper's, the one of highest reward.
        ending: "exact", or "running" as the released code ends max and sum.
        twisted: whether noise leans towards the reward's slope at x̂₀, through the network, as in the twisted diffusion
            sampler; the reward must be differentiable.

    Raises:
        ArgumentError: a parameter out of its range; a plan without noise that is weighed before its end or twisted.
    """

    solver: ClassVar[str] = "ddpm"
    reward: Function | Reward
    strength: float = 1.0
    particles: int = 4
    potential: str = "difference"
    value: SoftValue = "mean"
    weighings: int | tuple[int, ...] = 10
    resample: str = "systematic"
    below: float = 1.0
    pick: str = "draw"
    ending: str = "exact"
    twisted: bool = False

    def __post_init__(self) -> None:
        for name, known in (("potential", POTENTIALS), ("pick", ("draw", "best")), ("ending", ("exact", "running"))):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        if self.resample not in RULES:
            raise unknown("resampling rule", self.resample, RULES)
        number("strength", self.strength)
        number("below", self.below, 0, 1)
        count("particles", self.particles)
        check_value(self.value)
        if isinstance(self.weighings, int):
            count("weighings", self.weighings)
        elif not isinstance(self.weighings, (tuple, list)) or not self.weighings:
            raise ArgumentError(f"weighings must be a number, or numbers of steps from 0; got {self.weighings!r}")
        else:
            for place in self.weighings:
                count("weighings", place, 0)
        if not isinstance(self.twisted, bool):
            raise ArgumentError(f"twisted must be True or False, got {self.twisted!r}")

    def paths(self) -> int:
        """One path a particle."""
        return self.particles

    def run(self, session: Session, started: bool) -> Ending:
        """The plan's steps with weighings between an answer and its move."""
        plan = session.program.plan
        when = self._when(plan.steps)
        if not plan.stochastic and ((when and self.particles > 1) or self.twisted):
            raise ArgumentError(
                "copies of a particle stay copies on a plan without noise, and nothing leans: take solver='ddpm' or "
                "another that draws noise; or weighings=1, at the end only, untwisted"
            )
        steered = _Steered(self, widened(session, self.particles, started), when, len(session.start))
        wide = steered.wide
        run = wide.program.start(wide.start, wide.cond, wide.noise)
        run.between = steered.between
        for index in range(plan.steps):
            steered.index = index
            wide.program.step(run, index)
        return steered.end(run)

    def _when(self, steps: int) -> dict[int, int]:
        """The steps before whose move particles are weighed, each with the number of its weighing."""
        if isinstance(self.weighings, int):
            if self.weighings > steps:
                raise ArgumentError(
                    f"weighings={self.weighings} do not fit into {steps} steps: take more steps or fewer weighings"
                )
            places = [round(steps * i / self.weighings) for i in range(1, self.weighings)]
        else:
            places = sorted(set(self.weighings))
            if places[-1] >= steps:
                raise ArgumentError(f"weighings must be numbers of steps from 0 to {steps - 1}, got {places}")
        return {place: i for i, place in enumerate(places)}


class _Steered:
    """The particles of one call: their weights, and what each remembers of its own weighings."""

    def __init__(self, method: FKSteering, wide: Session, when: dict[int, int], runs: int) -> None:
        self.weights = Weights.even(runs, method.particles, wide.start.device)
        self.scorer = Scorer(method.reward, wide.cond, len(wide.start))
        if method.twisted:
            wide = twisted(wide, self.scorer, method.strength, self.weights.add)
        self.method, self.wide, self.when, self.index = method, wide, when, 0
        self.looking = Looking(method.value, method.strength, self.scorer, wide)
        rows = wide.start.new_zeros(len(wide.start), dtype=torch.float64)
        self.given = rows
        self.best = rows if method.ending == "running" or method.potential != "max" else rows - torch.inf

    def _weigh(self, value: Tensor) -> None:
        """Multiply the weights by the potential of a value."""
        if self.method.potential == "difference":
            gain = value - self.given
        else:
            self.best = torch.maximum(self.best, value) if self.method.potential == "max" else self.best + value
            gain = self.best
        self.given = self.given + gain
        self.weights.add(gain)

    def between(self, run: Run, answers: list[Tensor]) -> list[Tensor]:
        """Where it is time: weigh, resample, and let only the chosen rows move."""
        if self.index in self.when:
            answers = self._choose(run, answers, self.when[self.index])
        if self.method.twisted:
            lean(self.wide.program, run, self.index)
        return answers

    def _value(self, run: Run, weighing: int) -> Tensor:
        """V of every particle."""
        program, x = self.wide.program, run.registers[0]
        assert x is not None
        if self.method.twisted and self.method.value == "mean":
            return promised(program, run)[0]
        return self.looking(x, program.plan.times[self.index], program.preview(run), weighing)

    def _choose(self, run: Run, answers: list[Tensor], weighing: int) -> list[Tensor]:
        """Weigh and resample: the answers of the rows that go on."""
        noise = self.wide.noise
        assert isinstance(noise, ParticleNoise)
        self._weigh(self._value(run, weighing))
        rule = RULES[self.method.resample]
        rows = self.weights.resample(rule, self.method.below, noise.uniforms(weighing, self.method.particles))
        self.given, self.best = choose(self.given, rows), choose(self.best, rows)
        go_on(run, rows)
        return [choose(answer, rows) for answer in answers]

    def end(self, run: Run) -> Ending:
        """The last weighing, and one particle of each run."""
        x, noise, k = run.registers[0], self.wide.noise, self.method.particles
        assert x is not None
        assert isinstance(noise, ParticleNoise)
        scores = self.scorer(x)
        value = self.method.strength * scores
        if self.method.ending == "running" and self.method.potential != "difference":
            self._weigh(value)
        else:
            self.weights.add(value - self.given)
        self.weights.note()
        scores, particles = scores.reshape(-1, k), x.reshape(-1, k, *x.shape[1:])
        if self.method.pick == "best":
            chosen = scores.argmax(1)
        else:
            chosen = multinomial(self.weights.shares, noise.uniforms(len(self.when), 1))[:, 0]
        at = torch.arange(len(particles), device=x.device)
        return Ending(
            particles[at, chosen], k * (run.evaluations + self.looking.evaluations), k * self.scorer.calls,
            scores[at, chosen], particles, scores, self.weights,
        )  # fmt: skip
