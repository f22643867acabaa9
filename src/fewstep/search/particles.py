"""The particle core: k weighted particles in each of several runs, as one batch of runs·k rows.

With log-weights ℓ (runs, k) and w = softmax(ℓ),

    effective size   1/Σ w²              between 1 and k
    evidence         log (1/k) Σ e^ℓ     an estimate of log E[Π of all potentials], unbiased before the logarithm
    resampling       ancestors ~ rule(w) where the effective size is below a share of k; ℓ ← evidence

Row i·k + j of the batch is particle j of run i.  Particles of a run interact; runs never do, so a run is the same
whatever the batch: its noise belongs to (seed, run, number of particles).
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import ArgumentError, some_of
from fewstep.noise import KeyedNoise, draw
from fewstep.program import Run
from fewstep.search.resampling import Rule
from fewstep.session import Session

# Families of draws beside those of fewstep.noise: resampling, inner rollouts that look ahead, and single choices.
CHOICE, AHEAD, PICK = 4, 5, 6
# Numbers for choices that are made together, because opening a stream costs more than filling a small one.
CHOICES = 1024


class CollapseWarning(UserWarning):
    """Nearly all weight of a run lies on one particle, or on very few of many."""


class ParticleNoise(KeyedNoise):
    """The noise of runs of k particles each: a run's draw is one of shape (k, *shape).

    Args:
        seed: any integer in [0, 2⁶⁴).
        runs: the numbers of the runs.
        particles: k.
        shape: the shape of one sample.
        dtype, device: of what is handed out.
        kind: which family the step draws come from.
        begin: the number of the first step draw.
    """

    def __init__(
        self, seed: int, runs: Sequence[int], particles: int, shape: Sequence[int], dtype: torch.dtype,
        device: torch.device | str, kind: int = 1, begin: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(seed, runs, (particles, *shape), dtype, device)
        self._kind, self._begin = kind, begin
        self._choices: dict[int, tuple[int, Tensor]] = {}

    def start(self) -> Tensor:
        """The noise that all particles start from: (runs·k, *shape)."""
        return super().start().flatten(0, 1)

    def step(self, index: int, lam: float, lam_next: float) -> Tensor:
        """Draw number `index` of every particle."""
        return self._draw(self._begin + index, self._kind).flatten(0, 1)

    def guide(self, index: int) -> Tensor:
        """Draw number `index` of the guides' own family."""
        return super().guide(index).flatten(0, 1)

    def prepare(self, count: int) -> None:
        """Make the first `count` step draws now where the device is not the host."""
        if self._kind == 1:
            super().prepare(count)

    def uniforms(self, index: int, count: int) -> Tensor:
        """Numbers in (0, 1) for choice number `index`: float64 (runs, count)."""
        span = max(1, CHOICES // count)
        first, held = self._choices.get(count, (-1, None))
        if held is None or not first <= index < first + span:
            first = index
            kind = PICK if count == 1 else CHOICE
            normal = draw(self.seed, self.samples, (count,), index, kind, count=span).double().to(self.device)
            held = (0.5 * torch.erfc(-normal / math.sqrt(2))).clamp(1e-12, 1 - 1e-12)
            self._choices[count] = first, held
        return held[:, index - first]


def widened(session: Session, particles: int, started: bool, kind: int = 1, begin: int = 0) -> Session:
    """The session with k rows for each of its own: noise of their own, the same conditions.

    Args:
        session: what `prepare` made.
        particles: k.
        started: whether its start was given; all particles of a run then begin there.
        kind, begin: as in `ParticleNoise`.
    """
    program, old = session.program, session.noise
    noise = ParticleNoise(
        old.seed, old.samples, particles, program.denoiser.shape, program.dtype, program.device, kind, begin
    )
    if started or kind != 1:
        start = session.start.repeat_interleave(particles, 0)
    else:
        start = noise.start() * program.plan.path.sigma(program.plan.times[0]).to(program.device, program.dtype)
    return replace(session, noise=noise, start=start, cond=repeated(session.cond, particles))


def repeated(cond: Mapping[str, Any], times: int) -> dict[str, Any]:
    """Conditions with each row `times` times in a row."""
    return {k: v.repeat_interleave(times, 0) if isinstance(v, Tensor) and v.ndim else v for k, v in cond.items()}


def choose(value: Any, rows: Tensor) -> Any:
    """What belongs to the rows that go on: tensors with one entry a row are indexed, containers are gone through."""
    if isinstance(value, Tensor):
        return value.index_select(0, rows) if value.ndim and len(value) == len(rows) else value
    if isinstance(value, dict):
        return {key: choose(one, rows) for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(choose(one, rows) for one in value))
    if isinstance(value, (list, tuple)):
        return type(value)(choose(one, rows) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: choose(getattr(value, f.name), rows) for f in fields(value) if f.init})
    return value


