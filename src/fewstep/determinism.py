"""The same bits: a run by deterministic kernels alone, after which the process is set as it was before.

The noise of a run is a function of (seed, sample) and never differs.  Its numbers may: some kernels add in whatever
order their threads arrive, or are chosen by a race.  torch can leave those out:

    torch.use_deterministic_algorithms(True),  cudnn.deterministic = True,  cudnn.benchmark = False

These are settings of the whole process.  So runs of several threads share them: the first that enters sets them, and
the last that leaves puts back what was there.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch.backends import cudnn

from fewstep.errors import ArgumentError

T = TypeVar("T")
# torch's mode (2: an operation without a deterministic kernel is an error), cuDNN's two.
Settings = tuple[int, bool, bool]
STRICT: Settings = (2, True, False)
# What cuBLAS must have been told before it begins, so that its sums have one order: so torch asks, and so does NVIDIA.
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
WORKSPACES = (":4096:8", ":16:8")
# torch names the operation at the beginning of its refusal.
REFUSED = re.compile(r"(\S+) does not have a deterministic implementation")


class _Shared:
    """The strict settings, while any thread is inside."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, STRICT

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.before = (torch.get_deterministic_debug_mode(), cudnn.deterministic, cudnn.benchmark)
                _set(STRICT)
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                _set(self.before)


_SHARED = _Shared()


def _set(settings: Settings) -> None:
    mode, cudnn.deterministic, cudnn.benchmark = settings
    # The same as `use_deterministic_algorithms`, which would set the compiler's part too: that is each thread's own.
    torch.set_deterministic_debug_mode(mode)


def _compiler() -> AbstractContextManager[Any]:
    """torch's compiler without choices by measuring, where this version of it has that mode; for this thread alone."""
    from torch._inductor import config

    has = hasattr(config, "deterministic")
    return config.patch(deterministic=True) if has else nullcontext()  # type: ignore[arg-type]


def _workspace_missing() -> ArgumentError:
    return ArgumentError(
        f"deterministic=True on a CUDA device needs the environment variable {WORKSPACE} to be "
        f"{' or '.join(WORKSPACES)} before CUDA is first used, now it is {os.environ.get(WORKSPACE)!r}: start by "
        f"{WORKSPACE}={WORKSPACES[0]} python …, or leave deterministic out"
    )


@contextmanager
def same_bits(device: torch.device) -> Iterator[None]:
    """A context in which torch takes deterministic kernels only, in all threads of the process.

    Args:
        device: where it will run; on a CUDA device cuBLAS must have been told by CUBLAS_WORKSPACE_CONFIG.

    Raises:
        ArgumentError: it was not told; or, out of what runs inside, an operation has no deterministic kernel.
    """
    # AMD's library needs no such thing, and torch does not ask for it there.
    if device.type == "cuda" and torch.version.hip is None and os.environ.get(WORKSPACE) not in WORKSPACES:
        raise _workspace_missing()
    try:
        with _compiler(), _SHARED:
            yield
    except RuntimeError as error:
        found = REFUSED.search(str(error))
        if found is not None:
            raise ArgumentError(
                f"deterministic=True: the run used {found[1]}, of which torch has no deterministic kernel on "
                f"{device.type}; leave deterministic out, or replace that operation in the network or the guide"
            ) from error
        # Told too late, of which torch itself takes note.
        if WORKSPACE in str(error):
            raise _workspace_missing() from error
        raise


def stepwise(steps: Iterator[T], device: torch.device) -> Iterator[T]:
    """The same steps, each taken within `same_bits`; what the caller does between them is not.

    Args:
        steps: a generator, which runs when it is asked for its next.
        device: where it runs.
    """
    while True:
        with same_bits(device):
            step = next(steps, None)
        if step is None:
            return
        yield step
