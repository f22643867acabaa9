"""What a run gives back: an event a step, and at its end the samples with what they cost and how to make them again."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from fewstep.plan import Plan


@dataclass(frozen=True)
class Stats:
    """What a run cost: network evaluations a sample (guidance counted), and seconds in all."""

    evaluations: int
    seconds: float


@dataclass(frozen=True, repr=False)
class Output:
    """What `sample` gives back.

    Args:
        x: the samples, (batch, *shape).
        stats: what it cost.
        plan: the plan that ran.
        seeds: (seed, number) of every sample; `sample(…, 1, seed=seed, first=number)` makes it again alone, unless
            `noise` is "comfyui".
        trajectory: (steps + 1, batch, *shape), the state before every step and after the last, if kept.
        answers: (steps, batch, *shape), x̂₀ of every step, if kept.
        limits: the range of the data, for pictures.
        model: the name of the model, "owner/name@commit" of one from the hub, where it has one.
        noise: what `sample` was told of the noise.
        by: the search or the filter that drew the samples with the plan, where there was one.
    """

    x: Tensor
    stats: Stats
    plan: Plan
    seeds: list[tuple[int, int]]
    trajectory: Tensor | None = None
    answers: Tensor | None = None
    limits: tuple[float, float] = (-1.0, 1.0)
    model: str = ""
    noise: str = "keyed"
    by: str = ""

    def __repr__(self) -> str:
        """A line, as the numbers of all samples would fill pages."""
        spent = f"{self.stats.evaluations} evaluations a sample, {self.stats.seconds:.3g} s"
        return f"<{type(self).__name__} x {tuple(self.x.shape)}, {spent}, {self.plan!r}>"

    def save(self, path: str | Path, columns: int = 0) -> None:
        """Write the samples as one PNG grid that carries its recipe: plan, seeds and versions.

        Raises:
            ArgumentError: the name ends otherwise than in .png, or the samples are no pictures.
        """
        from fewstep.pictures import save

        save(self, path, columns)

    def _repr_png_(self) -> bytes:
        from fewstep.pictures import png

        return png(self)


@dataclass(frozen=True)
class Event:
    """A step that was taken.

    Args:
        step, of: its number from 1, and how many there are.
        t: the time after it, float64 of the plan's place.
        evaluations: network evaluations a sample so far.
        x: the state after it.
    """

    step: int
    of: int
    t: Tensor
    evaluations: int
    x: Tensor
    _preview: Callable[[], Tensor] = field(repr=False)
    _stop: threading.Event = field(repr=False)

    @property
    def x0(self) -> Tensor:
        """The preview x̂₀ of this step; made only when looked at, and before the next step is taken.

        Raises:
            ArgumentError: nothing was asked yet (evaluations is 0), as in a plan whose first step draws noise alone.
        """
        return self._preview()

    def stop(self) -> None:
        """End the run after this step; safe from any thread."""
        self._stop.set()
