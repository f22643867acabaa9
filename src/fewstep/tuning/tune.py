"""One call for every tuner: say what may be spent, get the plan, and what it gained.

A single tuning is a chain in which each trial depends on the last; several, one for every method and number of
evaluations, are independent tasks that an engine may run side by side.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from torch import Tensor

from fewstep.checking import checked_list
from fewstep.denoisers import Denoiser
from fewstep.engines import Engine
from fewstep.errors import ArgumentError
from fewstep.guidance import Guide
from fewstep.plan import Plan
from fewstep.tuning.problem import Tuner
from fewstep.tuning.report import report
from fewstep.tuning.single import as_tuner, check_sizes, name_of, tune_one

Wanted = tuple[int, str | Tuner, Path | None]


@overload
def tune(
    denoiser: Denoiser, evaluations: int, *, method: str | Tuner = ..., data: Tensor | None = ...,
    budget: int | None = ..., seed: int = ..., cond: Mapping[str, Any] | None = ..., guides: Sequence[Guide] = ...,
    samples: int = ..., checkpoint: str | Path | None = ..., settle: bool = ..., tell: Callable[[str], None] = ...,
    engine: str = ..., address: str | None = ...,
) -> Plan: ...  # fmt: skip
@overload
def tune(
    denoiser: Denoiser, evaluations: Sequence[int], *, method: str | Tuner = ..., data: Tensor | None = ...,
    budget: int | None = ..., seed: int = ..., cond: Mapping[str, Any] | None = ..., guides: Sequence[Guide] = ...,
    samples: int = ..., checkpoint: str | Path | None = ..., settle: bool = ..., tell: Callable[[str], None] = ...,
    engine: str = ..., address: str | None = ...,
) -> list[Plan]: ...  # fmt: skip
def tune(
    denoiser: Denoiser,
    evaluations: int | Sequence[int],
    *,
    method: str | Tuner = "worlds",
    data: Tensor | None = None,
    budget: int | None = None,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
    guides: Sequence[Guide] = (),
    samples: int = 64,
    checkpoint: str | Path | None = None,
    settle: bool = True,
    tell: Callable[[str], None] = lambda line: None,
    engine: str = "local",
    address: str | None = None,
) -> Plan | list[Plan]:
    """The best plan that a method finds for a model and a number of evaluations.

    What it gained is measured on noises that the method never saw, beside the untuned plan that the method begins with
    and DPM-Solver++(2M) on the logsnr grid, and kept in `plan.source["tuned"]`; `tune.report(plan)` reads it.

    Args:
        denoiser: the model.
        evaluations: what a sample may cost, at least 2; guidance not counted.  A list of them gives a list of plans,
            each tuned as it would be alone.
        method: a name of the catalogue's family "tuning", or a tuner with its parameters.
        data: samples (n, *shape) of what the model was trained on, or a spectrum of variances (d,), where a method
            uses it.
        budget: evaluations of the network that may be spent in all, the measuring aside; None is no limit.
        seed: of everything random.
        cond, guides: as in `sample`; rows of a condition are dealt out to the noises in turn.
        samples: noises that a method sees.
        checkpoint: a file in which the tuning survives a kill: the same call goes on and finds the same plan; a folder
            of such files for a list of evaluations.  With Ray, one that all machines share.
        settle: go from the method's start to what it found only as far as it pays on noises of their own, half as many
            as `samples` and at least 16, counted in what is spent and kept back from a budget that is enough for both;
            False takes what was found.
        tell: called with a line now and then; by a list of evaluations and by Ray, when a tuning has ended.
        engine: "local", or "ray": every tuning is a task on a worker, those of a list side by side.
        address: of a Ray cluster; this machine's cores unless given.

    Raises:
        ArgumentError: a bad argument, before the first evaluation; a budget that is too small for the method; a
            checkpoint of another tuning.
        MissingExtraError: engine="ray" without Ray.
    """
    options: dict[str, Any] = {
        "data": data, "budget": budget, "seed": seed, "cond": cond, "guides": guides, "samples": samples,
        "settle": settle,
    }  # fmt: skip
    if not isinstance(evaluations, int):
        return tune_each(
            denoiser, evaluations, [method], engine=engine, address=address, checkpoint=checkpoint, tell=tell, **options
        )
    spread = Engine(engine, address)
    if spread.name == "local":
        return tune_one(denoiser, evaluations, method, checkpoint=checkpoint, tell=tell, **options)
    file = None if checkpoint is None else Path(checkpoint).absolute()
    ((_, plan),) = _spread(spread, denoiser, [(evaluations, method, file)], tell, options)
    return plan


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
        options: further arguments of `tune`: data, budget, seed, cond, guides, samples, settle.

    Returns:
        All plans of the first method in the order of `evaluations`, then those of the second …

    Raises:
        ArgumentError: a bad argument of `tune`; nothing to tune.
        MissingExtraError: engine="ray" without Ray.
    """
    checked_list("evaluations", evaluations)
    checked_list("methods", methods)
    if not evaluations or not methods:
        raise ArgumentError("give at least one number of evaluations and one method")
    # A bad one at the end of the list is refused before the first is tuned.
    for count in evaluations:
        check_sizes(denoiser, evaluations=count)
    for method in methods:
        as_tuner(method)
    folder = None if checkpoint is None else Path(checkpoint).absolute()
    wanted = [
        (count, method, None if folder is None else folder / f"{place}-{name_of(method)}-{count}.tuning")
        for place, (method, count) in enumerate((method, count) for method in methods for count in evaluations)
    ]
    found = dict(_spread(Engine(engine, address), denoiser, wanted, tell, options))
    return [found[place] for place in range(len(wanted))]


def _spread(
    engine: Engine, denoiser: Denoiser, wanted: list[Wanted], tell: Callable[[str], None], options: dict[str, Any]
) -> Iterator[tuple[int, Plan]]:
    """(place, plan) of every tuning that is wanted, as they end."""
    for (place, (count, method, _)), plan in engine.spread(_tuned, list(enumerate(wanted)), (denoiser, options)):
        about = plan.source["tuned"]
        tell(f"{name_of(method)}, {count} evaluations: {about['before']:.3g} before, {about['after']:.3g} after")
        yield place, plan


def _tuned(shared: tuple[Denoiser, dict[str, Any]], one: tuple[int, Wanted]) -> Plan:
    (denoiser, options), (_, (count, method, file)) = shared, one
    return tune_one(denoiser, count, method, checkpoint=file, **options)


tune.report = report  # type: ignore[attr-defined]
