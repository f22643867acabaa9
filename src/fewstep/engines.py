"""Where independent tasks run: one after another in this process, or on the workers of a Ray cluster.

`spread(function, items, shared)` yields (item, function(shared, item)) as the tasks end: in the order of the items in
this process, in any order on Ray.  A task whose worker dies is done again on another one; a task that raises is not,
since it would raise again: its error ends the run.
"""

import logging
import os
import socket
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from fewstep.checking import checked
from fewstep.errors import ArgumentError, ResourceError, require, unknown

ENGINES = ("local", "ray")
# How often a task is begun again when its worker dies.
RETRIES = 10
# Tasks that wait at each worker, so that none stands idle between two.
AHEAD = 2
# Seconds that an address has to answer in.
PATIENCE = 10

Function = Callable[[Any, Any], Any]
Ended = Generator[tuple[Any, Any], None, None]


@checked
@dataclass(frozen=True)
class Engine:
    """Where tasks run.

    Args:
        name: "local" or "ray".
        address: of a Ray cluster ("auto", "host:6379", "ray://host:10001"); a cluster of this machine's cores, for the
            time of the call, unless given.
        workers: how many tasks at once on such a cluster of one's own; as many as there are cores unless given.
        cpus: cores that a task uses.
        gpus: devices that a task uses; Ray shows each task its own.

    Raises:
        ArgumentError: an unknown name, or an option that the engine does not have.
        MissingExtraError: Ray is not installed.
    """

    name: str = "local"
    address: str | None = None
    workers: int | None = None
    cpus: int = 1
    gpus: int = 0

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise unknown("engine", self.name, ENGINES)
        for what, value in (("address", self.address), ("workers", self.workers)):
            if self.name == "local" and value is not None:
                raise ArgumentError(f"{what}={value!r} needs engine='ray'")
        if self.address is not None and self.workers is not None:
            raise ArgumentError("workers= is for a cluster of one's own; the one at an address has its own workers")
        for what, value, least in (("workers", self.workers, 1), ("cpus", self.cpus, 1), ("gpus", self.gpus, 0)):
            if value is not None and value < least:
                raise ArgumentError(f"{what} must be at least {least}, got {value}")
        if self.name == "ray" and find_spec("ray") is None:
            raise require("ray", "scale")

    @property
    def side_by_side(self) -> int:
        """How many tasks share the memory of the machine that asks; a task has its devices alone."""
        if self.name == "local" or self.gpus:
            return 1
        return self.workers or max(1, (os.cpu_count() or 1) // self.cpus)

    def spread(self, function: Function, items: Iterable[Any], shared: Any = None) -> Ended:
        """(item, function(shared, item)) of every task, as they end.

        Args:
            function: of a module that workers can import.
            items: one a task; the next is taken only when there is a place for it.
            shared: what all tasks need; it is sent to a worker once.

        Raises:
            ArgumentError: no cluster answers at the address.
            ResourceError: a task's workers died more than RETRIES times.
        """
        if self.name == "local":
            return ((item, function(shared, item)) for item in items)
        return self._on_ray(function, items, shared)

    def _on_ray(self, function: Function, items: Iterable[Any], shared: Any) -> Ended:
        ray, own = self._connected()
        pending: dict[Any, Any] = {}
        try:
            options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": RETRIES}
            task = ray.remote(_task).options(**options)
            held, coming = [ray.put(shared)], iter(items)
            while True:
                while len(pending) < AHEAD * self._places(ray):
                    try:
                        item = next(coming)
                    except StopIteration:
                        break
                    pending[task.remote(function, held, item)] = item
                if not pending:
                    return
                ended, _ = ray.wait(list(pending), num_returns=1)
                yield pending.pop(ended[0]), _result(ray, ended[0])
        finally:
            for left in pending:  # where the caller stopped early, or a task raised
                ray.cancel(left)
            if own:
                ray.shutdown()

    def _connected(self) -> tuple[Any, bool]:
        """Ray, and whether the connection is ours to end."""
        # Nothing is told to anybody, and a worker that has no use for a GPU does not ask whether it might.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        if ray.is_initialized():
            return ray, False
        self._check_address()
        own: dict[str, Any] = {"address": self.address}
        if self.address is None:
            places = None if self.workers is None else self.workers * self.cpus
            own = {"address": "local", "num_cpus": places, "include_dashboard": False}
        try:
            ray.init(**own, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"at {self.address}" if self.address else "on this machine"
            raise ArgumentError(f"no Ray cluster could be reached {where}: {error}") from error
        return ray, True

    def _check_address(self) -> None:
        """Knock at "host:port": Ray itself would wait for minutes."""
        host, colon, port = (self.address or "").rpartition("://")[2].rpartition(":")
        if not colon:
            return
        try:
            socket.create_connection((host, int(port)), PATIENCE).close()
        except (OSError, ValueError, OverflowError) as error:
            raise ArgumentError(f"no Ray cluster could be reached at {self.address}: {error}") from error

    def _places(self, ray: Any) -> int:
        """How many tasks the cluster can run at once; it may grow."""
        have = ray.cluster_resources()
        places = int(have.get("CPU", 0) // self.cpus)
        if self.gpus:
            places = min(places, int(have.get("GPU", 0) // self.gpus))
        if places < 1:
            raise ResourceError(
                f"a task needs {self.cpus} cores and {self.gpus} GPUs; the workers have {have.get('CPU', 0):g} and "
                f"{have.get('GPU', 0):g} in all"
            )
        return places


def _result(ray: Any, reference: Any) -> Any:
    """What a task gave; its own error as it was raised, a dead worker as an error of ours."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise ResourceError(f"a task was begun {RETRIES + 1} times, and its worker died each time: {error}") from error


_HELD: dict[str, Any] = {}


def _task(function: Function, held: list[Any], item: Any) -> Any:
    """A task on a worker, which unpacks what all tasks share once."""
    key = held[0].hex()
    if key not in _HELD:
        import ray

        _HELD.clear()
        _HELD[key] = ray.get(held[0])
    return function(_HELD[key], item)
