"""Long work that can be watched and stopped: it runs in a thread of its own, and says what it does as it goes."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fewstep.denoisers import Denoiser
from fewstep.denoisers.reported import reported

T = TypeVar("T")


class Stopped(Exception):
    """The visitor stopped the work; it is no error."""


@dataclass(frozen=True)
class Progress:
    """How far work is.

    Args:
        line: in words.
        share: in [0, 1], where it is known.
    """

    line: str
    share: float | None = None


@dataclass(frozen=True)
class Done(Generic[T]):
    """What the work gave; None where it was stopped."""

    value: T | None


def watched(denoiser: Denoiser, stop: threading.Event, seen: Callable[[int], None]) -> Denoiser:
    """A copy of a model whose every question to the network is reported, and the first after a stop raises `Stopped`.

    Args:
        denoiser: the model, which others may be using.
        stop: set by whoever wants the work to end.
        seen: called with the number of rows of every question.
    """

    def told(rows: int) -> None:
        if stop.is_set():
            raise Stopped
        seen(rows)

    return reported(denoiser, told)


def followed(
    work: Callable[[Callable[[Progress], None]], T], stop: threading.Event, every: float = 0.15
) -> Iterator[Progress | Done[T]]:
    """Run work(tell) in a thread; yield the last thing told every so often, and at the end what it gave.

    Args:
        work: raises `Stopped` when it sees that it was stopped.
        stop: set here when the reader goes away.
        every: seconds.

    Raises:
        Exception: what the work raised.
    """
    told: queue.SimpleQueue[Progress] = queue.SimpleQueue()
    kept: dict[str, Any] = {}

    def tell(progress: Progress) -> None:
        if stop.is_set():
            raise Stopped
        told.put(progress)

    def run() -> None:
        try:
            kept["value"] = work(tell)
        except Stopped:
            kept["value"] = None
        except BaseException as error:
            kept["error"] = error

    thread = threading.Thread(target=run, daemon=True, name="studio work")
    thread.start()
    try:
        while thread.is_alive() or not told.empty():
            thread.join(every)
            last = None
            while not told.empty():
                last = told.get()
            if last is not None:
                yield last
    finally:
        if thread.is_alive():
            stop.set()
    if "error" in kept:
        raise kept["error"]
    yield Done(kept["value"])


class Stops:
    """Who may be stopped: one event for every visitor and tab."""

    def __init__(self) -> None:
        self._events: dict[tuple[str, str], threading.Event] = {}
        self._lock = threading.Lock()

    def begin(self, visitor: str, tab: str) -> threading.Event:
        """A new event; work that the same visitor began before in the same tab is stopped."""
        with self._lock:
            before = self._events.get((visitor, tab))
            if before is not None:
                before.set()
            event = self._events[visitor, tab] = threading.Event()
            return event

    def stop(self, visitor: str, tab: str) -> None:
        """Ask for the end of what this visitor runs in this tab."""
        with self._lock:
            event = self._events.get((visitor, tab))
        if event is not None:
            event.set()

    def leave(self, visitor: str) -> None:
        """Stop everything of a visitor who left."""
        with self._lock:
            mine = [key for key in self._events if key[0] == visitor]
            for key in mine:
                self._events.pop(key).set()
