"""A plan tuned to a model: how far it is, what it gained, and the plan as a file."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fewstep.plan import Plan
from fewstep.studio.bounds import whole
from fewstep.studio.guides import Chosen, guides_code, imports
from fewstep.studio.models import MNIST, Model
from fewstep.studio.watching import Done, Progress, followed, watched
from fewstep.tuning import tune


@dataclass(frozen=True)
class Refine:
    """What is to be tuned.

    Args:
        model: which, and what it is told: its classes are dealt out to the noises in turn.
        evaluations: what a sample may cost, guidance not counted.
        method: of the catalogue's family tuning.
        samples: noises that the method sees.
        budget: evaluations of the network in all; None is no limit.
        guides: with which the plan will be used.
        seed: of everything random.
    """

    model: Model = MNIST
    evaluations: int = 6
    method: str = "gits"
    samples: int = 16
    budget: int | None = None
    guides: tuple[Chosen, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        whole("evaluations of a plan", self.evaluations)
        whole("noises", self.samples)
        whole("seed", self.seed)
        if self.budget is not None:
            whole("budget", self.budget)

    def code(self) -> str:
        """Python that finds the same plan."""
        told = self.model.condition_code(self.model.load(), self.samples)
        options = [
            f"method={self.method!r}", f"samples={self.samples}",
            "" if self.budget is None else f"budget={self.budget}", guides_code(self.guides),
            f"cond={told}" if told else "", f"seed={self.seed}", "tell=print",
        ]  # fmt: skip
        call = ",\n    ".join(filter(None, options))
        return "\n".join([
            "import fewstep", *imports(self.guides), "", self.model.code(),
            f"plan = fewstep.tune(\n    den, {self.evaluations},\n    {call},\n)", "print(fewstep.tune.report(plan))",
            'plan.save("tuned.json")', "",
        ])  # fmt: skip


def refined(ask: Refine, stop: threading.Event) -> Iterator[Progress | Done[Plan]]:
    """Tune, and yield how far it is; at the end the plan, or None after a stop.

    Raises:
        ArgumentError: a bad request, or a method that needs what the studio cannot give, such as data.
    """
    denoiser = ask.model.load()
    cond = ask.model.condition(denoiser, ask.samples)

    def work(tell: Callable[[Progress], None]) -> Plan:
        spent, latest = 0, "tuning"

        def share() -> float | None:
            return None if ask.budget is None else min(spent / ask.budget, 1.0)

        def seen(rows: int) -> None:
            nonlocal spent
            spent += rows
            tell(Progress(f"{ask.method}: {latest}; {spent:,} evaluations spent", share()))

        def told(line: str) -> None:
            nonlocal latest
            latest = line
            tell(Progress(f"{ask.method}: {latest}; {spent:,} evaluations spent", share()))

        return tune(
            watched(denoiser, stop, seen), ask.evaluations, method=ask.method, budget=ask.budget, seed=ask.seed,
            cond=cond, guides=[g.make() for g in ask.guides], samples=ask.samples, tell=told,
        )  # fmt: skip

    yield Progress(f"{ask.method} begins")
    yield from followed(work, stop)
