"""Sampling: `stream` yields an event a step, and `sample` is the same run to its end."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from fewstep.checking import checked_device
from fewstep.denoisers import Denoiser
from fewstep.determinism import same_bits, stepwise
from fewstep.errors import ArgumentError, unknown
from fewstep.grids import Grid
from fewstep.guidance import Guide
from fewstep.plan import Plan
from fewstep.planning import loop_asked
from fewstep.results import Event, Output, Stats
from fewstep.session import prepare
from fewstep.solvers import Solver

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
    deterministic: bool = False,
) -> Iterator[Event]:
    """Sample, and yield an event after every step; arguments are those of `sample`."""
    with _bits(deterministic, start, device):
        session = prepare(
            denoiser, n, solver=solver, grid=grid, steps=steps, evaluations=evaluations, plan=plan, guides=guides,
            cond=cond, seed=seed, first=first, start=start, dtype=dtype, device=device, noise=noise, grad=grad,
            debug=debug, compile=compile,
        )  # fmt: skip
    return stepwise(session.events(), session.start.device) if deterministic else session.events()


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
    deterministic: bool = False,
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
        noise: "keyed"; "brownian" for the same Brownian path on every grid; or, to make its pictures again, "comfyui":
            torch's generator of the seed, one draw for the batch, so that a sample depends on its batch.
        grad: False, True (through all steps) or "checkpoint" (the same at the memory of one step).
        debug: look for NaN after every step and not only at the end.
        compile: run the network as `torch.compile` makes it, compiled once a denoiser and shape.
        cuda_graph: record the whole run as one CUDA graph and replay it for later runs of the same kind.
        deterministic: the same call gives the same bits, on the same machine and versions, by deterministic kernels
            only; the whole process takes them until the run ends, and some are slower.  Without it the noise is the
            same, and on a GPU the last digits may differ.  A gradient that is taken later is taken without it.

    Returns:
        The samples, what they cost, and how to make each again.

    Raises:
        ArgumentError: a bad argument, before the first evaluation; with deterministic=True also an operation that has
            no deterministic kernel, when the run comes to it.
        NumericalError: the network answered with NaN or Inf.
    """
    if not isinstance(keep, str) or keep not in KEEPS:
        raise unknown("keep", keep, KEEPS)
    if not all(isinstance(flag, bool) for flag in (progress, cuda_graph)):
        raise ArgumentError(f"progress and cuda_graph must be True or False, got {progress!r} and {cuda_graph!r}")
    if callback is not None and not callable(callback):
        raise ArgumentError(f"callback must be a function that takes an event, got {callback!r}")
    bits = _bits(deterministic, options.get("start"), options.get("device", "cpu"))
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
            # Both are called alike: searches and filters of ours say which they are.
            if not callable(other) or getattr(other, "role", what) != what:
                kind = {"search": "a search of fewstep.search", "reject": "a filter such as Reject()"}[what]
                raise ArgumentError(f"{what} must be {kind}, got {other!r}")
            with bits:
                return other(denoiser, n, **options)
    with bits:
        return _run(denoiser, n, keep, progress, callback, cuda_graph, options)


def _bits(deterministic: Any, start: Any, device: Any) -> AbstractContextManager[None]:
    """Where the same bits are asked for, the context that gives them."""
    if not isinstance(deterministic, bool):
        raise ArgumentError(f"deterministic must be True or False, got {deterministic!r}")
    if not deterministic:
        return nullcontext()
    return same_bits(start.device if isinstance(start, Tensor) else checked_device(device))


def _run(
    denoiser: Denoiser, n: int | None, keep: str, progress: bool, callback: Callable[[Event], None] | None,
    cuda_graph: bool, options: dict[str, Any],
) -> Output:  # fmt: skip
    """`sample` without searches, filters and loops, its own arguments checked."""
    shows = keep != "final" or progress or callback is not None
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
        elif keep == "answers" and event.evaluations:  # a plan may begin with a step that asks nothing
            answers.append(event.x0)
    return Output(
        x=x, stats=Stats(evaluations, time.perf_counter() - began), plan=session.program.plan,
        seeds=[(session.noise.seed, number) for number in session.noise.samples],
        trajectory=torch.stack(states) if keep == "trajectory" else None,
        answers=torch.stack(answers) if answers else None, limits=denoiser.limits, model=denoiser.name,
        noise=options.get("noise", "keyed"),
    )  # fmt: skip
