"""One plan tuned to a model in this process, and what it gained on noises that the method never saw."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from fewstep.catalog import methods
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError, unknown
from fewstep.guidance import Guide
from fewstep.plan import Plan
from fewstep.plan.files import from_data, to_data
from fewstep.planning import make_plan
from fewstep.tuning.problem import Problem, Tuner
from fewstep.tuning.settling import settled, settling_cost

JUDGED = 64
# Points of the method's way that the plan's file keeps.
SHOWN = 50


def tuner_named(name: str, **parameters: Any) -> Tuner:
    """The tuner of that name in the catalogue.

    Raises:
        ArgumentError: the name or a parameter is unknown; the nearest names are offered.
    """
    rows = {m.name: m for m in methods() if m.family == "tuning"}
    if name not in rows:
        raise unknown("tuning method", name, rows)
    row = rows[name]
    try:
        tuner: Tuner = getattr(import_module(row.module), row.symbol)(**{**dict(row.arguments), **parameters})
    except TypeError as error:
        raise ArgumentError(f"tuning method {name!r}: {error}") from error
    return tuner


def name_of(method: str | Tuner) -> str:
    """The name of a method, or of a tuner's class."""
    return method if isinstance(method, str) else type(method).__name__.lower()


def check_sizes(denoiser: Denoiser, **sizes: int | None) -> None:
    """Refuse what is no denoiser, and sizes (evaluations, samples, budget) that are no whole numbers or too small.

    Raises:
        ArgumentError: the first that is, by its name.
    """
    if not isinstance(denoiser, Denoiser):
        raise ArgumentError(f"denoiser must be a fewstep denoiser (see fewstep.wrap), got {type(denoiser).__name__}")
    for name, value in sizes.items():
        least = 1 if name == "budget" else 2
        if value is None and name == "budget":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ArgumentError(f"{name} must be an integer of at least {least}, got {value!r}")


def as_tuner(method: str | Tuner) -> Tuner:
    """The tuner itself, or that of a name.

    Raises:
        ArgumentError: it is neither.
    """
    tuner = tuner_named(method) if isinstance(method, str) else method
    if not callable(tuner) or not hasattr(tuner, "least"):
        raise ArgumentError(f"method must be a name of family tuning or a tuner, got {method!r}")
    return tuner


def tune_one(
    denoiser: Denoiser, evaluations: int, method: str | Tuner, *, data: Tensor | None = None,
    budget: int | None = None, seed: int = 0, cond: Mapping[str, Any] | None = None, guides: Sequence[Guide] = (),
    samples: int = 64, checkpoint: str | Path | None = None, settle: bool = True,
    tell: Callable[[str], None] = lambda line: None,
) -> Plan:  # fmt: skip
    """One plan, in this process; arguments are those of `tune`."""
    check_sizes(denoiser, evaluations=evaluations, samples=samples, budget=budget)
    tuner = as_tuner(method)
    problem = Problem(
        denoiser, evaluations, data, budget, seed, dict(cond or {}), guides, samples, tell, checkpoint=checkpoint
    )
    least = tuner.least(problem)
    if budget is not None and budget < least:
        raise ArgumentError(f"budget={budget} is too small: this method needs at least {least} evaluations here")
    problem.resume(_job(problem, tuner))
    # A method spends what it may: without a reserve nothing would be left to tell whether what it found pays.
    after = settling_cost(problem, tuner) if settle else 0
    problem.reserved = after if budget is not None and budget - after >= least else 0
    tell("tuning")
    try:
        # The file's form, so that a plan that was read back is the same.
        plan, went = from_data(problem.once("plan", lambda: to_data(tuner(problem)))), dict[str, Any]()
        problem.reserved = 0
        if settle:
            plan, went = settled(problem, tuner, plan)
        about = _judged(problem, tuner, method, plan, went)
        return replace(plan, source={"solver": "tuned", **plan.source, "grid": "tuned", "tuned": about})
    finally:
        problem.flush()


def _judged(problem: Problem, tuner: Tuner, method: str | Tuner, plan: Plan, went: dict[str, Any]) -> dict[str, Any]:
    """What the plan is worth on noises that the method never saw."""
    spent, seconds = problem.once("spent", lambda: [problem.spent, round(problem.seconds, 2)])
    problem.tell("measuring on noises that the method never saw")
    n = min(JUDGED, max(16, problem.samples))

    def off(plan: Plan) -> float:
        return float(tuner.judged(problem, plan, n, 0).median())

    untuned = tuner.untuned(problem)
    default = make_plan(problem.denoiser.path, "dpm-solver++", "logsnr", evaluations=problem.evaluations)
    before = off(untuned)
    every = max(1, -(-len(problem.history) // SHOWN))
    about: dict[str, Any] = {
        "method": name_of(method), "model": problem.denoiser.name,
        "path": problem.denoiser.path.kind, "shape": list(problem.denoiser.shape),
        "guides": [type(g).__name__ for g in problem.guides], "evaluations": plan.evaluations,
        "measure": tuner.measure(plan),
        "untuned": f"{untuned.source.get('solver', 'a table')}, {untuned.source.get('grid', 'a grid')}",
        "before": before, "after": off(plan),
        "spent": spent, "seconds": seconds, "seed": problem.seed, **went,
    }  # fmt: skip
    if not plan.stochastic:
        about["default"] = before if untuned == default else off(default)
    if problem.budget is not None:
        about["budget"] = problem.budget
    about["measured"] = problem.spent - spent
    if problem.history:
        about["history"] = [[n, float(f"{value:.6g}")] for n, value in problem.history[::-1][::every][::-1]]
    return about


def _job(problem: Problem, tuner: Tuner) -> dict[str, Any]:
    """What a checkpoint belongs to, as JSON data."""

    def digest(value: Any) -> str:
        if isinstance(value, Tensor):
            value = (tuple(value.shape), value.detach().cpu().double().contiguous().numpy().tobytes())
        return hashlib.sha256(repr(value).encode()).hexdigest()[:12]

    denoiser = problem.denoiser
    return {
        "method": repr(tuner), "model": denoiser.name, "path": str(denoiser.path)[:200], "shape": list(denoiser.shape),
        "predicts": denoiser.predicts, "evaluations": problem.evaluations, "samples": problem.samples,
        "budget": problem.budget, "seed": problem.seed, "data": digest(problem.data),
        "cond": {k: digest(v) for k, v in problem.cond.items()}, "guides": [repr(g)[:200] for g in problem.guides],
    }  # fmt: skip
