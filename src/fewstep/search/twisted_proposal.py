"""A twisted proposal: fresh noise leans towards what a state promises, and the weights take the leaning back.

With V = κ·r(x̂₀(x_t)), its slope v = ∇V at the state, and c the coefficient of the fresh noise in the step's x,

    ξ′ = ξ + c·v,  ξ ~ N(0, I),      x moves by c²·v,      log p(ξ′) − log τ(ξ′) = −c·v·ξ − ½c²‖v‖²,

the twisted diffusion sampler's step.  As everything else in a step follows from ξ′, the ratio is exact for any plan and
any v: a slope that leads astray costs effective size and never the law.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.guidance import Ask, Guide
from fewstep.guidance.gradient import gradient_of
from fewstep.program import Program, Run
from fewstep.rows import Number, Row
from fewstep.search.particles import ParticleNoise
from fewstep.search.rewards import Scorer
from fewstep.session import Session


@dataclass(frozen=True, eq=False)
class Promise(Guide):
    """Changes nothing; its memory is (V, ∇V) of every row at the last question.

    Args:
        scorer: the reward, differentiable.
        strength: κ.
    """

    level: ClassVar[str] = "answer"
    needs_grad: ClassVar[bool] = True
    scorer: Scorer
    strength: float

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        values = self.strength * self.scorer.differentiable(x0)
        slope = gradient_of(values, ask.x, "the reward at x̂₀")
        return x0, (values.detach(), slope)


class LeaningNoise(ParticleNoise):
    """A run's noise with a lean, whose log-ratio is told whenever it is drawn.

    Args:
        noise: what is leant.
        tell: called with log p − log τ, float64 (batch,), of every leant draw.
    """

    def __init__(self, noise: ParticleNoise, tell: Callable[[Tensor], None]) -> None:
        particles, *shape = noise.shape
        super().__init__(noise.seed, noise.samples, particles, shape, noise.dtype, noise.device)
        self.lean: Tensor | None = None
        self._tell = tell

    def step(self, index: int, lam: float, lam_next: float) -> Tensor:
        """Draw number `index` of every particle, leant."""
        drawn, lean = super().step(index, lam, lam_next), self.lean
        if lean is None:
            return drawn
        self.lean = None
        self._tell(-(lean.double() * (drawn.double() + 0.5 * lean.double())).flatten(1).sum(1))
        return drawn + lean


def twisted(session: Session, scorer: Scorer, strength: float, tell: Callable[[Tensor], None]) -> Session:
    """The session with the guide that knows the slope and the noise that leans.

    Args:
        session: the widened session.
        scorer: the reward.
        strength: κ.
        tell: as in `LeaningNoise`.

    Raises:
        ArgumentError: a plan that draws several noises a step.
    """
    old, noise = session.program, session.noise
    assert isinstance(noise, ParticleNoise)
    if old.draws > 1:
        raise ArgumentError("a twisted proposal takes a plan that draws one noise a step, such as solver='ddpm'")
    program = Program(old.plan, old.denoiser, [*old.guides, Promise(scorer, strength)], old.dtype, old.device)
    return replace(session, program=program, noise=LeaningNoise(noise, tell))


def promised(program: Program, run: Run) -> tuple[Tensor, Tensor]:
    """(V, ∇V) at the last question."""
    (place,) = (i for i, guide in enumerate(program.guides) if isinstance(guide, Promise))
    memory: tuple[Tensor, Tensor] = run.memories[place]
    return memory


def lean(program: Program, run: Run, index: int) -> None:
    """Let the noise of step `index` lean by its coefficient times the slope."""
    assert isinstance(run.noise, LeaningNoise)
    coefficient = fresh_share(program.rows[index], len(run.registers))
    if coefficient is not None:
        run.noise.lean = coefficient * promised(program, run)[1]


def fresh_share(row: Row, registers: int) -> Number | None:
    """The coefficient of a step's noise in x; None where x gets none."""
    drawn = registers + len(row.questions)
    for to, terms in row.writes:
        if to == 0:
            return dict(terms).get(drawn)
    return None
