"""Many samples into a folder, in shards, so that a kill at any moment loses nothing but the shards under way.

Started again with the same arguments, a run goes on and ends with the same bytes as one that was never stopped.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.checking import checked, checked_count
from fewstep.denoisers import Denoiser
from fewstep.denoisers.classes import classes_of
from fewstep.engines import Engine
from fewstep.errors import ArgumentError, StorageError
from fewstep.generation import manifest
from fewstep.generation.job import Job, Model, make_shard, measured_batch, rows_of
from fewstep.generation.shards import Record, check_files, folder_of
from fewstep.grids import Grid
from fewstep.guidance import Guide
from fewstep.noise import check_key
from fewstep.plan import Plan
from fewstep.session import SOLVER, as_rows, prepare
from fewstep.solvers import Solver

# A shard holds at most so many samples, and at most so many bytes of them.
SAMPLES, BYTES = 1024, 2**26


@dataclass(frozen=True)
class Generated:
    """What a run left in its folder.

    Args:
        folder: where.
        samples, shards: how many there are in all.
        made: how many samples this call made; the others were there.
        seconds: the time of this call.
        batches: the batch sizes that shards ended with, largest first.
    """

    folder: Path
    samples: int
    shards: int
    made: int
    seconds: float
    batches: tuple[int, ...]

    def __str__(self) -> str:
        return (
            f"{self.folder}: {self.samples} samples in {self.shards} shards; {self.made} made now in "
            f"{self.seconds:.1f} s, in batches of {', '.join(map(str, self.batches))}"
        )


@checked
def generate(
    model: Denoiser | str | Path,
    count: int,
    out: str | Path,
    *,
    solver: str | Solver = SOLVER,
    grid: str | Grid | Tensor | Sequence[float] | None = None,
    steps: int | None = None,
    evaluations: int | None = None,
    plan: Plan | None = None,
    guides: Sequence[Guide] = (),
    cond: Mapping[str, Any] | None = None,
    seed: int = 0,
    files: str = "safetensors",
    shard: int | None = None,
    batch: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    revision: str = "",
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> Generated:
    """Draw many samples into a folder; after a kill, the same call goes on and ends with the same bytes.

    Args:
        model: a denoiser, or what `fewstep.load` takes; with Ray a name is read by every worker, a denoiser is sent.
        count: how many samples.
        out: the folder; it is made, and it holds one run.  With Ray, one that all machines share.
        solver, grid, steps, evaluations, plan, guides, dtype: as in `sample`.
        cond: conditions by the network's names, dealt out in turn: sample i gets entry i mod n of a list of whole
            numbers, or of the rows of a tensor or array.  All classes in turn unless given, where there are any.
        seed: sample i is that of `sample(…, seed=seed, first=i)`.
        files: "safetensors", or "png": pictures in tar archives.
        shard: samples a file; up to 1024 and 64 MiB unless given.
        batch: samples at once; what a measured one allows in half the free memory unless given, on the CPU at most 64.
            Where the memory is short after all, it is halved and the run goes on with the same noises.
        device, revision: of `fewstep.load`.
        engine: "local", or "ray": shards are tasks, and one whose worker dies is done again elsewhere.
        address: of a Ray cluster; this machine's cores unless given.
        workers: tasks at once on this machine's cores.
        progress: show samples, rate and time left on standard error.

    Returns:
        What is in the folder, and what this call did.

    Raises:
        ArgumentError: a bad argument; the folder holds a run of another model, plan, seed, condition, size, machine or
            version.
        StorageError: the folder is held by another process, read-only, or full; finished shards are kept.
        NumericalError: the network answered with NaN or Inf.
        ResourceError: the memory is too short for one sample, or a shard's workers died again and again.
        MissingExtraError: engine="ray" without Ray.
    """
    began, folder = time.perf_counter(), folder_of(out)
    spread = Engine(engine, address, workers)
    source = Model(model, str(device), revision)
    denoiser = source.denoiser
    check_files(files, denoiser.picture_shape)
    # A shard is held whole.
    for name, value, shape in (("count", count, ()), ("shard", shard, denoiser.picture_shape), ("batch", batch, ())):
        if value is not None:
            checked_count(name, min(value, count) if name == "shard" else value, shape)
    check_key(seed, [count - 1])
    dealt = _dealt(cond, denoiser)
    # All that a run refuses is refused here, before the folder is touched.
    session = prepare(
        denoiser, 1, solver=solver, grid=grid, steps=steps, evaluations=evaluations, plan=plan, guides=guides,
        cond=rows_of(dealt, 0, 1), seed=seed, dtype=dtype, device=device,
    )  # fmt: skip
    spread = replace(spread, gpus=int(session.start.device.type == "cuda"))
    job = Job(
        source, session.program.plan, tuple(guides), dealt, int(seed), dtype, count, files, shard, batch, None, folder
    )
    with manifest.locked(folder):
        job, about, complete = _begin(job, spread)
        journal = manifest.Journal(folder, files, complete)
        made = _run(job, about, journal, replace(spread, cpus=job.threads or 1), progress)
        journal.close(about)
    sizes = {record.batch for record in journal.records.values()}
    seconds = time.perf_counter() - began
    return Generated(folder, count, len(journal.records), made, seconds, tuple(sorted(sizes, reverse=True)))


def _dealt(cond: Mapping[str, Any] | None, denoiser: Denoiser) -> dict[str, Any]:
    """Conditions whose rows can be dealt out: whole numbers and lists of them as tensors."""
    if cond is None:
        classes = classes_of(denoiser)
        cond = {} if classes is None else {classes[0]: range(classes[1])}
    dealt: dict[str, Any] = {}
    for key, value in cond.items():
        value = as_rows(key, [value] if isinstance(value, int) else value)
        if isinstance(value, Tensor) and value.ndim and not len(value):
            raise ArgumentError(f"condition {key!r} has no rows to deal out")
        if isinstance(value, (list, tuple, set, frozenset)):
            raise ArgumentError(f"condition {key!r} must be whole numbers or a tensor, whose rows are dealt out")
        dealt[key] = value
    return dealt


def _begin(job: Job, engine: Engine) -> tuple[Job, dict[str, Any], list[Record] | None]:
    """The job with all its sizes and what its manifest says: of the run in the folder, or of a new one."""
    folder = job.folder
    if (folder / manifest.MANIFEST).exists():
        found, complete = manifest.load(folder)
        about = manifest.same_run(folder, found, job.about())
        return replace(job, **{key: about[key] for key in manifest.LEFT_OPEN}), about, complete
    left = next((f.name for pattern in ("shard-*", manifest.JOURNAL) for f in folder.glob(pattern)), "")
    if left:
        raise StorageError(f"{folder} holds {left} and no {manifest.MANIFEST}; name another folder")
    batch = job.batch
    if batch is None:
        # Where it will run: a worker of a cluster has another memory than this machine.
        there = engine if engine.address else Engine()
        ((_, batch),) = there.spread(measured_batch, [engine], job)
    threads = torch.get_num_threads() if engine.name == "local" else 1
    job = replace(job, batch=batch, threads=threads, shard=job.shard or _shard_size(job))
    about = job.about()
    manifest.save(folder, about, None)
    return job, about, None


def _shard_size(job: Job) -> int:
    each, size = torch.Size(job.model.denoiser.picture_shape).numel() * torch.finfo(job.dtype).bits // 8, SAMPLES
    while size > 1 and size * each > BYTES:
        size //= 2
    return size


def _run(job: Job, about: dict[str, Any], journal: manifest.Journal, engine: Engine, progress: bool) -> int:
    """Make every shard that is missing; how many samples that were."""
    assert job.shard is not None
    assert job.batch is not None
    shards = -(-job.count // job.shard)
    missing = (i for i in range(shards) if i not in journal.records)
    threads, made = torch.get_num_threads(), 0
    # A memory that was too short once is too short again: a shard begins with what the last ones came down to.
    smallest = min([job.batch, *(record.batch for record in journal.records.values())])
    had = sum(record.count for record in journal.records.values())

    def items() -> Iterator[tuple[int, int]]:
        for index in missing:
            yield index, smallest

    if len(journal.records) == shards:
        return 0
    try:
        # Closed, workers end before the folder's lock does.
        with (
            _shown(progress, job.count, had) as show,
            closing(engine.spread(make_shard, items(), (job, about))) as ended,
        ):
            for _, record in ended:
                journal.add(record)
                smallest = min(smallest, record.batch)
                made += record.count
                show(record.count)
    finally:
        torch.set_num_threads(threads)
    return made


@contextmanager
def _shown(wanted: bool, total: int, had: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error: samples, rate, time left.  The function it gives is told of finished samples."""
    if not wanted:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    began, made = time.monotonic(), 0
    columns = (
        TextColumn("generating"), BarColumn(), MofNCompleteColumn(), TextColumn("samples, {task.fields[rate]}, left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total, completed=had, rate="…/s")

        def show(count: int) -> None:
            nonlocal made
            made += count
            rate = made / max(time.monotonic() - began, 1e-9)
            bar.update(task, advance=count, rate=f"{rate:.3g}/s")

        yield show
