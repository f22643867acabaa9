"""How large a batch may be, measured; and what an allocator says when it was too large after all."""

import ctypes
import resource
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

# Samples that the probe draws at once, the share of the free memory that a run may take, and the largest batch that is
# chosen: more gains nothing (benchmarks/throughput.md), but more can be asked for.
PROBED, SHARE = 4, 0.5
MOST = {"cpu": 64}
MOST_ELSEWHERE = 1024
REFUSALS = ("not enough memory", "can't allocate memory", "out of memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was short."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in REFUSALS)


def peak_of(work: Callable[[], None], device: torch.device | str) -> int:
    """Bytes by which the most that was held while working exceeds what was held before.

    On a CUDA device the allocator counts them.  On the CPU it is the resident memory of the process as Linux counts it,
    in pages; elsewhere the most that the process ever held, which is too little where it held more before.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not status.exists():
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        work()
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) * 1024

    def kibibytes(key: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(key))

    # What glibc keeps of freed memory is resident: work that takes it again would seem to take nothing.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    with suppress(OSError):  # else the peak of before stands, and the figure is too large, never too small
        reset.write_text("5")
    before = kibibytes("VmRSS:")
    work()
    return max(0, kibibytes("VmHWM:") - before) * 1024


def free_bytes(device: torch.device | str) -> int:
    """What a device, or the machine within the limits of its container, has left."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo, group = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    if not meminfo.exists():
        return 2**31
    free = next(int(x.split()[1]) for x in meminfo.read_text().splitlines() if x.startswith("MemAvailable")) * 1024
    try:
        limit = (group / "memory.max").read_text().strip()
        return free if limit == "max" else min(free, int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        return free


def fitting_batch(run: Callable[[int], None], device: torch.device | str, sharing: int = 1) -> int:
    """The largest power of two whose samples, at what one of a few measured ones took, fit in half the free memory.

    Args:
        run: draws so many samples, a step of them.
        device: where.
        sharing: how many such runs the memory is shared between.

    Raises:
        Whatever `run` raises when memory is too short for one sample.
    """
    most = MOST.get(torch.device(device).type, MOST_ELSEWHERE)
    probed = PROBED
    while True:
        try:
            run(1)  # what is loaded once is not counted as the samples'
            each = peak_of(partial(run, probed), device) / probed
            break
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error) or probed == 1:
                raise
            probed //= 2
    fits, batch = SHARE * free_bytes(device) / sharing, 1
    while batch < most and 2 * batch * each <= fits:
        batch *= 2
    return batch