def go_on(run: Run, rows: Tensor) -> None:
    """Let only these rows of a run go on: registers, memories of the guides, and the last answer."""
    run.registers = [choose(register, rows) for register in run.registers]
    run.memories = [choose(memory, rows) for memory in run.memories]
    if run.answer is not None:
        x, raw, question = run.answer
        run.answer = choose(x, rows), choose(raw, rows), question


@dataclass
class Weights:
    """The log-weights of runs of k particles, and what became of them.

    Args:
        logs: ℓ, float64 (runs, k).
        origins: (runs, k), the first particle that each descends from.
        effective: the effective size at every weighing, each (runs,).
        ancestors: the parents at every weighing, each (runs, k).
    """

    logs: Tensor
    origins: Tensor
    effective: list[Tensor]
    ancestors: list[Tensor]

    @staticmethod
    def even(runs: int, particles: int, device: torch.device | str) -> "Weights":
        """Equal weights, log-weight 0."""
        origins = torch.arange(particles, device=device).expand(runs, particles)
        return Weights(torch.zeros(runs, particles, dtype=torch.float64, device=device), origins, [], [])

    @property
    def shares(self) -> Tensor:
        """w, (runs, k), with sum 1."""
        return self.logs.softmax(-1)

    @property
    def evidence(self) -> Tensor:
        """log (1/k) Σ e^ℓ, (runs,)."""
        return self.logs.logsumexp(-1) - math.log(self.logs.shape[-1])

    def add(self, increments: Tensor) -> None:
        """Multiply the weights by e^increments, (runs·k,)."""
        self.logs = self.logs + increments.reshape(self.logs.shape)

    def resample(self, rule: Rule, below: float, uniforms: Tensor) -> Tensor:
        """The rows of the batch that go on, int64 (runs·k,); each row itself in a run that is not resampled.

        Args:
            rule: one of `fewstep.search.resampling`.
            below: a run is resampled where its effective size is below this share of k; equal weights never are.
            uniforms: (runs, k).
        """
        runs, k = self.logs.shape
        shares = self.shares
        size = 1 / shares.square().sum(-1)
        needs = (size < below * k * (1 - 1e-9))[:, None]
        stay = torch.arange(k, device=shares.device).expand(runs, k)
        ancestors = torch.where(needs, rule(shares, uniforms), stay)
        self.logs = torch.where(needs, self.evidence[:, None].expand(runs, k), self.logs)
        self.origins = self.origins.gather(1, ancestors)
        self.effective.append(size)
        self.ancestors.append(ancestors)
        return (ancestors + k * torch.arange(runs, device=shares.device)[:, None]).flatten()

    def note(self) -> None:
        """Keep the effective size of weights that are not resampled any more."""
        shares = self.shares
        self.effective.append(1 / shares.square().sum(-1))
        self.ancestors.append(torch.arange(shares.shape[1], device=shares.device).expand_as(shares))

    def warn(self) -> None:
        """Warn where weights collapsed: an effective size below 1.01, or below one in a hundred particles."""
        k = self.logs.shape[1]
        if k == 1 or not self.effective:
            return
        sizes = torch.stack(self.effective).cpu()
        fallen = (sizes < max(1.01, k / 100)).any(0).nonzero().flatten().tolist()
        if fallen:
            when = int(sizes.amin(1).argmin())
            warnings.warn(
                f"the weights of runs {some_of(fallen, sizes.shape[1])} collapsed: an effective sample size of "
                f"{float(sizes.min()):.2f} of {k} particles at weighing {when + 1} of {len(sizes)}; take more "
                "particles, weigh more often or lower the strength",
                CollapseWarning, stacklevel=4,
            )  # fmt: skip


def count(name: str, value: object, least: int = 1) -> None:
    """Refuse a number of particles, candidates or steps that is not an integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ArgumentError(f"{name} must be an integer of at least {least}, got {value!r}")


def number(name: str, value: object, least: float = 0.0, most: float = math.inf, open_: bool = False) -> None:
    """Refuse a parameter that is not a finite number in [least, most], or above `least` where `open_`."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not (least < value if open_ else least <= value) or value > most:  # type: ignore[operator]
        allowed = f"{'more than' if open_ else 'at least'} {least:g}" + (f" and at most {most:g}" * (most < math.inf))
        raise ArgumentError(f"{name} must be a finite number, {allowed}, got {value!r}")
