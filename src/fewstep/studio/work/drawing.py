"""Samples, step by step: the preview x̂₀ of every step, what it cost so far, and at the end the pictures."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from fewstep.denoisers import Denoiser
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.results import Output, Stats
from fewstep.sampling import stream
from fewstep.studio.bounds import fits, picture_shape, whole
from fewstep.studio.guides import Chosen, guides_code, imports
from fewstep.studio.models import MNIST, Model
from fewstep.studio.showing import samples
from fewstep.studio.watching import Progress

# The least time between two previews: making and sending one costs some milliseconds.
PAUSE = 0.04


@dataclass(frozen=True)
class Draw:
    """What is to be sampled.

    Args:
        model: which, and what it is told.
        n: pictures.
        solver: a solver of the catalogue, or "auto".
        grid: a grid; not for "auto", whose tuned plans have their own.
        steps: grid intervals; for "auto" the evaluations.
        guides: in any order.
        seed: of the noises.
    """

    model: Model = MNIST
    n: int = 16
    solver: str = "dpm-solver++"
    grid: str = "logsnr"
    steps: int = 8
    guides: tuple[Chosen, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("pictures", self.n), ("steps", self.steps), ("seed", self.seed)):
            whole(name, value)

    def _grid(self) -> str | None:
        return None if self.solver == "auto" else self.grid

    def plan(self, denoiser: Denoiser) -> Plan:
        """The plan that runs."""
        return make_plan(denoiser.path, self.solver, self._grid(), self.steps, model=denoiser.name)

    def code(self) -> str:
        """Python that gives the same pictures."""
        denoiser = self.model.load()
        told = self.model.condition_code(denoiser, self.n)
        grid = "" if self._grid() is None else f"grid={self.grid!r}"
        options = [
            f"solver={self.solver!r}", grid, f"steps={self.steps}", guides_code(self.guides),
            f"cond={told}" if told else "", f"seed={self.seed}",
        ]  # fmt: skip
        call = ",\n    ".join(filter(None, options))
        latent = denoiser.latent
        head = ["from dataclasses import replace", ""] if latent else []
        shown = "replace(out, x=den.decode(out.x))" if latent else "out"
        return "\n".join([
            *head, "import fewstep", *imports(self.guides), "", self.model.code(),
            f"out = fewstep.sample(\n    den, {self.n},\n    {call},\n)", f'{shown}.save("samples.png")',
            "print(out.stats)", "",
        ])  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """What there is to see after a step.

    Args:
        progress: in words, and the share of steps.
        picture: the preview, or at the end the samples; None where nothing new is shown.
        plan: what runs.
        output: at the end, what `sample` gives back, with pictures for samples; None before, and after a stop.
        stopped: whether the run was ended by the visitor.
    """

    progress: Progress
    picture: Image.Image | None
    plan: Plan
    output: Output | None = None
    stopped: bool = False


def drawn(ask: Draw, stop: threading.Event) -> Iterator[Drawn]:
    """Sample, and yield after every step.

    Args:
        ask: what.
        stop: set it, and the run ends after the step that is being taken.

    Raises:
        ArgumentError: a bad request, before the first evaluation.
    """
    denoiser = ask.model.load()
    fits(denoiser, ask.n)
    plan = ask.plan(denoiser)
    cond = ask.model.condition(denoiser, ask.n)
    picture_shape(denoiser)
    yield Drawn(Progress(f"{plan.steps} steps of {ask.n} pictures", 0.0), None, plan)
    began, shown, event = time.perf_counter(), 0.0, None
    options: dict[str, Any] = {"guides": [g.make() for g in ask.guides], "cond": cond, "seed": ask.seed}
    for event in stream(denoiser, ask.n, plan=plan, **options):
        if stop.is_set():
            event.stop()
        now = time.perf_counter()
        if event.step == event.of:
            break
        line = f"step {event.step} of {event.of}, {event.evaluations} evaluations each, {now - began:.2f} s"
        # A plan may begin without a question, and has no belief to show yet.
        if event.evaluations and (now - shown >= PAUSE or stop.is_set()):
            shown = now
            with torch.no_grad():
                picture = samples(denoiser.decode(event.x0), denoiser)
            yield Drawn(Progress(line, event.step / event.of), picture, plan, stopped=stop.is_set())
    assert event is not None
    if event.step < event.of:
        line = f"stopped after step {event.step} of {event.of}: this is its preview; the code gives the whole run"
        yield Drawn(Progress(line), None, plan, stopped=True)
        return
    seconds = time.perf_counter() - began
    with torch.no_grad():
        x = denoiser.decode(event.x)
    seeds = [(ask.seed, i) for i in range(ask.n)]
    output = Output(x, Stats(event.evaluations, seconds), plan, seeds, limits=denoiser.limits, model=denoiser.name)
    line = f"{ask.n} pictures, {event.evaluations} evaluations each, {seconds:.2f} s"
    yield Drawn(Progress(line, 1.0), samples(x, denoiser), plan, output)
