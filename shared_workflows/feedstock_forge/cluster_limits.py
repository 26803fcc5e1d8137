"""Limits on a Dask cluster elsewhere: a run gets as many workers as fit into its label's processors and memory, and is
ended if they hold more memory than that.

Workers on the run's own machine are its processes, and :mod:`.limits` watches those. A cluster that runs already is
shared by many runs, and nobody can tell there which of them takes what.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from . import limits
from .bakery import Adapt, Limits
from .findings import Finding, Refused
from .limits import Use
from .quantities import format_size

_EVERY = 1.0
"""Seconds between two looks at the workers; they tell the scheduler of themselves about as often."""


@contextmanager
def held(
    cluster: Any, client: Any, adapt: Adapt | None, allowed: Limits, label: str, say: Callable[[str], None]
) -> Iterator[None]:
    """Hold a cluster to ``allowed``, which ``label`` gives; ``adapt`` are its own bounds, if it adapts.

    Raises :class:`Refused` in place of what it interrupts where the workers hold too much memory: to be entered by the
    main thread, of a process in which SIGTERM raises ``KeyboardInterrupt``.
    """
    if allowed.cpu is None and allowed.memory is None:
        yield
        return
    size = _Size(cluster, adapt, allowed, label, say)
    size.fit(_workers(client))
    met: list[Finding] = []
    done = threading.Event()
    main = threading.main_thread().ident or 0

    def look() -> None:
        workers = _workers(client)
        used = Use(memory=sum(int(worker["metrics"].get("memory", 0)) for worker in workers))
        if (found := limits.over(allowed, used, label)) and not done.is_set():
            met.append(found)
            signal.pthread_kill(main, signal.SIGTERM)
        size.fit(workers)

    def watch() -> None:
        failed = ""
        while not done.wait(_EVERY):
            try:
                look()
            except Exception as error:  # each kind of cluster has its own; the next look may fare better
                if failed != (failed := f"{type(error).__name__}: {error}") and not done.is_set():
                    say(f"Dask: the workers cannot be held to the limits now: {failed}")

    threading.Thread(target=watch, name="cluster-limits", daemon=True).start()
    try:
        yield
    except BaseException:
        if not met:
            raise
    finally:
        done.set()
    if met:  # whatever a recipe makes of being interrupted
        raise Refused(met[0])


class _Size:
    """How many workers a cluster may have, as far as is known of them."""

    def __init__(
        self, cluster: Any, adapt: Adapt | None, allowed: Limits, label: str, say: Callable[[str], None]
    ) -> None:
        self.cluster = cluster
        self.adapt = adapt
        self.allowed = allowed
        self.label = label
        self.say = say
        self.most = math.inf

    def fit(self, workers: Sequence[Mapping[str, Any]]) -> None:
        """Have no more workers than may be, if these are the ones that there are."""
        most = min(self.most, workers_in(self.allowed, workers))
        planned = self.adapt.maximum if self.adapt else len(workers)
        if planned > most and most < self.most:
            if self.adapt:
                self.cluster.adapt(minimum=min(self.adapt.minimum, int(most)), maximum=int(most))
            else:
                self.cluster.scale(int(most))
            workers_of = f"{most} worker{'s' if most > 1 else ''} of {_largest(workers)}"
            self.say(f"Dask: at most {workers_of}, since {self.label} gives a run {limits.words(self.allowed)}")
            self.most = most


def workers_in(allowed: Limits, workers: Sequence[Mapping[str, Any]]) -> float:
    """How many workers like these, as a scheduler describes them, fit into the limits: one at the least."""
    threads, memory = _most(workers, "nthreads"), _most(workers, "memory_limit")
    fitting = [math.inf]
    if allowed.cpu is not None and threads:
        fitting.append(math.ceil(allowed.cpu) // threads)
    if allowed.memory is not None and memory:
        fitting.append(allowed.memory // memory)
    return max(1, min(fitting))


def _most(workers: Sequence[Mapping[str, Any]], what: str) -> int:
    return max((int(worker[what] or 0) for worker in workers), default=0)


def _largest(workers: Sequence[Mapping[str, Any]]) -> str:
    threads, memory = _most(workers, "nthreads"), _most(workers, "memory_limit")
    return f"{threads} thread{'s' if threads != 1 else ''}" + (f" and {format_size(memory)}" if memory else "")


def _workers(client: Any) -> list[Mapping[str, Any]]:
    # `Client.scheduler_info` told of five workers at the most for a while.
    return list(client.sync(client.scheduler.identity)["workers"].values())
