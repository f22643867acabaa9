"""One call for every tuner: say what may be spent, get the plan, and what it gained."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from torch import Tensor

from fewstep.catalog import methods
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError, unknown
from fewstep.guidance import Guide
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.tuning.problem import Problem, Tuner, stopwatch

JUDGED = 64


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


def tune(
    denoiser: Denoiser,
    evaluations: int,
    *,
    method: str | Tuner = "worlds",
    data: Tensor | None = None,
    budget: int | None = None,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
    guides: Sequence[Guide] = (),
    samples: int = 64,
    tell: Callable[[str], None] = lambda line: None,
) -> Plan:
    """The best plan that a method finds for a model and a number of evaluations.

    What it gained is measured on noises that the method never saw, beside DPM-Solver++(2M) on the logsnr grid, and kept
    in `plan.source["tuned"]`; `tune.report(plan)` reads it.

    Args:
        denoiser: the model.
        evaluations: what a sample may cost, at least 2; guidance not counted.
        method: a name of the catalogue's family "tuning", or a tuner with its parameters.
        data: samples (n, *shape) of what the model was trained on, or a spectrum of variances (d,), where a method
            uses it.
        budget: evaluations of the network that may be spent in all; None is no limit.
        seed: of everything random.
        cond, guides: as in `sample`; rows of a condition are dealt out to the noises in turn.
        samples: noises that a method sees.
        tell: called with a line now and then.

    Raises:
        ArgumentError: a bad argument, before the first evaluation.
    """
    if not isinstance(denoiser, Denoiser):
        raise ArgumentError(f"denoiser must be a fewstep denoiser (see fewstep.wrap), got {type(denoiser).__name__}")
    for name, value, least in (("evaluations", evaluations, 2), ("samples", samples, 2), ("budget", budget, 1)):
        if value is None and name == "budget":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ArgumentError(f"{name} must be an integer of at least {least}, got {value!r}")
    tuner = tuner_named(method) if isinstance(method, str) else method
    problem = Problem(denoiser, evaluations, data, budget, seed, dict(cond or {}), guides, samples, tell)
    clock = stopwatch()
    tell("tuning")
    plan = tuner(problem)
    spent, seconds = problem.spent, clock()
    tell("measuring on noises that the method never saw")
    start, ends = problem.pairs(min(JUDGED, max(16, samples)), part=0)
    untuned = make_plan(denoiser.path, "dpm-solver++", "logsnr", evaluations=evaluations)
    about = {
        "method": method if isinstance(method, str) else type(method).__name__.lower(), "model": denoiser.name,
        "evaluations": plan.evaluations, "before": problem.error(untuned, start, ends),
        "after": problem.error(plan, start, ends), "spent": spent, "seconds": round(seconds, 2), "seed": seed,
    }  # fmt: skip
    return replace(plan, source={**plan.source, "solver": "tuned", "grid": "tuned", "tuned": about})


@dataclass(frozen=True)
class Report:
    """What tuning gained; it prints as a sentence and draws the plan's grid.

    Args:
        about: what `tune` measured.
        plan: the tuned plan.
    """

    about: dict[str, Any]
    plan: Plan

    def __str__(self) -> str:
        a = self.about
        model = f" of {a['model']}" if a.get("model") else ""
        return (
            f"tuned by {a['method']}{model} at {a['evaluations']} evaluations: median RMSE to the flow "
            f"{a['before']:.3g} before (dpm-solver++, logsnr), {a['after']:.3g} after, on noises not seen; "
            f"{a['spent']} evaluations of the network and {a['seconds']} s were spent"
        )

    def _repr_png_(self) -> bytes:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 3))
        axes = figure.subplots()
        path, steps = self.plan.path, len(self.plan)
        for name, plan in (("tuned", self.plan), ("logsnr", make_plan(path, "ddim", "logsnr", steps))):
            axes.plot(path.lam(plan.times[1:-1]).numpy(), [name] * (len(plan) - 1), "o", label=name)
        axes.set(
            xlabel="λ of the steps between the ends", title=f"{self.about['before']:.3g} → {self.about['after']:.3g}"
        )
        buffer = io.BytesIO()
        figure.savefig(buffer, bbox_inches="tight", dpi=110, format="png")
        return buffer.getvalue()

    def to_json(self) -> str:
        """What was measured, as JSON."""
        return json.dumps(self.about, ensure_ascii=False)


def report(plan: Plan) -> Report:
    """What tuning gained, from a plan that `tune` made or that was read from its file.

    Raises:
        ArgumentError: the plan was not tuned.
    """
    about = plan.source.get("tuned")
    if not isinstance(about, dict):
        raise ArgumentError(f"this plan was not tuned; it comes from {plan.source.get('solver', 'a table')!r}")
    return Report(about, plan)


tune.report = report  # type: ignore[attr-defined]
