"""Runs of `fewstep.generate` that are killed with signal 9, beside one that is not: are the bytes the same?

First 20 runs, each killed at a random moment and started again in the same folder; then one run on two Ray workers, one
of which is killed three times.  The moments are drawn over the time that a run takes undisturbed, seed 0.  Every run is
a process of its own, forked when all is imported, so that a moment falls into the run and not into imports.

    python benchmarks/faults.py [kills] [ray]
"""

import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from sections import about, put

import fewstep
from fewstep.generation import manifest, verify

MODEL, COUNT, SHARD, KILLS = "mnist", 240, 4, 20
OPTIONS = {"steps": 2, "shard": SHARD, "batch": SHARD, "seed": 5}
RAY = {"steps": 8, "shard": 16, "batch": 16, "seed": 5}
RAY_COUNT, RAY_KILLS, TURNS = 320, 3, 2


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file of a run."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != manifest.LOCK}


def begun(work: Callable[[], object]) -> int:
    """The number of a child process that does the work."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def ended(child: int) -> int:
    """Its exit status: 0 after a whole run, −9 after a kill."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def generate(folder: Path) -> None:
    torch.set_num_threads(1)
    fewstep.generate(MODEL, COUNT, folder, **OPTIONS)


def found(folder: Path) -> str:
    """What a kill left, in words."""
    if not (folder / manifest.MANIFEST).exists():
        return "no manifest yet"
    told, complete = manifest.load(folder)
    if complete is not None:
        return "all done, the journal not yet removed"
    lines, there = len(manifest.read_journal(folder)), len(list(folder.glob("shard-*")))
    torn = sum(1 for file in folder.glob(".*") if file.name != manifest.LOCK)
    return (
        f"{lines} of {-(-told['count'] // told['shard'])} shards"
        + (f", {there - lines} not yet in the journal" if there > lines else "")
        + (f", {torn} half-written" if torn else "")
    )


def killed_runs(where: Path) -> tuple[list[str], int]:
    """Lines of the table, and how many came out the same."""
    began = time.perf_counter()
    assert ended(begun(lambda: generate(where / "whole"))) == 0
    usual, want = time.perf_counter() - began, contents(where / "whole")
    chance, lines, same = random.Random(0), [], 0
    while len(lines) < KILLS:
        folder, moment = where / str(len(lines)), chance.uniform(0, usual)
        folder.mkdir()
        child = begun(lambda folder=folder: generate(folder))
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        if ended(child) == 0:  # it was faster this time
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
            continue
        state = found(folder)
        assert ended(begun(lambda folder=folder: generate(folder))) == 0
        equal = contents(folder) == want and verify(folder).whole
        same += equal
        lines.append(f"| {len(lines) + 1} | {moment:.2f} | {state} | {'yes' if equal else '**no**'} |")
        print(lines[-1], flush=True)
    return lines, same


def workers() -> list[int]:
    """The processes of Ray's workers below this one that are at a task."""
    below, parents = {os.getpid()}, {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = status.read_text().rsplit(")", 1)
        except OSError:
            continue
        parents[int(status.parent.name)] = (int(rest.split()[1]), name.split("(", 1)[1])
    for _ in range(8):
        below |= {child for child, (parent, _) in parents.items() if parent in below}
    return [child for child, (_, name) in parents.items() if child in below and name.startswith("ray::_task")]


def on_ray(folder: Path, kills: list[float]) -> tuple[float, int]:
    """Seconds of a run on two workers, and how many were killed at those moments (seconds after its beginning)."""
    killed, over = 0, threading.Event()

    def kill() -> None:
        nonlocal killed
        began = time.perf_counter()
        for moment in kills:
            if over.wait(max(0.0, moment - (time.perf_counter() - began))):
                return
            while not over.is_set():
                at_work = workers()
                if at_work:
                    os.kill(min(at_work), signal.SIGKILL)
                    killed += 1
                    break
                time.sleep(0.05)

    killer = threading.Thread(target=kill)
    began = time.perf_counter()
    killer.start()
    fewstep.generate(MODEL, RAY_COUNT, folder, engine="ray", **RAY)
    seconds = time.perf_counter() - began
    over.set()
    killer.join()
    return seconds, killed


def with_ray(where: Path) -> list[str]:
    """Lines about two workers; undisturbed and disturbed runs take turns, since the machine does other work too."""
    # Ray's workers are nice to others; beside other work that would be measured.
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0", RAY_worker_niceness="0")
    import ray

    torch.set_num_threads(1)
    fewstep.generate(MODEL, RAY_COUNT, where / "one", **RAY)
    want, chance = contents(where / "one"), random.Random(1)
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=2**27)
    try:
        on_ray(where / "warm", [])  # the workers have imported torch
        usual = [on_ray(where / "usual-0", [])[0]]
        disturbed, kills = [], []
        for turn in range(1, TURNS + 1):
            moments = sorted(chance.uniform(0.05, 0.8) * usual[-1] for _ in range(RAY_KILLS))
            seconds, killed = on_ray(where / f"killed-{turn}", moments)
            disturbed.append(seconds)
            kills.append(killed)
            usual.append(on_ray(where / f"usual-{turn}", [])[0])
    finally:
        ray.shutdown()
    equal = [contents(folder) == want for folder in where.glob("killed-*")]
    cost = statistics.mean(d - (a + b) / 2 for d, a, b in zip(disturbed, usual[:-1], usual[1:], strict=True))
    shards = RAY_COUNT // RAY["shard"]
    return [
        f"{RAY_COUNT} samples in {shards} shards, {RAY['steps']} steps, on two workers; {TURNS} runs in which "
        f"{RAY_KILLS} times one of the two is killed with signal 9, between {TURNS + 1} that are left alone. Bytes of "
        f"every file equal to those of one process without Ray in **{sum(equal)} of {TURNS}**; workers killed: "
        f"{', '.join(map(str, kills))}.",
        "",
        f"- Seconds left alone: {', '.join(f'{s:.1f}' for s in usual)}",
        f"- Seconds with the kills: {', '.join(f'{s:.1f}' for s in disturbed)}",
        f"- So the loss cost {cost:.1f} s a run, {cost / RAY_KILLS:.1f} s a kill, the mean over {TURNS}: a shard that "
        f"is made again (at most one of {shards} a kill), and a new process that imports torch and reads the model "
        "while the other worker goes on.",
    ]


def kills(where: Path) -> list[str]:
    """Lines about runs that are killed."""
    lines, same = killed_runs(where)
    return [
        f"`generate` of {COUNT} samples of {MODEL} in {COUNT // SHARD} shards, killed once and started again: bytes of "
        f"every file equal to the run that was not killed in **{same} of {KILLS}**.",
        "", "| kill | at second | what it left | same bytes |", "|---|---|---|---|", *lines,
    ]  # fmt: skip


SECTIONS: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "kills": ("Kill −9 at random moments", kills),
    "ray": ("Two Ray workers, one killed three times", with_ray),
}


def main(names: list[str]) -> None:
    for name in names or SECTIONS:
        heading, measure = SECTIONS[name]
        with tempfile.TemporaryDirectory() as folder:
            lines = [about(), "", *measure(Path(folder))]
        put(Path(__file__).with_suffix(".md"), "Kills", heading, lines)


if __name__ == "__main__":
    main(sys.argv[1:])
