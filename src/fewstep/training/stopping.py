"""How a process that is asked to stop (SIGTERM, Ctrl-C) ends a run at the end of a step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that fills when the process is asked to stop; outside the main thread it stays empty."""
    stopped: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda got, _: stopped.append(got))
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
