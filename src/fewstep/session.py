"""A run before it begins: every argument is checked and everything that it needs is made."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fewstep.captured import captured_run
from fewstep.checking import checked_count, checked_device
from fewstep.denoisers import Denoiser
from fewstep.denoisers.compiled import compiled
from fewstep.errors import ArgumentError, PlanError, not_finite, unknown
from fewstep.grids import Grid
from fewstep.guidance import Guide
from fewstep.noise import BrownianNoise, ComfyUINoise, KeyedNoise, check_key
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.program import Program, Run
from fewstep.results import Event
from fewstep.solvers import Solver

# The solver unless one is given.
SOLVER = "dpm-solver++"
# What other tools call an argument, and what it is here.
ELSEWHERE = {
    "num_inference_steps num_steps n_steps sample_steps": "steps=8",
    "guidance guidance_scale cfg cfg_scale guidance_strength": "guides=[fewstep.CFG(2.0)]",
    "label labels class_label class_labels classes y": "cond={'label': 3}",
    "prompt prompts text": "cond=denoiser.encode_texts('a cat')",
    "generator rng": "seed=0",
    "latents x x_T xT noise_start": "start=x",
    "batch_size num_images num_images_per_prompt num_samples": "n=16",
    "scheduler sampler method": "solver='unipc'",
    "sigmas timesteps": "grid=fewstep.grids.Levels([14.6, 4.0, 1.0, 0.0]), in its unit",
    "eta order": "a parameter of the solver: solver=fewstep.solvers.solver_named('ddim', eta=1.0)",
}
NOISES = {"keyed": KeyedNoise, "brownian": BrownianNoise, "comfyui": ComfyUINoise}


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
            good = run.registers[0]
            with torch.set_grad_enabled(bool(self.grad)):
                _advance(program, run, index, self.grad)
            if self.debug:
                _refuse_bad(program, run, good)
            x = run.registers[0]
            assert x is not None
            after = program.rows[index].t_next
            yield Event(index + 1, steps, after, run.evaluations, x, lambda: program.preview(run), stop)
            if stop.is_set():
                break
        _refuse_bad(program, run)

    def at_once(self) -> tuple[Tensor, int]:
        """(samples, evaluations) of the whole run, of which no step is shown."""
        program = self.program
        run = program.start(self.start, self.cond, self.noise)
        with torch.set_grad_enabled(bool(self.grad)):
            for index in range(program.plan.steps):
                good = run.registers[0]
                _advance(program, run, index, self.grad)
                if self.debug:
                    _refuse_bad(program, run, good)
        _refuse_bad(program, run)
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
        _refuse_bad(self.program, run)
        return run.registers[0].clone(), run.evaluations


def prepare(
    denoiser: Denoiser, n: int | None, *, solver: str | Solver = SOLVER,
    grid: str | Grid | Tensor | Sequence[float] | None = None, steps: int | None = None, evaluations: int | None = None,
    plan: Plan | None = None, guides: Sequence[Guide] = (), cond: Mapping[str, Any] | None = None, seed: int = 0,
    first: int = 0, start: Tensor | None = None, dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu", noise: str = "keyed", grad: bool | str = False, debug: bool = False,
    compile: bool = False, **others: Any,
) -> Session:  # fmt: skip
    """Check everything and make everything that a run needs; arguments are those of `sample`."""
    if others:
        raise _no_argument(next(iter(others)))
    if not isinstance(denoiser, Denoiser):
        raise ArgumentError(f"denoiser must be a fewstep denoiser (see fewstep.wrap), got {type(denoiser).__name__}")
    n = _count(n, start, denoiser)
    dtype, device = (dtype, device) if start is None else (start.dtype, start.device)
    _check(dtype, noise, grad, debug, guides, cond)
    device = checked_device(device)
    if plan is None:
        if isinstance(evaluations, int):
            each = 1 + sum(g.extra() for g in guides)
            if 0 < evaluations < each:
                raise ArgumentError(f"evaluations={evaluations} is fewer than one step costs with these guides, {each}")
            evaluations = evaluations // each
        default = 8 if steps is None and evaluations is None and (grid is None or isinstance(grid, str)) else steps
        try:
            plan = make_plan(denoiser.path, solver, grid, default, evaluations=evaluations, model=denoiser.name)
        except PlanError as error:
            if float(denoiser.path.sigma(1.0)) > 0:
                raise
            why = "this model's path begins without noise: take solver='dbim', or Booted around another"
            raise PlanError(f"{error}; {why}") from error
    else:
        _check_alone(plan, solver, grid, steps, evaluations)
    check_key(seed, [first])
    check_key(seed, range(first, first + n))
    program = Program(plan, compiled(denoiser) if compile else denoiser, guides, dtype, device)
    source = NOISES[noise](seed, range(first, first + n), denoiser.shape, dtype, device)
    if start is None:
        start = source.start() * plan.path.sigma(plan.times[0]).to(device, dtype)
    return Session(program, source, start, _conditions(cond or {}, n, device), grad, debug)


def _no_argument(name: str) -> ArgumentError:
    """The error for an argument that `sample` does not have: what it is called here, or the nearest names."""
    here = next((ours for theirs, ours in ELSEWHERE.items() if name in theirs.split()), "")
    if here:
        return ArgumentError(f"sample takes no argument {name!r}; here it is {here}")
    return unknown("argument", name, set(signature(prepare).parameters) - {"others"})


def _check(dtype: Any, noise: Any, grad: Any, debug: Any, guides: Any, cond: Any) -> None:
    """Refuse what is of the wrong kind, by name."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point or dtype.itemsize < 2:
        raise ArgumentError(f"dtype must be float16, bfloat16, float32 or float64, got {dtype!r}")
    if not isinstance(noise, str) or noise not in NOISES:
        raise unknown("noise", noise, NOISES)
    if not isinstance(grad, (bool, str)) or grad not in (False, True, "checkpoint"):
        raise ArgumentError(f"grad must be False, True or 'checkpoint', got {grad!r}")
    if not isinstance(debug, bool):
        raise ArgumentError(f"debug must be True or False, got {debug!r}")
    if not isinstance(guides, Sequence) or not all(isinstance(guide, Guide) for guide in guides):
        raise ArgumentError(f"guides must be a list of guides such as [CFG(2.0)], got {guides!r}")
    if cond is not None and not (isinstance(cond, Mapping) and all(isinstance(name, str) for name in cond)):
        raise ArgumentError(f"cond must name conditions, such as {{'label': 3}}, got {cond!r}")


