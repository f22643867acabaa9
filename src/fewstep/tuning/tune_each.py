"""Several plans tuned side by side: one for every number of evaluations and method, each a task of its own.

A single tuning is a chain in which each trial depends on the last; different ones are independent.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fewstep.denoisers import Denoiser
from fewstep.engines import Engine
from fewstep.errors import ArgumentError
from fewstep.plan import Plan
from fewstep.tuning.problem import Tuner
from fewstep.tuning.tune import tune


def tune_each(
    denoiser: Denoiser,
    evaluations: Sequence[int],
    methods: Sequence[str | Tuner] = ("worlds",),
    *,
    engine: str = "local",
    address: str | None = None,
    checkpoint: str | Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> list[Plan]:
    """The plans of `tune` for every method and number of evaluations, the same as one after another.

    Args:
        denoiser: the model.
        evaluations: what a sample may cost, each at least 2.
        methods: names of the catalogue's family "tuning", or tuners.
        engine: "local", or "ray": the tunings run side by side, each on a worker.
        address: of a Ray cluster; this machine's cores unless given.
        checkpoint: a folder in which each tuning has a file and survives a kill; with Ray, one that all machines share.
        tell: called with a line for every tuning that ended.
        options: further arguments of `tune`: data, budget, seed, cond, guides, samples.

    Returns:
        All plans of the first method in the order of `evaluations`, then those of the second …

    Raises:
        ArgumentError: a bad argument of `tune`; nothing to tune.
        MissingExtraError: engine="ray" without Ray.
    """
    wanted = [
        (place, count, method)
        for place, (method, count) in enumerate((method, count) for method in methods for count in evaluations)
    ]
    if not wanted:
        raise ArgumentError("give at least one number of evaluations and one method")
    folder, found = None if checkpoint is None else Path(checkpoint).absolute(), {}
    for (place, count, method), plan in Engine(engine, address).spread(_tuned, wanted, (denoiser, folder, options)):
        found[place] = plan
        about = plan.source["tuned"]
        tell(f"{_name(method)}, {count} evaluations: {about['before']:.3g} before, {about['after']:.3g} after")
    return [found[place] for place in sorted(found)]


def _name(method: str | Tuner) -> str:
    return method if isinstance(method, str) else type(method).__name__.lower()


def _tuned(shared: tuple[Denoiser, Path | None, dict[str, Any]], one: tuple[int, int, str | Tuner]) -> Plan:
    (denoiser, folder, options), (place, count, method) = shared, one
    file = None if folder is None else folder / f"{place}-{_name(method)}-{count}.tuning"
    return tune(denoiser, count, method=method, checkpoint=file, **options)
