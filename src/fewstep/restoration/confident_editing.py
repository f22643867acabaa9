"""CODE: an unknown corruption removed by encoding the picture to a noise level, Langevin moves there, and decoding it.

    encode   x_s = α_s·x̂₀ + σ_s·ε̂ up the levels, every state first clipped to [α·low − k·σ, α·high + k·σ]
    edit     x ← x + ε·s + √(2ε)·ξ at the level L, in blocks that multiply ε by a factor and end in x ← x + ε·s
    decode   the same steps down to 0,      s = (α·x̂₀ − x)/σ²,   ε = c·σ²

Neither A nor the noise is used: the picture is y where that has x's shape, else A†y.  Encoding begins at the lowest
level with a little noise.  A true x_t lies within k standard deviations of the data's range with a probability of at
least Φ(k) − Φ(−k), so the clip discards what no picture makes.  More and longer moves forget more of the picture; as
they go on for ever, the answer is a sample of the model.  The paper's box has −ε·s; its equation and its code have +.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Self

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.loops.questions import Questions
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.restoration.base import RestorationLoop, levels
from fewstep.restoration.measurement import Measurement
from fewstep.results import Stats
from fewstep.session import Session


@method(name="code", papers=["CODE: Confident Ordinary Differential Editing"], arxiv="2408.12418", family="restoration")
@dataclass(frozen=True)
class ConfidentEditing(RestorationLoop):
    """Confident ordinary differential editing: blind, by the flow and Langevin moves (van Delft et al. 2024).

    Args:
        measurement: whose y is the corrupted picture, or whose A†y where y is none.
        level: L as σ̄ = σ/α > 0; levels 40 and 200 of the usual 1,000 are 0.15 and 0.7.
        steps: levels from the lowest up to L, at least 1; as many evaluations up and down.  Published: 200.
        moves: Langevin moves in all, at least 0; 200 as published.
        step_size: c > 0, ε in units of σ²; published from 0.5 at level 40 down to 1e-5 at level 200.
        blocks: how many blocks the moves are in, at least 1; with moves, each costs one evaluation more.
        factor: of ε after every block, in (0, 1].
        confidence: k > 0 of the clip; ∞ for none.
        lowest: σ̄ of the level where encoding begins, below `level`.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    budget: ClassVar[int] = 603
    measurement: Measurement
    level: float = 0.5
    steps: int = 200
    moves: int = 200
    step_size: float = 1e-2
    blocks: int = 4
    factor: float = 0.8
    confidence: float = 1.7
    lowest: float = 0.01

    def __post_init__(self) -> None:
        if self.steps < 1 or self.moves < 0 or self.blocks < 1:
            raise ArgumentError(
                f"steps and blocks must be at least 1 and moves at least 0, got {self.steps}, {self.blocks}, "
                f"{self.moves}"
            )
        if not 0 < self.lowest < self.level < math.inf:
            raise ArgumentError(f"lowest and level must rise from 0, got {self.lowest} and {self.level}")
        if not (self.step_size > 0 and 0 < self.factor <= 1 and self.confidence > 0):
            raise ArgumentError("step_size and confidence must be more than 0, and factor in (0, 1]")

    def spending(self, evaluations: int) -> Self:
        """A third each for encoding, moves and decoding, in proportion to what they have now."""
        full = 2 * self.steps + self.moves
        steps = max(1, min(self.steps * evaluations // full, evaluations // 2))
        left = max(0, evaluations - 2 * steps)
        blocks = max(1, min(self.blocks, left // 2))
        return replace(self, steps=steps, moves=max(0, left - blocks), blocks=blocks)

    def opening(self, path: Path) -> Plan:
        """The flow from L down, evenly spaced in log σ̄, to 0."""
        ratios = torch.linspace(math.log(self.level), math.log(self.lowest), self.steps, dtype=torch.float64)
        times = path.t_of_lam(-ratios) if self.steps > 1 else path.t_of_lam(-ratios[:1])
        return make_plan(path, "ddim", torch.cat([times, torch.zeros(1, dtype=torch.float64)]))

    def _blocks(self) -> list[list[float]]:
        """c of every move, block by block; none without moves."""
        cut = [self.moves * k // self.blocks for k in range(self.blocks + 1)]
        sizes = [self.step_size * self.factor**k for k in range(self.blocks)]
        return [[size] * (b - a) for (a, b), size in zip(pairwise(cut), sizes, strict=True) if b > a]

    def run(self, session: Session) -> tuple[Tensor, Plan, Stats]:
        """Up to L, the moves there, and down again."""
        plan, blocks = session.program.plan, self._blocks()
        down = plan.times[:-1]
        up = down.flip(0)[:-1]
        still = sum(len(block) + 1 for block in blocks)
        asks = Questions(session, torch.cat([up, down[:1].expand(still), down]))
        line = levels(plan.path, plan.times)
        x = self._encode(session, asks, line)
        number, draws = len(up), 1
        alpha, sigma = line[0]
        for block in blocks:
            for c in [*block, None]:
                x0, x = asks.ask(number, x)
                size = block[-1] if c is None else c
                x = x + size * (alpha * x0 - x)
                if c is not None:
                    x, draws = x + math.sqrt(2 * size) * sigma * session.noise.guide(draws), draws + 1
                number += 1
        for here, after in pairwise(line):
            x, number = self._step(asks, number, x, here, after), number + 1
        return x, plan, Stats(asks.evaluations, 0.0)

    def _encode(self, session: Session, asks: Questions, line: list[tuple[float, float]]) -> Tensor:
        """The picture at level L."""
        y = self.measurement.seen(session.start)
        picture = y.expand_as(session.start) if y.shape[1:] == session.start.shape[1:] else None
        picture = self.measurement.first_guess(session.start) if picture is None else picture
        rising = line[:-1][::-1]
        x = rising[0][0] * picture + rising[0][1] * session.noise.guide(0)
        for number, (here, after) in enumerate(pairwise(rising)):
            x = self._step(asks, number, self._clipped(session, x, here), here, after)
        return self._clipped(session, x, rising[-1])

    def _clipped(self, session: Session, x: Tensor, level: tuple[float, float]) -> Tensor:
        low, high = session.program.denoiser.limits
        reach = self.confidence * level[1]
        free = math.isinf(reach) or session.program.denoiser.latent  # latents have no range of their own
        return x if free else x.clamp(level[0] * low - reach, level[0] * high + reach)

    @staticmethod
    def _step(asks: Questions, number: int, x: Tensor, here: tuple[float, float], after: tuple[float, float]) -> Tensor:
        x0, x = asks.ask(number, x)
        return after[0] * x0 + after[1] / here[1] * (x - here[0] * x0)
