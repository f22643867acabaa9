"""The folder of a run: its manifest, the journal of finished shards, and the lock that keeps a second process out.

`manifest.json` says what the run makes, from which everything follows: model, plan, seed, conditions, sizes, versions.
It is written whole before the first shard, and once more at the end with the records of all shards in it.  Until then
`journal.jsonl` holds a line for every finished shard.  A shard counts when its line stands there whole; what a kill
left of a line or of a temporary file is thrown away.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fewstep.atomic import write_atomically
from fewstep.errors import ArgumentError, StorageError
from fewstep.generation.shards import ENDINGS, Record, as_record, name_of, storing

FORMAT, VERSION = "fewstep-generation", 1
MANIFEST, JOURNAL, LOCK = "manifest.json", "journal.jsonl", ".lock"
# What a call may leave to the run that it goes on with, by the name of its argument.
LEFT_OPEN = ("batch", "shard", "threads")
KEYS = {
    "model", "plan", "guides", "cond", "seed", "count", "files", "shard", "batch", "threads", "dtype", "machine",
    "shape", "limits", "versions",
}  # fmt: skip


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, made if it is not there, against every other process.

    Raises:
        StorageError: another process holds it, or it cannot be written.
    """
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with storing(folder):  # some network folders have no locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StorageError(
                    f"another process is generating into {folder}; wait for it or name another"
                ) from error
        yield
    finally:
        os.close(handle)


def hash_of(about: dict[str, Any]) -> str:
    """The hash of a manifest's content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(about, sort_keys=True, allow_nan=False).encode()).hexdigest()


def save(folder: Path, about: dict[str, Any], records: list[Record] | None) -> None:
    """Write the manifest, with the records of all shards when the run is complete."""
    content = {**about, "shards": None if records is None else [asdict(r) for r in records]}
    head = {"format": FORMAT, "version": VERSION, "hash": hash_of(content)}
    with storing(folder):
        write_atomically(folder / MANIFEST, (json.dumps({**head, **content}, ensure_ascii=False) + "\n").encode())


def load(folder: Path) -> tuple[dict[str, Any], list[Record] | None]:
    """(what the run makes, the records of a complete run).

    Raises:
        StorageError: there is no manifest, or it was changed or cut.
    """
    file = folder / MANIFEST
    try:
        content = json.loads(file.read_text(encoding="utf8"))
        head = {key: content.pop(key) for key in ("format", "version", "hash")}
        if (head["format"], head["version"]) != (FORMAT, VERSION):
            raise StorageError(f"{file} is not a {FORMAT} of version {VERSION}")
        if head["hash"] != hash_of(content):
            raise StorageError(f"{file} was changed since it was written: its hash does not match")
        shards = content.pop("shards")
        sizes = [content.get(key) for key in ("count", "shard", "batch", "threads")]
        if set(content) != KEYS or content["files"] not in ENDINGS or not all(_is_size(v) for v in sizes):
            raise StorageError(f"{file} is not a whole manifest: a key is missing, or a size is no number")
        return content, None if shards is None else [as_record(r) for r in shards]
    except FileNotFoundError as error:
        raise StorageError(f"{folder} holds no run: there is no {MANIFEST}") from error
    except StorageError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(f"{file} is not a whole manifest: {error}") from error


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def same_run(folder: Path, found: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """What a run goes on with: what was asked for, and where a size was left open (None) the size that it began with.

    Raises:
        ArgumentError: something that the samples depend on is another than when the run was begun; all are named.
    """
    wanted = {key: found.get(key) if key in LEFT_OPEN and value is None else value for key, value in asked.items()}
    other = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
    if other:
        told = "; ".join(f"{key} was {_short(found.get(key))} and is {_short(wanted.get(key))}" for key in other)
        raise ArgumentError(f"{folder} was begun otherwise: {told}.  Give the same again, or name another folder")
    return wanted


def _short(value: Any) -> str:
    if isinstance(value, dict) and "hash" in value:
        name = value.get("name") or (value.get("source") or {}).get("solver", "")
        return f"{name} {str(value['hash'])[:12]}".strip()
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]} … (hash {hash_of({'value': value})[:12]})"


class Journal:
    """The finished shards of a run that is under way.

    Args:
        folder: of the run; it must be locked.
        files: the kind of its shards.
        complete: the records in the manifest of a run that was complete.
    """

    def __init__(self, folder: Path, files: str, complete: list[Record] | None = None) -> None:
        with storing(folder):
            for pattern in (".shard-*", f".{MANIFEST}.*", f".{JOURNAL}.*"):
                for left in folder.glob(pattern):
                    left.unlink(missing_ok=True)
            lines = read_journal(folder)
            # A torn line at the end would join the next one.
            write_atomically(folder / JOURNAL, "".join(map(_line, lines)).encode())
            self.folder, self.known = folder, {r.index: r for r in [*(complete or []), *lines]}
            self.records = {i: r for i, r in self.known.items() if _stands(folder, r, files)}

    def add(self, record: Record) -> None:
        """Count a shard, whose file is whole on the disk, as finished.

        Raises:
            StorageError: the disk is full, or a shard that was made again came out otherwise.
        """
        before = self.known.get(record.index, record)
        if before.sha256 != record.sha256:
            raise StorageError(
                f"shard {record.index} was lost and came out otherwise now, in batches {record.batches} (before "
                f"{before.batches}): the shards of this folder do not belong together any more"
            )
        with storing(self.folder), open(self.folder / JOURNAL, "ab") as file:
            file.write(_line(record).encode())
            file.flush()
            os.fsync(file.fileno())
        self.records[record.index] = record

    def close(self, about: dict[str, Any]) -> None:
        """Write all records into the manifest, and end the journal."""
        save(self.folder, about, [self.records[i] for i in sorted(self.records)])
        with storing(self.folder):
            (self.folder / JOURNAL).unlink()


def _line(record: Record) -> str:
    return json.dumps(asdict(record)) + "\n"


def read_journal(folder: Path) -> list[Record]:
    """The records of the journal, up to a line that is not whole."""
    file, records = folder / JOURNAL, []
    for line in file.read_text(encoding="utf8", errors="replace").splitlines(keepends=True) if file.exists() else ():
        try:
            records.append(as_record(json.loads(line)))
        except (ValueError, TypeError, RecursionError):
            break
        if not line.endswith("\n"):
            records.pop()
    return records


def _stands(folder: Path, record: Record, files: str) -> bool:
    """Whether the file of a record is there in its full length; `verify` also reads it."""
    file = folder / name_of(record.index, files)
    return file.is_file() and file.stat().st_size == record.bytes
