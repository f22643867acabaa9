"""AFDPS: an ensemble of weighted particles whose law is the posterior, with no approximation of the likelihood.

The family followed is q_t(x) ∝ p_t(x)·e^{−a_t·μ(x)}, μ(x) = ‖A(x) − y‖²/(2σ_y²) on the noisy state itself; only q₀ is
the posterior.  In z = x_t/α at σ̄ = σ/α, with D = σ̄² − σ̄′² and the score s = (x̂₀ − z)/σ̄²,

    ode   z′ on the flow,                      log w += a·μ(z) − a′·μ(z′)
          then Langevin steps at the new level, which leave q alone:   z ← z + h(s − a′∇μ) + √(2h)·ξ
    sde   z′ = z + D(s − a∇μ) + √D·ξ,          log w += D[½(‖a∇μ‖² − aΔμ) − s·a∇μ] + (a − a′)·μ(z)

The weights of "ode" are the paper's rate −H·∇μ integrated along the flow, where it is the difference of μ.  Δμ is a
constant for linear A, which the weights do not see.  a = 1 begins at p_T·e^{−μ}, drawn exactly for linear A with p_T
taken as N(0, σ̄_T² + s²); annealed, a_t = 1 − t/T in the number of the level, begins at plain noise.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError, unknown
from fewstep.loops.questions import Questions
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.search.base import Ending, Search, descending
from fewstep.search.particles import ParticleNoise, Weights, count, number, widened
from fewstep.search.resampling import RULES, multinomial
from fewstep.session import Session

if TYPE_CHECKING:
    from fewstep.restoration import Measurement


@method(
    name="afdps",
    papers=["Solving Inverse Problems via Diffusion-Based Priors: An Approximation-Free Ensemble Sampling Approach"],
    arxiv="2506.03979", family="search", summary="Weighted particles whose law is the posterior itself.",
)  # fmt: skip
@dataclass(frozen=True)
class AFDPS(Search):
    """The approximation-free ensemble sampler, on levels of its own.

    Args:
        measurement: with Gaussian noise; one row for all runs, or one a run.  Linear, but for "ode" annealed.
        particles: k ≥ 1.
        steps: noise levels, at least 2, on Karras' grid.
        form: "ode" or "sde"; the latter is stiff, and stable for D‖A‖²/σ_y² below 1 at every level.
        annealed: whether the likelihood comes in with the levels.
        corrections: Langevin steps a level of "ode", each an evaluation; without any, copies never part.
        step_size: h = step_size·min(σ̄², σ_y²/‖A‖²), more than 0.
        data_variance: s² ≥ 0 of the start, about 0.
        norm: ‖A‖, the largest singular value.
        resample, below: the rule, where the effective size is below this share of k.
        pick: "draw" by weight, or "best", the particle of the highest weight, as the paper shows.
        sigma_max, sigma_min: the first level, or the path's own if that is less, and the last one above 0.

    Raises:
        ArgumentError: a parameter out of its range; a measurement that the form cannot use.
    """

    measurement: "Measurement"
    particles: int = 32
    steps: int = 200
    form: str = "ode"
    annealed: bool = False
    corrections: int = 1
    step_size: float = 0.3
    data_variance: float = 1.0
    norm: float = 1.0
    resample: str = "multinomial"
    below: float = 0.5
    pick: str = "draw"
    sigma_max: float = 80.0
    sigma_min: float = 0.002

    def __post_init__(self) -> None:
        for name, value, known in (
            ("form", self.form, ("ode", "sde")), ("resampling rule", self.resample, RULES),
            ("pick", self.pick, ("draw", "best")),
        ):  # fmt: skip
            if value not in known:
                raise unknown(name, value, known)
        count("particles", self.particles)
        count("steps", self.steps, 2)
        count("corrections", self.corrections, 0)
        for name in ("step_size", "norm", "sigma_max", "sigma_min"):
            number(name, getattr(self, name), open_=True)
        number("data_variance", self.data_variance)
        number("below", self.below, 0, 1)
        if not callable(getattr(self.measurement, "misfit_gradient", None)) or not self.measurement.sigma > 0:
            raise ArgumentError("afdps needs a Measurement with Gaussian noise, sigma more than 0")
        if not self.measurement.linear and (self.form == "sde" or not self.annealed):
            raise ArgumentError("afdps takes an operator that is not linear with form='ode' and annealed=True only")

    def opening(self, path: Path) -> Plan:
        """The levels, as a plan of the flow."""
        return descending(path, self.steps, self.sigma_max, self.sigma_min)

    def run(self, session: Session, started: bool) -> Ending:
        """Predict, correct, resample, level by level."""
        if started:
            raise ArgumentError("afdps begins at p_T·e^{-μ} and takes no start")
        rows = len(self.measurement.y)
        if rows not in (1, len(session.start)):
            raise ArgumentError(f"the measurement has {rows} rows for {len(session.start)} runs; give one or all")
        wide = widened(session, self.particles, started)
        ensemble = _Ensemble(self, wide, len(session.start))
        for level in range(self.steps):
            ensemble.predict(level)
            if self.form == "ode" and level + 1 < self.steps:
                for _ in range(self.corrections):
                    ensemble.correct(level + 1)
            ensemble.resample(level)
        return ensemble.end()


class _Ensemble:
    """The particles z of one call, their levels and their weights."""

    def __init__(self, method: AFDPS, wide: Session, runs: int) -> None:
        self.method, plan = method, wide.program.plan
        assert isinstance(wide.noise, ParticleNoise)
        self.noise = wide.noise
        seen = method.measurement
        self.seen = seen.repeated(len(wide.start) // len(seen.y))
        self.alpha = plan.path.alpha(plan.times).tolist()
        self.ratio = (plan.path.sigma(plan.times) / plan.path.alpha(plan.times)).tolist()
        steps = method.steps
        self.share = [i / steps if method.annealed else 1.0 for i in range(steps + 1)]
        extra = method.corrections if method.form == "ode" else 0
        asked = [plan.times[i] for i in range(steps) for _ in range(1 + extra * (i > 0))]
        self.questions, self.number, self.draw = Questions(wide, torch.stack(asked)), 0, 0
        self.weights = Weights.even(runs, method.particles, wide.start.device)
        self.z = self._start(wide.start)

    def _start(self, start: Tensor) -> Tensor:
        """Plain noise, or the Gaussian N(0, ρ²)·e^{−μ}."""
        plain = start / (self.alpha[0] * self.ratio[0]) * (self.ratio[0] ** 2 + self.method.data_variance) ** 0.5
        if self.method.annealed:
            return plain
        inverse, variance = 1 / (self.ratio[0] ** 2 + self.method.data_variance), self.seen.sigma**2
        pulled = self.seen.operator.A_adjoint(self.seen.seen(plain)) / variance
        mean = self.seen.spectral(lambda d: 1 / (d.square() / variance + inverse), pulled)
        return mean + self.seen.spectral(lambda d: (inverse / (d.square() / variance + inverse)).sqrt(), plain)

    def _score(self, level: int) -> tuple[Tensor, Tensor]:
        """(x̂₀, s) at the particles."""
        x0, asked = self.questions.ask(self.number, self.alpha[level] * self.z)
        self.z, self.number = asked / self.alpha[level], self.number + 1
        return x0, (x0 - self.z) / self.ratio[level] ** 2

    def _misfit(self) -> Tensor:
        """μ(z), float64 (batch,)."""
        return 0.5 * self.seen.residual(self.z).double().square().flatten(1).sum(1) / self.seen.sigma**2

    def _pull(self, level: int) -> Tensor:
        """a∇μ(z)."""
        return self.share[level] / self.seen.sigma**2 * self.seen.misfit_gradient(self.z)

    def _fresh(self) -> Tensor:
        self.draw += 1
        return self.noise.step(self.draw - 1, 0.0, 0.0)

    def predict(self, level: int) -> None:
        """To the next level, with weights."""
        x0, score = self._score(level)
        now, after = self.ratio[level], self.ratio[level + 1]
        before, a, later = self._misfit(), self.share[level], self.share[level + 1]
        if self.method.form == "ode":
            self.z = x0 + after / now * (self.z - x0)
            self.weights.add(a * before - later * self._misfit())
            return
        d, pull = now**2 - after**2, self._pull(level)
        rate = (0.5 * pull.double().square() - score.double() * pull.double()).flatten(1).sum(1)
        self.weights.add(d * rate + (a - later) * before)
        self.z = self.z + d * (score - pull) + d**0.5 * self._fresh()

    def correct(self, level: int) -> None:
        """One Langevin step at q of this level."""
        h = self.method.step_size * min(self.ratio[level] ** 2, (self.seen.sigma / self.method.norm) ** 2)
        score = self._score(level)[1]
        self.z = self.z + h * (score - self._pull(level)) + (2 * h) ** 0.5 * self._fresh()

    def resample(self, level: int) -> None:
        """Where the effective size has fallen; after the last level weights only are noted."""
        if level + 1 == self.method.steps:
            self.weights.note()
            return
        rule, k = RULES[self.method.resample], self.method.particles
        self.z = self.z[self.weights.resample(rule, self.method.below, self.noise.uniforms(level, k))]

    def end(self) -> Ending:
        """One particle of each run."""
        k, shares = self.method.particles, self.weights.shares
        particles = self.z.reshape(-1, k, *self.z.shape[1:])
        if self.method.pick == "best":
            chosen = shares.argmax(1)
        else:
            chosen = multinomial(shares, self.noise.uniforms(self.method.steps, 1))[:, 0]
        at = torch.arange(len(particles), device=shares.device)
        scores = -self._misfit().reshape(-1, k)
        calls = k * (self.method.steps + self.number)
        return Ending(particles[at, chosen], k * self.questions.evaluations, calls, scores[at, chosen], particles,
                      scores, self.weights)  # fmt: skip