def _check_alone(plan: Any, solver: Any, grid: Any, steps: Any, evaluations: Any) -> None:
    """Refuse what is no plan, and what a plan has itself."""
    if not isinstance(plan, Plan):
        raise ArgumentError(f"plan must be a plan (see fewstep.make_plan), got {plan!r}")
    given = {"grid": grid, "steps": steps, "evaluations": evaluations}
    other = [name for name, value in given.items() if value is not None]
    if not isinstance(solver, str) or solver != SOLVER:
        other.insert(0, "solver")
    if other:
        raise ArgumentError(f"a plan has its own solver, grid and number of steps; leave {' and '.join(other)} out")


def _count(n: int | None, start: Tensor | None, denoiser: Denoiser) -> int:
    if start is not None:
        if (
            not isinstance(start, Tensor)
            or not start.is_floating_point()
            or start.shape[1:] != denoiser.shape
            or len(start) == 0
        ):
            want = ("batch", *denoiser.shape)
            got = f"{start.dtype} {tuple(start.shape)}" if isinstance(start, Tensor) else type(start).__name__
            raise ArgumentError(f"start must be a floating-point tensor of shape {want}, got {got}")
        if n is not None and (not isinstance(n, int) or n != len(start)):
            raise ArgumentError(f"n={n} contradicts the {len(start)} samples in start")
        return len(start)
    return checked_count("n", 1 if n is None else n, denoiser.shape)


def as_rows(name: str, value: Any) -> Any:
    """A condition as a tensor where it is a whole number, a list of them or a numpy array; else as it is.

    Raises:
        ArgumentError: a whole number that 64 bits do not hold, or an array of no numbers.
    """
    whole = isinstance(value, int)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        whole = all(isinstance(v, int) for v in value)
    if not whole and not isinstance(value, np.ndarray):
        return value
    try:
        return torch.as_tensor(value, dtype=torch.int64 if whole else None)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ArgumentError(f"condition {name!r} must be whole numbers of 64 bits, got {value!r}") from error


def _conditions(cond: Mapping[str, Any], n: int, device: torch.device | str) -> dict[str, Any]:
    """Conditions as the network takes them: whole numbers and lists of them become one int64 a sample."""
    ready: dict[str, Any] = {}
    for key, value in cond.items():
        value = as_rows(key, value)
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
        del run.sums[sums:], run.steps[sums:]
        for i, value in zip(names, values, strict=True):
            run.registers[i] = value
        program.step(run, index)
        return tuple(r for r in run.registers if r is not None)

    after = checkpoint(redo, *(before[i] for i in names), use_reentrant=False)
    filled = [i for i, r in enumerate(run.registers) if r is not None]
    for i, value in zip(filled, after, strict=True):
        run.registers[i] = value


def _refuse_bad(program: Program, run: Run, good: Tensor | None = None) -> None:
    """One look at the sums of all answers so far: the first that is not finite is named, with its step and time.

    Args:
        program, run: which.
        good: the state before the step, for the error to carry.
    """
    if not run.sums or run.sums[0].device.type == "meta":
        return
    x = run.registers[0]
    assert x is not None
    x, sums = x.detach(), torch.stack(run.sums).detach()
    if bool(sums.isfinite().all() & x.isfinite().all()):
        return
    bad, answer, why = ~sums.isfinite(), "", ", though every answer of the network was"
    if bad.any():
        which = int(bad.nonzero()[0])
        index = run.steps[which]
        where = f"{_time(program.plan.times[index])}, {str(x.dtype).removeprefix('torch.')}"
        answer, why = f"answer number {which + 1}, at step {index + 1} of {len(program.rows)} ({where}),", ""
    raise not_finite(x, answer=answer, why=why + ("" if good is not None else "; debug=True stops there"), state=good)


def _time(t: Tensor) -> str:
    low, high = float(t.min()), float(t.max())
    return f"t = {low:.3g}" if low == high else f"t = {low:.3g} … {high:.3g}"
