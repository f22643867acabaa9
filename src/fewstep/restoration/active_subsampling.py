"""Active diffusion subsampling: particles guess the whole measurement, and what they disagree on most is measured next.

Every particle takes DPS steps towards what was measured so far.  At some steps their guesses ŷⁱ = A(x̂₀ⁱ) are a belief
Σ_i N(ŷⁱ, σ²)/N about y, and the candidate a (a pixel, a column, …) with the largest

    published    Σ_i log Σ_j exp(+Σ_{k∈a} (ŷ_kⁱ − ŷ_kʲ)²/(2σ²))
    entropy     −Σ_i log (1/N)·Σ_j exp(−Σ_{k∈a} (ŷ_kⁱ − ŷ_kʲ)²/(2σ²))

is measured.  The second bounds N times the belief's entropy from above (up to that of one N(·, σ²)); the first is what
the paper and its code have.  For σ far above the spread of the guesses both rank candidates by the particles' variance;
for a small one the first ranks by the most distant pair.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError, unknown
from fewstep.guidance import Ask, Guide
from fewstep.guidance.gradient import gradient_of
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.program import Program
from fewstep.restoration.base import RestorationLoop, level_of
from fewstep.restoration.measurement import Measurement
from fewstep.results import Stats
from fewstep.session import Session

RULES = ("published", "entropy")


def candidates(shape: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """The number of the candidate that each number of y belongs to, int64 of `shape`.

    Args:
        shape: of one row of y.
        axes: the axes, counted from the last as negative numbers, along which candidates differ.
    """
    number = torch.zeros(shape, dtype=torch.int64)
    for axis in sorted(a % len(shape) for a in axes):
        place = torch.arange(shape[axis]).reshape(-1, *[1] * (len(shape) - axis - 1))
        number = number * shape[axis] + place
    return number


def disagreement(guesses: Tensor, candidate: Tensor, count: int, belief: float, rule: str) -> Tensor:
    """How much particles disagree on every candidate, (count,).

    Args:
        guesses: (particles, numbers), what each expects to be measured.
        candidate: int64 (numbers,), which candidate each number belongs to.
        count: how many candidates there are.
        belief: σ > 0.
        rule: "published" or "entropy".
    """
    sign = 1.0 if rule == "published" else -1.0
    apart = []
    for one in guesses:
        square = (guesses - one).square()
        apart.append(square.new_zeros(len(guesses), count).index_add_(1, candidate, square))
    inner = torch.logsumexp(sign * torch.stack(apart) / (2 * belief**2), dim=1)
    return sign * inner.sum(0) + (0.0 if sign > 0 else len(guesses) * math.log(len(guesses)))


class Taken(NamedTuple):
    """What was measured so far: (scenes, candidates) as truth values, and the candidates in their order."""

    shown: Tensor
    order: tuple[Tensor, ...]


@dataclass(frozen=True)
class Looking(Guide):
    """DPS towards what was measured, which grows at some steps.

    Args:
        measurement: one row a particle.
        scene: int64 (rows,), which particles look at the same scene.
        candidate: of `candidates`, flattened.
        given: candidates that are measured from the start.
        steps: at which steps one more is measured.
        belief, rule, scale: of `ActiveSubsampling`.
    """

    level: ClassVar[str] = "answer"
    keeps: ClassVar[str] = "eps"
    needs_grad: ClassVar[bool] = True
    couples: ClassVar[bool] = True
    measurement: Measurement
    scene: Tensor
    candidate: Tensor
    given: tuple[int, ...]
    steps: frozenset[int]
    belief: float
    rule: str
    scale: float

    def init(self, denoiser: Any, batch: int) -> Taken:
        scenes, count = int(self.scene.max()) + 1, int(self.candidate.max()) + 1
        shown = torch.zeros(scenes, count, dtype=torch.bool, device=self.scene.device)
        for one in self.given:
            shown[:, one] = True
        return Taken(shown, tuple(torch.full((scenes,), one, device=self.scene.device) for one in self.given))

    def needs_order(self) -> bool:
        return True

    def answer(self, ask: Ask, x0: Tensor, state: Taken) -> tuple[Tensor, Taken]:
        off = self.measurement.residual(x0).flatten(1)
        if ask.index in self.steps:
            state = self._look(self.measurement.seen(x0).flatten(1) - off.detach(), state)
        seen = state.shown[self.scene][:, self.candidate]
        distance = torch.linalg.vector_norm(off * seen, dim=1)
        slope = gradient_of(distance, ask.x, "ads", create_graph=ask.differentiated)
        return x0 - self.scale / level_of(ask, "ads").alpha_next * slope, state

    def _look(self, guesses: Tensor, state: Taken) -> Taken:
        """Measure one more candidate of every scene."""
        count, chosen = state.shown.shape[1], []
        for number, shown in enumerate(state.shown):
            one = disagreement(guesses[self.scene == number], self.candidate, count, self.belief, self.rule)
            chosen.append(one.masked_fill(shown, -math.inf).argmax())
        newest = torch.stack(chosen)
        return Taken(state.shown.scatter(1, newest[:, None], True), (*state.order, newest))


@method(
    name="ads", papers=["Active Diffusion Subsampling"], arxiv="2406.14388", family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class ActiveSubsampling(RestorationLoop):
    """Active diffusion subsampling (Nolan et al. 2024).

    The measurement holds all that could be measured, and the method looks at no more of it than it chose.  All samples
    of a row are the particles of one belief, so they depend on one another.  What was chosen, in its order, stands in
    the result's `plan.source["chosen"]`, one list for every row that differs.

    Args:
        measurement: of the whole scene.
        count: how many candidates are measured in all, those of `given` included, at least 1.
        axes: the axes of y, counted from the last, along which candidates differ: (-1,) columns, (-2, -1) pixels, and
            (-2,) the columns of a Fourier mask.
        given: candidates that are measured from the start.
        steps: of DDIM, at least 1.
        window: the shares of the run between which candidates are chosen, in evenly spaced steps; (0, 0.8) as published
            for MNIST.
        belief: σ > 0, of each particle's guess; 10 as published for MNIST, 50 for MRI.
        rule: "published" or "entropy".
        scale: ω ≥ 0, of DPS; 1 as published for MNIST, 0.85 for MRI.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    budget: ClassVar[int] = 1000
    couples: ClassVar[bool] = True
    measurement: Measurement
    count: int = 5
    axes: tuple[int, ...] = (-1,)
    given: tuple[int, ...] = ()
    steps: int = 1000
    window: tuple[float, float] = (0.0, 0.8)
    belief: float = 10.0
    rule: str = "published"
    scale: float = 1.0

    def __post_init__(self) -> None:
        shape = tuple(self.measurement.y.shape[1:])
        if self.rule not in RULES:
            raise unknown("rule", self.rule, RULES)
        if not self.axes or any(not -len(shape) <= a < 0 for a in self.axes):
            raise ArgumentError(f"axes must count those of y, {shape}, from the last as -1; got {self.axes}")
        there = math.prod(shape[a] for a in set(self.axes))
        if not max(1, len(self.given)) <= self.count <= there or any(not 0 <= a < there for a in self.given):
            raise ArgumentError(
                f"count must lie between 1 and the {there} candidates, those of given included; got {self.count} with "
                f"given={self.given}"
            )
        if not 0 <= self.window[0] < self.window[1] <= 1 or not self.belief > 0 or not self.scale >= 0:
            raise ArgumentError("window must rise within [0, 1], belief be more than 0 and scale at least 0")

    def spending(self, evaluations: int) -> Self:
        return replace(self, steps=evaluations)

    def opening(self, path: Path) -> Plan:
        """DDIM on evenly spaced times."""
        return make_plan(path, "ddim", "uniform", self.steps)

    def _when(self) -> frozenset[int]:
        """The steps at which one more candidate is measured."""
        more, (begin, end) = self.count - len(self.given), (round(share * self.steps) for share in self.window)
        if more > end - begin:
            raise ArgumentError(f"{more} choices do not fit into the window's {end - begin} steps; take more steps")
        return frozenset(begin + k * (end - begin) // more for k in range(more))

    def run(self, session: Session) -> tuple[Tensor, Plan, Stats]:
        """The particles' steps, with a look at some of them."""
        y = self.measurement.seen(session.start).flatten(1)
        scene = torch.unique(y, dim=0, return_inverse=True)[1].expand(len(session.start))
        candidate = candidates(tuple(self.measurement.y.shape[1:]), self.axes).flatten().to(y.device)
        guide = Looking(
            self.measurement, scene, candidate, self.given, self._when(), self.belief, self.rule, self.scale
        )
        old = session.program
        program = Program(old.plan, old.denoiser, [*old.guides, guide], old.dtype, old.device)
        run = program.start(session.start, session.cond, session.noise)
        for index in range(program.plan.steps):
            program.step(run, index)
        x, taken = run.registers[0], run.memories[program.guides.index(guide)]
        assert x is not None
        # Scenes in the order of the rows.
        chosen = torch.stack(taken.order, 1)[list(dict.fromkeys(scene.tolist()))].tolist()
        return x, replace(old.plan, source={**old.plan.source, "chosen": chosen}), Stats(run.evaluations, 0.0)
