"""Optimal boundary conditions: one start for the noiseless sampler that serves all measurements, found by search.

A deterministic restorer is a function h(x_T, y) of its start.  Of K starts x_Tᵏ ~ N(0, σ_T²) the one is kept with

    x̃_T = argmin_k Σ_i M(h(x_Tᵏ, y_i), z_i),

on a few references z_i with measurements y_i = A(z_i) + noise; it is then used for every y.  That one start suits all
y holds exactly for Gaussian data and M the squared error, where h(x_T, y) = m_y + B·x_T; the best start is then 0,
which `null=True` adds to the candidates.  Where y has several explanations the best start depends on y.  One start
gives one answer: all samples of a row are the same.

Without references of the user's the model draws them itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.guidance import Guide
from fewstep.noise import KeyedNoise
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.program import Program
from fewstep.restoration.base import RestorationGuide, RestorationLoop
from fewstep.restoration.measurement import Measurement
from fewstep.restoration.restoring import restorer_named
from fewstep.results import Stats
from fewstep.sampling import sample
from fewstep.session import Session

Metric = Callable[[Tensor, Tensor], Tensor]
# What a search draws does not depend on the samples that are restored.
FIRST_CANDIDATE, FIRST_REFERENCE = 2**40, 2**41


def squared_error(made: Tensor, truth: Tensor) -> Tensor:
    """The mean squared difference of every row, (batch,)."""
    return (made - truth).flatten(1).square().mean(1)


class Found(NamedTuple):
    """What a search found: the start (1, *shape), the scores (candidates, references), and the evaluations in all."""

    start: Tensor
    scores: Tensor
    evaluations: int


@dataclass(frozen=True)
class SearchStats(Stats):
    """What a restored sample cost once the start was known; `search` is what finding it cost in all."""

    search: int = 0


@method(
    name="optimal-boundary",
    papers=["Solving Diffusion ODEs with Optimal Boundary Conditions for Better Image Super-Resolution"],
    arxiv="2305.15357", family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class OptimalBoundary(RestorationLoop):
    """A start that is searched for once and shared by all measurements (Ma et al. 2023).

    The paper's h is a network trained for super-resolution; here it is any restorer that is a guide, on DDIM.

    Args:
        measurement: what is restored; its operator and noise also make the references' measurements.
        steps: of DDIM, at least 1, evenly spaced.
        restorer: the guide's name in the catalogue.
        start: (1, *shape), a start that `search` found before; searched for unless given.
        truths: (references, *shape), the references; drawn from the model unless given.
        references: how many the model draws, at least 1.
        candidates: K ≥ 1.
        null: whether the start 0 is a candidate too.
        metric: M, (rows, *shape)² → (rows,), lower is better; the squared error unless given.

    Raises:
        ArgumentError: a parameter out of its range, or a restorer that is no guide.
    """

    budget: ClassVar[int] = 20
    measurement: Measurement
    steps: int = 20
    restorer: str = "ddnm"
    start: Tensor | None = None
    truths: Tensor | None = None
    references: int = 4
    candidates: int = 32
    null: bool = False
    metric: Metric = squared_error

    def __post_init__(self) -> None:
        if min(self.steps, self.references, self.candidates) < 1:
            raise ArgumentError(
                f"steps, references and candidates must be at least 1, got {self.steps}, {self.references}, "
                f"{self.candidates}"
            )
        if not isinstance(restorer_named(self.restorer, self.measurement), RestorationGuide):
            raise ArgumentError(f"restorer must be a guide of the catalogue, got {self.restorer!r}")

    def spending(self, evaluations: int) -> Self:
        """So many steps; the search comes on top, once."""
        return replace(self, steps=evaluations)

    def opening(self, path: Path) -> Plan:
        """DDIM on evenly spaced times."""
        return make_plan(path, "ddim", "uniform", self.steps)

    def run(self, session: Session) -> tuple[Tensor, Plan, Stats]:
        """Search unless a start was given, and restore every row from it."""
        program, spent, shared = session.program, 0, self.start
        if shared is None:
            found = self.search(program.denoiser, program.guides, session.noise.seed, program.dtype, program.device)
            shared, spent = found.start, found.evaluations
        if shared.shape != (1, *program.denoiser.shape):
            raise ArgumentError(f"start must be {(1, *program.denoiser.shape)}, got {tuple(shared.shape)}")
        start = shared.to(session.start).expand_as(session.start)
        program = Program(
            program.plan, program.denoiser, [*program.guides, *self._guides(self.measurement)], program.dtype,
            program.device,
        )  # fmt: skip
        run = program.start(start, session.cond, session.noise)
        for index in range(program.plan.steps):
            program.step(run, index)
        x = run.registers[0]
        assert x is not None
        return x, program.plan, SearchStats(run.evaluations, 0.0, spent)

    def _guides(self, measurement: Measurement) -> tuple[Guide, ...]:
        made = restorer_named(self.restorer, measurement)
        assert isinstance(made, RestorationGuide)
        return made.guides()

    def search(
        self,
        denoiser: Denoiser,
        guides: Any = (),
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Found:
        """Score every candidate on every reference; `found.start` goes into `start=` of later calls.

        Args:
            denoiser: the model.
            guides: further guides of the runs.
            seed: of the candidates, the references and their noise.
            dtype, device: of the state.
        """
        plan = self.opening(denoiser.path)
        truths, spent = self.truths, 0
        if truths is None:
            drawn = sample(
                denoiser, self.references, plan=plan, guides=guides, seed=seed, first=FIRST_REFERENCE, dtype=dtype,
                device=device,
            )  # fmt: skip
            truths, spent = drawn.x, drawn.stats.evaluations * self.references
        truths = truths.to(device, dtype)
        numbers = range(FIRST_CANDIDATE, FIRST_CANDIDATE + self.candidates)
        starts = KeyedNoise(seed, numbers, denoiser.shape, dtype, device).start()
        starts = starts * float(denoiser.path.sigma(plan.times[0]))
        if self.null:
            starts = torch.cat([torch.zeros_like(starts[:1]), starts])
        seen = Measurement.simulate(self.measurement.operator, truths, self.measurement.noise, seed)
        scores = []
        for start in starts:
            out = sample(
                denoiser, plan=plan, start=start.expand_as(truths).contiguous(),
                guides=[*guides, *self._guides(seen)], seed=seed,
            )  # fmt: skip
            scores.append(self.metric(out.x, truths))
            spent += out.stats.evaluations * len(truths)
        table = torch.stack(scores)
        return Found(starts[int(table.sum(1).argmin())][None], table, spent)
