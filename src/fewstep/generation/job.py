"""What a run makes, and how a worker makes one shard of it: a function of the job and the shard's number alone.

Sample i of the run is sample i of the seed, with row i mod n of every condition that has n rows.  Every shard begins a
batch of its own, so that its bytes do not depend on who makes it, when, or what was made before.
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.atomic import write_atomically
from fewstep.denoisers import Denoiser
from fewstep.engines import Engine
from fewstep.errors import ArgumentError, ResourceError
from fewstep.generation.fingerprint import fingerprint
from fewstep.generation.manifest import MANIFEST
from fewstep.generation.memory import fitting_batch, out_of_memory
from fewstep.generation.shards import Record, hash_of, name_of, pack, storing
from fewstep.guidance import Guide
from fewstep.loading import load
from fewstep.plan import Plan
from fewstep.plan.files import dumps
from fewstep.sampling import sample, stream


class Model:
    """A denoiser, or where to read it: a worker reads it itself, and only a denoiser without a name is sent.

    Args:
        source: a denoiser, or what `fewstep.load` takes.
        device, revision: of `fewstep.load`.
    """

    def __init__(self, source: Denoiser | str | Path, device: str, revision: str = "") -> None:
        self.source, self.device, self.revision = source, device, revision

    @cached_property
    def denoiser(self) -> Denoiser:
        """The denoiser, read once a process."""
        return self.source if isinstance(self.source, Denoiser) else load(self.source, self.device, self.revision)

    @cached_property
    def hash(self) -> str:
        """The hash of its weights and of what surrounds them."""
        return fingerprint(self.denoiser)

    def __getstate__(self) -> dict[str, Any]:
        return {key: self.__dict__[key] for key in ("source", "device", "revision")}


@dataclass(frozen=True)
class Job:
    """A run.

    Args:
        model: what is sampled from.
        plan, guides, cond, seed, dtype: as in `sample`; tensors of cond have as many rows as they have.
        count: how many samples.
        files: "safetensors" or "png".
        shard: samples a file.
        batch: samples at once.
        threads: of torch, on each worker.
        folder: where the shards go; all workers see it.
    """

    model: Model
    plan: Plan
    guides: tuple[Guide, ...]
    cond: Mapping[str, Any]
    seed: int
    dtype: torch.dtype
    count: int
    files: str
    shard: int | None
    batch: int | None
    threads: int | None
    folder: Path

    def about(self) -> dict[str, Any]:
        """All that the bytes of the shards depend on, as JSON data."""
        named = "" if isinstance(self.model.source, Denoiser) else str(self.model.source)
        return {
            "model": {"name": named or self.model.denoiser.name, "hash": self.model.hash},
            "plan": json.loads(dumps(self.plan)),
            "guides": [{"name": type(g).__name__, "hash": fingerprint(g)} for g in self.guides],
            "cond": {k: _told(v) for k, v in self.cond.items()},
            "seed": self.seed, "count": self.count, "files": self.files, "shard": self.shard, "batch": self.batch,
            "threads": self.threads, "dtype": str(self.dtype).removeprefix("torch."), "machine": self.machine(),
            "shape": list(self.model.denoiser.picture_shape), "limits": list(self.model.denoiser.limits),
            "versions": {
                "fewstep": version("fewstep"), "torch": torch.__version__, "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }  # fmt: skip

    def machine(self) -> str:
        """What the numbers are computed on."""
        if torch.device(self.model.device).type == "cuda":
            return torch.cuda.get_device_name(self.model.device)
        return f"{self.model.device}, {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"

    def conditions(self, first: int, count: int) -> dict[str, Any]:
        """The conditions of samples first … first + count − 1."""
        return rows_of(self.cond, first, count)

    def draw(self, first: int, count: int) -> Tensor:
        """The pictures of some samples."""
        denoiser = self.model.denoiser
        out = sample(
            denoiser, count, plan=self.plan, guides=self.guides, cond=self.conditions(first, count), seed=self.seed,
            first=first, dtype=self.dtype, device=self.model.device,
        )  # fmt: skip
        with torch.no_grad():
            return denoiser.decode(out.x)


def rows_of(cond: Mapping[str, Any], first: int, count: int) -> dict[str, Any]:
    """The rows of conditions that samples first … first + count − 1 get, dealt out in turn."""
    rows = torch.arange(first, first + count)
    return {k: v[rows % len(v)] if isinstance(v, Tensor) and v.ndim else v for k, v in cond.items()}


def _told(value: Any) -> Any:
    """A condition as JSON data: itself where it is short, else its hash."""
    if isinstance(value, Tensor) and value.ndim < 2 and value.numel() <= 1000 and not value.is_floating_point():
        return value.tolist()
    return {"hash": fingerprint(value)} if not isinstance(value, (int, float, str)) else value


def measured_batch(job: Job, engine: Engine) -> int:
    """The batch size that fits the memory of the machine that is asked, shared between as many tasks as it runs.

    Raises:
        ResourceError: the memory is too short for one sample.
    """

    def run(count: int) -> None:
        for event in stream(
            job.model.denoiser, count, plan=job.plan, guides=job.guides, cond=job.conditions(0, count), seed=job.seed,
            dtype=job.dtype, device=job.model.device,
        ):  # fmt: skip
            event.stop()
            job.model.denoiser.decode(event.x)

    try:
        return fitting_batch(run, job.model.device, engine.side_by_side)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise too_short(error) from error


def make_shard(shared: tuple[Job, dict[str, Any]], item: tuple[int, int]) -> Record:
    """Draw a shard and write its file.

    Args:
        shared: the job with every size settled, and what `Job.about` told where the run was begun.
        item: (number of the shard, the batch size to begin with).

    Raises:
        ArgumentError: this worker would make other samples than the run was begun with.
        ResourceError: the memory is too short for one sample.
        StorageError: the file cannot be written.
    """
    (job, about), (index, batch) = shared, item
    _check_place(job, about)
    assert job.shard is not None
    assert job.threads is not None
    torch.set_num_threads(job.threads)
    first = index * job.shard
    count = min(job.shard, job.count - first)
    x, batch, batches = _drawn(job, first, count, batch)
    numbers = {
        k: v for k, v in job.conditions(first, count).items()
        if isinstance(v, Tensor) and v.ndim == 1 and not v.is_floating_point()
    }  # fmt: skip
    data = pack(x, numbers, first, job.files, job.model.denoiser.limits)
    with storing(job.folder):
        write_atomically(job.folder / name_of(index, job.files), data)
    return Record(index, first, count, len(data), hash_of(data), batch, batches)


def too_short(error: BaseException) -> ResourceError:
    """What an allocator that refuses one sample means."""
    return ResourceError(f"the memory is too short for one sample: {error}")


def _drawn(job: Job, first: int, count: int, batch: int) -> tuple[Tensor, int, list[list[int]]]:
    """Samples on the host, the batch size that was left of `batch`, and the batches as they ran."""
    parts: list[Tensor] = []
    batches: list[list[int]] = []
    while (done := sum(map(len, parts))) < count:
        size = min(batch, count - done)
        try:
            parts.append(job.draw(first + done, size).cpu())
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                raise too_short(error) from error
            batch = size // 2
            continue
        if batches and batches[-1][0] == size:
            batches[-1][1] += 1
        else:
            batches.append([size, 1])
    return torch.cat(parts), batch, batches


def _check_place(job: Job, about: dict[str, Any]) -> None:
    """Refuse a worker that would make other samples, or that does not see the run's folder."""
    if not (job.folder / MANIFEST).is_file():
        raise ArgumentError(f"a worker does not see {job.folder}: it must be a folder that all machines share")
    here = {"machine": job.machine(), "model": job.model.hash}
    begun = {"machine": about["machine"], "model": about["model"]["hash"]}
    if here != begun:
        raise ArgumentError(f"a worker has {here}; the run was begun with {begun}, and would not be the same there")
