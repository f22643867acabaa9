"""A run's folder, read again: every shard against its hash, and every sample there once."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.generation import manifest
from fewstep.generation.shards import Record, damage, folder_of, name_of, storing
from fewstep.plan.files import loads


@dataclass(frozen=True)
class Verified:
    """What `verify` found.

    Args:
        shards, of: how many shards are finished, and how many the run has.
        samples: how many samples the finished ones hold.
        faults: what is wrong, a line each.
    """

    shards: int
    of: int
    samples: int
    faults: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether every sample is there as it was made."""
        return not self.faults and self.shards == self.of

    def __str__(self) -> str:
        state = f"{self.shards} of {self.of} shards are there, {self.samples} samples"
        state += "; all as they were made" if not self.faults else ""
        state += "; the call that began it makes the rest" if self.shards < self.of else ""
        return "\n".join([state, *self.faults])


def verify(out: str | Path) -> Verified:
    """Read every finished shard of a run again and compare it with its hash; nothing is changed.

    Args:
        out: the folder of the run.

    Raises:
        StorageError: the folder holds no run, cannot be read, or its manifest was changed or cut.
        PlanError: the plan in the manifest is not a whole plan.
    """
    folder = folder_of(out)
    with storing(folder):
        about, complete = manifest.load(folder)
        loads(json.dumps(about["plan"]))
        records = complete if complete is not None else manifest.read_journal(folder)
        faults = [damage(folder, record, about["files"]) for record in records]
        if complete is not None:
            known = {name_of(r.index, about["files"]) for r in records}
            faults += [f"{f.name} is no shard of this run" for f in folder.glob("shard-*") if f.name not in known]
    of = -(-about["count"] // about["shard"])
    faults += _misplaced(about, records)
    return Verified(len(records), of, sum(r.count for r in records), tuple(f for f in faults if f))


def _misplaced(about: dict[str, Any], records: list[Record]) -> list[str]:
    """Shards that are told twice, or of other samples than their number says."""
    faults, seen, size = [], set(), about["shard"]
    for record in records:
        if record.index in seen:
            faults.append(f"shard {record.index} is told twice")
        seen.add(record.index)
        first = record.index * size
        if (record.first, record.count) != (first, min(size, about["count"] - first)):
            faults.append(f"shard {record.index} holds other samples than its number says")
    return faults
