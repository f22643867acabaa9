"""Samples a second of long runs, as a ratio to the bare network: the same number of its calls on the same batches.

Four things take turns in one process, round after round: the bare network, called as often as a run calls it; the same
once more, whose ratio to the first tells how far chance moves a ratio here; `fewstep.sample`; and a shard of
`fewstep.generate`, sampled, hashed, written and synced to the disk.  A ratio is the median over the rounds, of
processor times: on a machine that others use too, wall time tells more about them.  Chance moves two runs of one
network by percents, so the share of the network in a shard is measured within the shard too: the time spent in the
network's calls over that of the whole, from the same moments.  Wall time is what counts for several workers.  Memory:
the peak of each above what the process holds, in processes of their own.

    python benchmarks/throughput.py [batches] [memory] [workers] [beside]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from sections import about, put

import fewstep
from fewstep import load, make_plan, sample
from fewstep.atomic import write_atomically
from fewstep.denoisers import Denoiser
from fewstep.engines import Engine
from fewstep.generation import manifest
from fewstep.generation.job import Job, Model, make_shard
from fewstep.generation.memory import peak_of
from fewstep.generation.shards import Record, hash_of, pack
from fewstep.noise import START, draw
from fewstep.plan import Plan

MODEL, STEPS = "cifar10", 8
# Batch sizes, and how many rounds each takes.
ROUNDS = {1: 40, 4: 32, 16: 32, 64: 12}
WORKERS, EACH, RAY_BATCH = (1, 2), 64, 16


def bare(denoiser: Denoiser, plan: Plan, batch: int) -> Callable[[], None]:
    """As many calls of the network as the plan asks, on the same batch."""
    x, labels = torch.randn(batch, *denoiser.shape), torch.arange(batch) % 10
    told = denoiser.told(plan.ask_times).float()

    def work() -> None:
        with torch.no_grad():
            for time in told:
                denoiser.raw(x, time, label=labels)

    return work


def sampled(denoiser: Denoiser, plan: Plan, batch: int) -> Callable[[], None]:
    labels = (torch.arange(batch) % 10).tolist()
    return lambda: void(sample(denoiser, batch, plan=plan, cond={"label": labels}))


def sharded(model: Denoiser, plan: Plan, batch: int, folder: Path) -> Callable[[], None]:
    """A shard of one batch, written; a larger one is written as often a sample, in fewer files."""
    fewstep.generate(model, batch, folder, plan=plan, batch=batch, shard=batch)
    cond, kind = {"label": torch.arange(10)}, "safetensors"
    job = Job(Model(model, "cpu"), plan, (), cond, 0, torch.float32, batch, kind, batch, batch, 1, folder)
    told = job.about()
    return lambda: void(make_shard((job, told), (0, batch)))


def timed(denoiser: Denoiser, calls: list[float]) -> Denoiser:
    """The same denoiser, which notes the processor seconds of each of its network's calls."""

    def network(x: torch.Tensor, told: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        began = time.process_time()
        answer = denoiser.raw(x, told, label=label)
        calls.append(time.process_time() - began)
        return answer

    fields = {"shape": denoiser.shape, "null": denoiser.null, "time": denoiser.told}
    return fewstep.wrap(network, denoiser.path, denoiser.predicts, **fields)


def void(_: object) -> None:
    """Forget a result."""


def rounds(works: dict[str, Callable[[], None]], count: int) -> dict[str, list[tuple[float, float]]]:
    """(processor, wall) seconds of each in every round, taking turns; each round begins with another."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for work in works.values():
        work()
    names = list(works)
    for i in range(count):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            wall, cpu = time.perf_counter(), time.process_time()
            works[name]()
            spent[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return spent


def batches(where: Path) -> list[str]:
    denoiser, calls = load(MODEL), list[float]()
    plan = make_plan(denoiser.path, steps=STEPS)
    lines = [
        f"{MODEL}, {STEPS} steps of dpm-solver++; 1.000 is the bare network.", "",
        "| batch | samples/s, wall | the bare network again | `sample` | a written shard "
        "| the network's share of a shard | own ms a shard |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for batch, count in ROUNDS.items():
        works = {
            "bare": bare(denoiser, plan, batch), "again": bare(denoiser, plan, batch),
            "sample": sampled(denoiser, plan, batch),
            "shard": sharded(timed(denoiser, calls), plan, batch, where / str(batch)),
        }  # fmt: skip
        calls.clear()
        spent, asks = rounds(works, count), len(plan.ask_times)
        cpu = {name: [s[0] for s in each] for name, each in spent.items()}
        inside = [sum(calls[i : i + asks]) for i in range(len(calls) - asks * count, len(calls), asks)]
        ratio = {name: median(b / c for b, c in zip(cpu["bare"], each, strict=True)) for name, each in cpu.items()}
        share = median(n / s for n, s in zip(inside, cpu["shard"], strict=True))
        own = median(s - n for n, s in zip(inside, cpu["shard"], strict=True))
        lines.append(
            f"| {batch} | {batch / min(s[1] for s in spent['shard']):.2f} | {ratio['again']:.3f} | "
            f"{ratio['sample']:.3f} | {ratio['shard']:.3f} | {share:.3f} | {1e3 * own:.1f} |"
        )
        print(lines[-1], flush=True)
    return lines


def memory(kind: str, batch: int) -> None:
    """Print the peak of a kind of work, in MiB; for a process of its own."""
    torch.set_num_threads(1)
    denoiser, folder = load(MODEL), Path(tempfile.mkdtemp())
    plan = make_plan(denoiser.path, steps=STEPS)

    def written(denoiser: Denoiser, plan: Plan, batch: int) -> Callable[[], None]:
        options = {"plan": plan, "batch": batch, "shard": batch}
        return lambda: void(fewstep.generate(denoiser, batch, folder / str(batch), **options))

    makers = {"bare": bare, "shard": written}
    bare(denoiser, plan, 1)()  # what is loaded once
    makers[kind](denoiser, plan, 1)()
    work = makers[kind](denoiser, plan, batch)
    print(json.dumps(peak_of(work, "cpu") / 2**20))


def memories(where: Path) -> list[str]:
    lines = ["| batch | bare | a run of `generate` | over the network's own |", "|---|---|---|---|"]
    for batch in (16, 64):
        peaks = {}
        for kind in ("bare", "shard"):
            command = [sys.executable, "-W", "ignore", __file__, "peak", kind, str(batch)]
            peaks[kind] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        over = peaks["shard"] / peaks["bare"] - 1
        lines.append(f"| {batch} | {' | '.join(f'{p:.0f} MiB' for p in peaks.values())} | {100 * over:+.0f} % |")
        print(lines[-1], flush=True)
    return lines


def workers(where: Path) -> list[str]:
    """Wall time of runs on one and two Ray workers and in this process, taking turns."""
    import ray

    # Ray's workers are nice to others; beside other work that would be measured.
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0", RAY_worker_niceness="0")
    plan = make_plan(load(MODEL).path, steps=STEPS)
    seconds: dict[str, list[float]] = {}

    def run(name: str, engine: str) -> None:
        folder = where / f"{name}-{len(seconds.get(name, []))}"
        began = time.perf_counter()
        fewstep.generate(MODEL, EACH, folder, plan=plan, batch=RAY_BATCH, shard=RAY_BATCH, engine=engine)
        seconds.setdefault(name, []).append(time.perf_counter() - began)

    run("this process", "local")
    for count in WORKERS:
        ray.init("local", num_cpus=count, include_dashboard=False, log_to_driver=False, object_store_memory=2**27)
        warm = where / f"warm-{count}"
        fewstep.generate(MODEL, 2 * count, warm, plan=plan, shard=1, batch=1, engine="ray")
        for _ in range(2):
            run(f"{count} worker{'s' * (count > 1)}", "ray")
        ray.shutdown()
    run("this process", "local")
    base = min(seconds["this process"])
    lines = [
        f"{EACH} samples in shards of {RAY_BATCH}.",
        "",
        "| where | samples/s, wall, best | to this process |",
        "|---|---|---|",
    ]
    lines += [f"| {n} | {EACH / min(s):.2f} | {base / min(s):.2f} |" for n, s in seconds.items()]
    return lines


def nothing(_: None, item: int) -> int:
    """A task that does nothing."""
    return item


def seconds_of(work: Callable[[], object], times: int) -> tuple[float, float]:
    """The least (processor, wall) seconds of some work."""
    spent = rounds({"": lambda: void(work())}, times)[""]
    return min(s[0] for s in spent), min(s[1] for s in spent)


def around(where: Path) -> list[str]:
    """What a run does beside sampling, by itself."""
    import ray

    some = sample(load(MODEL), 64, steps=STEPS, cond={"label": [i % 10 for i in range(64)]}).x
    x, labels, plan = some.repeat(16, 1, 1, 1), {"label": torch.arange(1024) % 10}, 20000
    packs = {files: pack(x, labels, 0, files, (-1.0, 1.0)) for files in ("safetensors", "png")}
    png, _ = seconds_of(lambda: pack(x[:64], {}, 0, "png", (-1.0, 1.0)), 3)
    _, store = seconds_of(lambda: write_atomically(where / "shard", packs["safetensors"]), 5)
    hashed, _ = seconds_of(lambda: hash_of(packs["safetensors"]), 5)
    noise, _ = seconds_of(lambda: draw(0, range(64), (3, 32, 32), 0, START), 5)
    journal = manifest.Journal(where, "safetensors")
    records = [Record(i, 1024 * i, 1024, 12591248, "0" * 64, 64, [[64, 16]]) for i in range(plan)]
    _, line = seconds_of(lambda: [journal.add(r) for r in records[:20]], 3)
    _, manifests = seconds_of(lambda: manifest.save(where, {}, records), 2)
    _, scan = seconds_of(lambda: manifest.Journal(where, "safetensors", records), 2)
    size = (where / manifest.MANIFEST).stat().st_size
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=2**27)
    _, tasks = seconds_of(lambda: list(Engine("ray").spread(nothing, range(500))), 3)
    ray.shutdown()
    return [
        "| what | measured |",
        "|---|---|",
        f"| a safetensors shard of 1,024 pictures, {len(packs['safetensors']) / 1e6:.1f} MB: written and synced | "
        f"{1e3 * store:.0f} ms, {len(packs['safetensors']) / store / 1e6:.0f} MB/s |",
        f"| its hash | {1e3 * hashed:.0f} ms |",
        f"| bytes a picture: safetensors, png and label in tar | {len(packs['safetensors']) / 1024:.0f}, "
        f"{len(packs['png']) / 1024:.0f} |",
        f"| a picture as png, processor | {1e3 * png / 64:.2f} ms |",
        f"| the noise of a picture, processor | {1e3 * noise / 64:.3f} ms |",
        f"| a line in the journal, synced | {1e3 * line / 20:.1f} ms |",
        f"| the manifest of {plan:,} shards at the end | {manifests:.2f} s, {size / plan:.0f} bytes a shard |",
        f"| looking for {plan:,} shards when a run goes on | {scan:.2f} s |",
        f"| tasks of Ray that do nothing, two workers, one driver | {500 / tasks:.0f} a second |",
    ]


SECTIONS: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "batches": ("Batch size", batches),
    "memory": ("Peak memory above what the process holds", memories),
    "workers": ("Workers", workers),
    "beside": ("Beside sampling", around),
}


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    for name in names or SECTIONS:
        heading, measure = SECTIONS[name]
        with tempfile.TemporaryDirectory() as folder:
            head = about()
            put(
                Path(__file__).with_suffix(".md"),
                "Throughput of long runs",
                heading,
                [head, "", *measure(Path(folder))],
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        memory(sys.argv[2], int(sys.argv[3]))
    else:
        main(sys.argv[1:])
