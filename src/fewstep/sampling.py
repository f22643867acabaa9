"""Sampling: `stream` yields an event a step, and `sample` is the same run to its end."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fewstep.captured import captured_run
from fewstep.denoisers import Denoiser
from fewstep.denoisers.compiled import compiled
from fewstep.errors import ArgumentError, NumericalError, unknown
from fewstep.grids import Grid
from fewstep.guidance import Guide
from fewstep.noise import BrownianNoise, KeyedNoise, check_key
from fewstep.plan import Plan
from fewstep.planning import loop_asked, make_plan
from fewstep.program import Program, Run
from fewstep.results import Event, Output, Stats
from fewstep.solvers import Solver

NOISES = {"keyed": KeyedNoise, "brownian": BrownianNoise}
KEEPS = ("final", "trajectory", "answers")


def stream(
    denoiser: Denoiser,
    n: int | None = None,
    *,
    solver: str | Solver = "dpm-solver++",
    grid: str | Grid | Tensor | Sequence[float] | None = None,
    steps: int | None = None,
    evaluations: int | None = None,
    plan: Plan | None = None,
    guides: Sequence[Guide] = (),
    cond: Mapping[str, Any] | None = None,
    seed: int = 0,
    first: int = 0,
    start: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    noise: str = "keyed",
    grad: bool | str = False,
    debug: bool = False,
    compile: bool = False,
) -> Iterator[Event]:
    """Sample, and yield an event after every step; arguments are those of `sample`."""
    session = prepare(
        denoiser, n, solver=solver, grid=grid, steps=steps, evaluations=evaluations, plan=plan, guides=guides,
        cond=cond, seed=seed, first=first, start=start, dtype=dtype, device=device, noise=noise, grad=grad, debug=debug,
        compile=compile,
    )  # fmt: skip
    return session.events()


@dataclass(frozen=True)
class Session:
    """A run that is ready to begin: everything was checked, nothing was evaluated."""

    program: Program
    noise: KeyedNoise
    start: Tensor
    cond: dict[str, Any]
    grad: bool | str
    debug: bool

    def events(self) -> Iterator[Event]:
        """Take the steps, one event each."""
        program, steps, stop = self.program, self.program.plan.steps, threading.Event()
        run = program.start(self.start, self.cond, self.noise)
        for index in range(steps):
            with torch.set_grad_enabled(bool(self.grad)):
                _advance(program, run, index, self.grad)
            if self.debug:
                _refuse_bad(run)
            x = run.registers[0]
            assert x is not None
            after = program.rows[index].t_next
            yield Event(index + 1, steps, after, run.evaluations, x, lambda: program.preview(run), stop)
            if stop.is_set():
                break
        _refuse_bad(run)

    def at_once(self) -> tuple[Tensor, int]:
        """(samples, evaluations) of the whole run, of which no step is shown."""
        program = self.program
        run = program.start(self.start, self.cond, self.noise)
        with torch.set_grad_enabled(bool(self.grad)):
            for index in range(program.plan.steps):
                _advance(program, run, index, self.grad)
                if self.debug:
                    _refuse_bad(run)
        _refuse_bad(run)
        x = run.registers[0]
        assert x is not None
        return x, run.evaluations

    def as_graph(self) -> tuple[Tensor, int]:
        """(samples, evaluations) of the whole run as one CUDA graph."""
        if self.grad or self.debug:
            raise ArgumentError("cuda_graph=True takes neither grad nor debug: the run is recorded whole")
        if any(self.program.plan.skips):
            raise ArgumentError(
                "cuda_graph=True takes no plan that leaves out layers: which, its run reads from the time"
            )
        run = captured_run(self.program, self.start, self.cond, self.noise)
        _refuse_bad(run)
        return run.registers[0].clone(), run.evaluations


def prepare(
    denoiser: Denoiser, n: int | None, *, solver: str | Solver = "dpm-solver++",
    grid: str | Grid | Tensor | Sequence[float] | None = None, steps: int | None = None, evaluations: int | None = None,
    plan: Plan | None = None, guides: Sequence[Guide] = (), cond: Mapping[str, Any] | None = None, seed: int = 0,
    first: int = 0, start: Tensor | None = None, dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu", noise: str = "keyed", grad: bool | str = False, debug: bool = False,
    compile: bool = False,
) -> Session:  # fmt: skip
    """Check everything and make everything that a run needs; arguments are those of `sample`."""
    if not isinstance(denoiser, Denoiser):
        raise ArgumentError(f"denoiser must be a fewstep denoiser (see fewstep.wrap), got {type(denoiser).__name__}")
    n = _count(n, start, denoiser)
    dtype, device = (dtype, device) if start is None else (start.dtype, start.device)
    if noise not in NOISES:
        raise unknown("noise", noise, NOISES)
    if grad not in (False, True, "checkpoint"):
        raise ArgumentError(f"grad must be False, True or 'checkpoint', got {grad!r}")
    for guide in guides:
        if not isinstance(guide, Guide):
            raise ArgumentError(f"guides must be guides such as CFG(2.0), got {guide!r}")
    if plan is None:
        if evaluations is not None:
            evaluations = evaluations // (1 + sum(g.extra() for g in guides))
        default = 8 if steps is None and evaluations is None and (grid is None or isinstance(grid, str)) else steps
        plan = make_plan(denoiser.path, solver, grid, default, evaluations=evaluations, model=denoiser.name)
    elif steps is not None or evaluations is not None:
        raise ArgumentError("a plan has its own number of steps; leave steps and evaluations out")
    check_key(seed, range(first, first + n))
    program = Program(plan, compiled(denoiser) if compile else denoiser, guides, dtype, device)
    source = NOISES[noise](seed, range(first, first + n), denoiser.shape, dtype, device)
    if start is None:
        start = source.start() * plan.path.sigma(plan.times[0]).to(device, dtype)
    return Session(program, source, start, _conditions(cond or {}, n, device), grad, debug)


def _count(n: int | None, start: Tensor | None, denoiser: Denoiser) -> int:
    if start is not None:
        if not start.is_floating_point() or start.shape[1:] != denoiser.shape or len(start) == 0:
            want = ("batch", *denoiser.shape)
            raise ArgumentError(f"start must be floating-point of shape {want}, got {start.dtype} {tuple(start.shape)}")
        if n not in (None, len(start)):
            raise ArgumentError(f"n={n} contradicts the {len(start)} samples in start")
        return len(start)
    n = 1 if n is None else n
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ArgumentError(f"n must be an integer of at least 1, got {n!r}")
    return n


def _conditions(cond: Mapping[str, Any], n: int, device: torch.device | str) -> dict[str, Any]:
    """Conditions as the network takes them: whole numbers and lists of them become one int64 a sample."""
    ready: dict[str, Any] = {}
    for key, value in cond.items():
        if isinstance(value, int) or (isinstance(value, Sequence) and all(isinstance(v, int) for v in value)):
            value = torch.as_tensor(value)
        if isinstance(value, Tensor):
            if value.ndim and len(value) not in (1, n):
                raise ArgumentError(f"condition {key!r} has {len(value)} rows for {n} samples")
            value = value.to(device).expand(n, *value.shape[1:])
        ready[key] = value
    return ready


def _advance(program: Program, run: Run, index: int, grad: bool | str) -> None:
    if grad != "checkpoint":
        program.step(run, index)
        return
    names = [i for i, r in enumerate(run.registers) if r is not None]
    before, count, sums = list(run.registers), run.evaluations, len(run.sums)

    def redo(*values: Tensor) -> tuple[Tensor, ...]:
        run.registers, run.evaluations = list(before), count
        del run.sums[sums:]
        for i, value in zip(names, values, strict=True):
            run.registers[i] = value
        program.step(run, index)
        return tuple(r for r in run.registers if r is not None)

    after = checkpoint(redo, *(before[i] for i in names), use_reentrant=False)
    filled = [i for i, r in enumerate(run.registers) if r is not None]
    for i, value in zip(filled, after, strict=True):
        run.registers[i] = value


def _refuse_bad(run: Run) -> None:
    """One look at the sums of all answers so far: the first that is not finite is named."""
    if not run.sums or run.sums[0].device.type == "meta":
        return
    x = run.registers[0]
    assert x is not None
    x, sums = x.detach(), torch.stack(run.sums).detach()
    if bool(sums.isfinite().all() & x.isfinite().all()):
        return
    bad = ~sums.isfinite()
    rows = (~x.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
    hit = f"{rows[:8]}{' …' if len(rows) > 8 else ''} ({len(rows)} of {len(x)})"
    if bad.any():
        which = int(bad.nonzero()[0])
        raise NumericalError(f"the network's answer number {which + 1} held NaN or Inf; samples not finite: {hit}")
    if rows:
        raise NumericalError(f"the samples {hit} are not finite, though every answer of the network was")


def sample(
    denoiser: Denoiser,
    n: int | None = None,
    *,
    keep: str = "final",
    progress: bool = False,
    callback: Callable[[Event], None] | None = None,
    search: Callable[..., Output] | None = None,
    reject: Callable[..., Output] | None = None,
    cuda_graph: bool = False,
    **options: Any,
) -> Output:
    """Draw samples from a model.

    Args:
        denoiser: the model.
        n: how many samples; 1 unless given.
        keep: "final", "trajectory" (the state at every time) or "answers" (x̂₀ of every step).
        progress: show a bar on standard error.
        callback: called with the event of every step; it may call `event.stop()`.
        search: a search of `fewstep.search` towards a reward; each sample is then what one search found.
        reject: a filter such as `fewstep.search.Reject()`, which draws more samples and drops the doubtful ones.
        solver: a name of the catalogue or of another tool ("DPM++ 2M Karras": grid and all), or a solver;
            "dpm-solver++" unless given.  A loop by its name (family loops)
            takes n, start, cond, guides, seed, first, dtype and device, and grid and steps where it has them.
        grid: a name, a grid or the times; "logsnr" unless given.
        steps: the number of grid intervals; 8 unless given.
        evaluations: network evaluations a sample instead, guidance counted; the most steps that fit are taken.
        plan: a plan instead of solver, grid and steps.
        guides: what changes the denoiser's answers, such as CFG(2.0).
        cond: conditions by the network's names; a whole number stands for all samples, a list for each.
        seed: an integer; sample i depends on (seed, first + i) alone, whatever the batch.
        first: the number of the first sample.
        start: (n, *shape), the state at the plan's first time instead of noise; its dtype and device are used.
        dtype, device: of the state.
        noise: "keyed", or "brownian" for the same Brownian path on every grid.
        grad: False, True (through all steps) or "checkpoint" (the same at the memory of one step).
        debug: look for NaN after every step and not only at the end.
        compile: run the network as `torch.compile` makes it, compiled once a denoiser and shape.
        cuda_graph: record the whole run as one CUDA graph and replay it for later runs of the same kind.

    Returns:
        The samples, what they cost, and how to make each again.

    Raises:
        ArgumentError: a bad argument, before the first evaluation.
        NumericalError: the network answered with NaN or Inf.
    """
    if keep not in KEEPS:
        raise unknown("keep", keep, KEEPS)
    shows = keep != "final" or progress or callback is not None
    others = {"search": search, "reject": reject, "a loop as solver": loop_asked(options)}
    asked: dict[str, Callable[..., Output] | None] = {k: v for k, v in others.items() if v is not None}
    if cuda_graph:
        asked["cuda_graph"] = None
    if len(asked) > 1:
        raise ArgumentError(f"{' and '.join(asked)} are each a run of their own: give one of them")
    for what, other in asked.items():
        if shows:
            raise ArgumentError(f"{what} shows no steps: leave keep, progress and callback out")
        if other is not None:
            if not callable(other):
                raise ArgumentError(f"{what} must be a {what}, got {other!r}")
            return other(denoiser, n, **options)
    began = time.perf_counter()
    session = prepare(denoiser, n, **options)
    states, answers, x, evaluations = [session.start], [], session.start, 0
    if not shows:
        x, evaluations = session.as_graph() if cuda_graph else session.at_once()
    events: Iterable[Event] = session.events() if shows else ()
    if progress:
        from rich.console import Console
        from rich.progress import track

        events = track(events, "sampling", total=session.program.plan.steps, console=Console(stderr=True))
    for event in events:
        x, evaluations = event.x, event.evaluations
        if callback is not None:
            callback(event)
        if keep == "trajectory":
            states.append(x)
        elif keep == "answers":
            answers.append(event.x0)
    return Output(
        x=x, stats=Stats(evaluations, time.perf_counter() - began), plan=session.program.plan,
        seeds=[(session.noise.seed, number) for number in session.noise.samples],
        trajectory=torch.stack(states) if keep == "trajectory" else None,
        answers=torch.stack(answers) if answers else None, limits=denoiser.limits,
    )  # fmt: skip
