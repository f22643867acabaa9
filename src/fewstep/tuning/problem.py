"""What every tuner is given, and what it is asked for."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, TypeVar

import torch
from torch import Tensor

from fewstep.analysis.reference import STEPS, reference_ends
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.guidance import Guide
from fewstep.metrics import sliced_w2
from fewstep.noise import KeyedNoise
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.sampling import sample
from fewstep.tuning import checkpoint as files
from fewstep.worlds import WorldDenoiser

T = TypeVar("T")
# Seconds between two writings of the checkpoint by a loop that keeps its state every round.
PAUSE = 5.0
# Samples of a world that tell its variances.
SAMPLED = 512


@dataclass
class Problem:
    """A model and the number of evaluations that a sample of it may cost.

    Args:
        denoiser: the model.
        evaluations: what a sample may cost, guidance not counted.
        data: samples (n, *shape) of what it was trained on, or a spectrum of variances (d,); None where there is none.
        budget: evaluations of the network that the tuning may spend in all, references included; None is no limit.
        seed: of everything random.
        cond, guides: as in `sample`; a condition's rows are dealt out to the noises in turn.
        samples: how many noises a tuner sees at a time.
        tell: called with a line now and then.
        spent: evaluations of the network so far, summed over samples.
        reserved: evaluations of the budget that are kept for what comes after.
        checkpoint: a file in which `state` survives a kill; None keeps it in memory alone.
        state: what was kept so far, read from the checkpoint where there is one.
        history: (spent, value) pairs that the method recorded on its way.
    """

    denoiser: Denoiser
    evaluations: int
    data: Tensor | None = None
    budget: int | None = None
    seed: int = 0
    cond: Mapping[str, Any] = field(default_factory=dict)
    guides: Sequence[Guide] = ()
    samples: int = 64
    tell: Callable[[str], None] = lambda line: None
    spent: int = 0
    reserved: int = 0
    checkpoint: str | FilePath | None = None
    state: dict[str, Any] = field(default_factory=dict)
    history: list[tuple[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._job: dict[str, Any] = {}
        self._kept: dict[str, Any] = {}
        self._clock, self._before, self._written = stopwatch(), 0.0, -PAUSE

    @property
    def seconds(self) -> float:
        """Time spent on the problem, also by runs that were killed."""
        return self._before + self._clock()

    def resume(self, job: dict[str, Any]) -> None:
        """Take up what the checkpoint holds of the same job.

        Raises:
            ArgumentError: the checkpoint is of another job.
            WeightsError: the file cannot be read.
        """
        if self.checkpoint is None:
            return
        self._job = job
        kept = files.read(self.checkpoint, job)
        if kept:
            self.state, self.spent, self._before = kept["state"], kept["spent"], kept["seconds"]
            self.history = [(int(spent), float(value)) for spent, value in kept["history"]]
            self._kept = kept
            self.tell(f"resumed from {self.checkpoint}: {self.spent} evaluations were spent before")

    def keep(self, **values: Any) -> None:
        """Keep values (numbers, strings, lists, dicts, tensors) in `state`; a kill loses at most some seconds of them.

        What is kept at one call is read back as of that call, whole, with what was spent until then.
        """
        self.state.update(values)
        if self.checkpoint is not None:
            told = {"state": self.state, "spent": self.spent, "seconds": self.seconds, "history": self.history}
            self._kept = files.copied(told)
            if self._clock() - self._written > PAUSE:
                self.flush()

    def flush(self) -> None:
        """Write what was kept now."""
        if self.checkpoint is not None and self._kept:
            files.write(self.checkpoint, self._job, self._kept)
            self._written = self._clock()

    def once(self, name: str, make: Callable[[], T]) -> T:
        """The value of make(), which is not called again in this tuning, also after a kill."""
        if name not in self.state:
            self.keep(**{name: make()})
            self.flush()
        found: T = self.state[name]
        return found

    def record(self, value: float) -> None:
        """Remember how good the best plan so far is, for the report's curve."""
        self.history.append((self.spent, float(value)))

    def condition(self, n: int) -> dict[str, Any]:
        """The conditions of n noises."""
        ready = {}
        for key, value in self.cond.items():
            many = isinstance(value, (Sequence, Tensor)) and not isinstance(value, str)
            ready[key] = [value[i % len(value)] for i in range(n)] if many else value  # type: ignore[arg-type,index]
            if many and isinstance(value, Tensor):
                ready[key] = torch.stack(ready[key])
        return ready

    def starts(self, n: int, part: int) -> Tensor:
        """n noises at t = 1, float64; other parts are other noises, part 0 is kept for judging."""
        noise = KeyedNoise(self.seed, range(part * 2**32, part * 2**32 + n), self.denoiser.shape, torch.float64, "cpu")
        return noise.start() * self.denoiser.path.sigma(1.0)

    def pairs(self, n: int, part: int) -> tuple[Tensor, Tensor]:
        """n noises at t = 1 and where the flow takes them."""
        start = self.starts(n, part)

        def solved() -> Tensor:
            ends, _, evaluations = reference_ends(self.denoiser, start, self.condition(n), self.guides)
            self.spent += evaluations * n
            return ends

        return start, self.once(f"ends of {n} noises, part {part}", solved)

    def pairs_cost(self, n: int) -> int:
        """What `pairs` of n new noises costs: nothing for a world's own flow."""
        free = isinstance(self.denoiser, WorldDenoiser) and not self.guides
        return 0 if free else (2 * STEPS - 1) * n * (1 + sum(g.extra() for g in self.guides))

    def clean_cost(self, n: int) -> int:
        """What `clean` of n samples costs: nothing where there are data or a world."""
        return 0 if self.data is not None or isinstance(self.denoiser, WorldDenoiser) else self.pairs_cost(n)

    def run_cost(self, evaluations: int, n: int) -> int:
        """What a run of a plan costs, guidance counted."""
        return evaluations * n * (1 + sum(g.extra() for g in self.guides))

    def clean(self, n: int) -> Tensor:
        """n samples of data, float64: of `data`, of the world itself, or else the model's own, as its flow makes them.

        Raises:
            ArgumentError: `data` is a spectrum, or its samples have another shape.
        """
        if self.data is None:
            if isinstance(self.denoiser, WorldDenoiser):
                label = self.condition(n).get("label")
                return self.denoiser.world.sample(n, self.seed, None if label is None else torch.as_tensor(label))
            return self.pairs(n, part=2)[1]
        if tuple(self.data.shape[1:]) != self.denoiser.shape:
            raise ArgumentError(f"data must be samples (n, {self.denoiser.shape}), got {tuple(self.data.shape)}")
        return self.data[torch.arange(n) % len(self.data)].double()

    def believed(self, x: Tensor, t: Tensor) -> Tensor:
        """The guided x̂₀ at states x (n, *shape) and times t, (n,) or one for all; its evaluations are counted."""
        t = t.reshape(-1, *[1] * (x.ndim - 1)) if t.ndim else t
        if not self.guides:
            told = self.condition(len(x))
            cond = {k: torch.as_tensor(v) if isinstance(v, list) else v for k, v in told.items()}
            self.spent += len(x)
            with torch.no_grad():
                return self.denoiser(x, t, **cond)
        # A step to t = 0 with the answer held is the answer.
        return self.run(make_plan(self.denoiser.path, "ddim", torch.stack([t, torch.zeros_like(t)])), x)

    def run(self, plan: Plan, start: Tensor, grad: bool | str = False) -> Tensor:
        """Where a plan takes noises; its evaluations are counted."""
        out = sample(
            self.denoiser,
            start=start,
            plan=plan,
            cond=self.condition(len(start)),
            guides=self.guides,
            grad=grad,
        )
        self.spent += out.stats.evaluations * len(start)
        return out.x

    def off(self, plan: Plan, start: Tensor, ends: Tensor) -> Tensor:
        """Each sample's RMSE to the flow's ends, (n,); of a plan with noise their sliced W2 distance, (1,)."""
        x = self.run(plan, start)
        return sliced_w2(x, ends).reshape(1) if plan.stochastic else (x - ends).flatten(1).square().mean(1).sqrt()

    def error(self, plan: Plan, start: Tensor, ends: Tensor) -> float:
        """The median over samples of the RMSE to the flow's ends; of a plan with noise their sliced W2 distance."""
        return float(self.off(plan, start, ends).median())

    def left(self, more: int = 1) -> bool:
        """Whether the budget allows that many more evaluations."""
        return self.budget is None or self.spent + more + self.reserved <= self.budget

    def affordable(self, name: str, wanted: int, each: int, ways: int = 1) -> int:
        """So many rounds of what costs `each`, or as many as its share of the budget pays for, at least one.

        A rate that falls with the rounds is then at its end when the budget is; asked again by the same name, after a
        kill too, it is the same number.

        Args:
            name: of what the rounds are of.
            wanted: rounds where the budget has no limit.
            each: evaluations of a round.
            ways: among how many the rest of the budget is shared evenly.
        """
        if self.budget is None:
            return wanted
        rest = (self.budget - self.reserved - self.spent) // ways
        return self.once(f"rounds of {name}", lambda: max(1, min(wanted, rest // each)))

    def spectrum(self) -> Tensor:
        """The variances (d,) of the data: given, those of `data`, a world's, or every scale in a range of 2."""
        data = self.data
        if data is None:
            if not isinstance(self.denoiser, WorldDenoiser):
                return torch.logspace(-4, 0.5, 48, dtype=torch.float64)
            data = self.clean(SAMPLED)
        if data.ndim == 1:
            return data.double()
        if tuple(data.shape[1:]) != self.denoiser.shape or len(data) < 2:
            raise ArgumentError(
                f"data must be a spectrum (d,) or samples (n, {self.denoiser.shape}), got {tuple(data.shape)}"
            )
        flat = data.flatten(1).double()
        values = torch.linalg.svdvals(flat - flat.mean(0)).square() / (len(flat) - 1)
        return torch.cat([values, torch.zeros(max(0, flat.shape[1] - len(values)), dtype=torch.float64)])


class Tuner(ABC):
    """Makes the plan of a problem; a frozen dataclass with its method's parameters."""

    @abstractmethod
    def __call__(self, problem: Problem) -> Plan:
        """The tuned plan; it has at most `problem.evaluations` evaluations."""

    def untuned(self, problem: Problem) -> Plan:
        """The plan that the method begins with, of the same evaluations: what the report's "before" is measured on."""
        return make_plan(problem.denoiser.path, "dpm-solver++", "logsnr", evaluations=problem.evaluations)

    def least(self, problem: Problem) -> int:
        """The evaluations of the network that the method cannot do without; a smaller budget is refused."""
        return 0

    def measure(self, plan: Plan) -> str:
        """What `judged` tells, in words."""
        return f"{'sliced W2 distance' if plan.stochastic else 'median RMSE'} to the flow"

    def judged(self, problem: Problem, plan: Plan, n: int, part: int) -> Tensor:
        """How far a plan is from what the method is for, on noises of a part that it never saw: (n,) or (1,).

        It decides how far it pays to go, and is what the report tells: the distance to the flow's ends, unless a method
        aims elsewhere.
        """
        return problem.off(plan, *problem.pairs(n, part))

    def judging_cost(self, problem: Problem, n: int, plans: int) -> int:
        """The most evaluations that `judged` spends on so many plans."""
        return problem.pairs_cost(n) + plans * problem.run_cost(problem.evaluations, n)


def stopwatch() -> Callable[[], float]:
    """Seconds since it was made."""
    began = time.perf_counter()
    return lambda: time.perf_counter() - began
