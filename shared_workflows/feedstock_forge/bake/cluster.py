"""Baking on a Dask cluster: its workers fetch the inputs, look at them, and write whole chunks into the store.

A worker gets the bake twice, to look at inputs and to write, and then inputs and parts of the dataset one after the
other. Into Icechunk each part is written in a fork of the session, and the forks are merged into what is committed:
still all at once, or nothing. https://icechunk.io/en/stable/parallel/#distributed-writes
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import cloudpickle
import dask
import icechunk
import zarr
from zarr.abc.store import Store as ZarrStore
from zarr.storage import LocalStore

from ..engines import UNAVAILABLE
from ..findings import Refused, Who, rule
from .fetch import Fetcher, fetching, local_path
from .steps import Stopped

if TYPE_CHECKING:
    from .inputs import Description
    from .oven import Bake, Box

LOST = rule(
    "engine-worker-lost", "What kills one worker after the other would kill every further one.", who=Who.OPERATOR
)

ASKED_AT_ONCE = 64
"""Threads that wait for what workers say of inputs."""

_PARTS = 64
"""Parts of a dataset at the least: an adaptive cluster grows with what waits."""

_ROUNDS = 4
"""Parts for each thread of the workers at the least."""


@contextmanager
def joined() -> Iterator[Workers | None]:
    """The workers of the Dask cluster that is the default here, or ``None``; they forget the bake at the end.

    Never imports distributed: no cluster runs without it.
    """
    if "distributed" not in sys.modules:
        yield None
        return
    from distributed import default_client

    try:
        workers = Workers(default_client())
    except ValueError:
        yield None
        return
    try:
        yield workers
    finally:
        workers.forget()


def takes(store: ZarrStore) -> bool:
    """Whether workers can write into a store that was begun for them."""
    return isinstance(store, LocalStore) or isinstance(getattr(store, "session", None), icechunk.ForkSession)


@dataclass(frozen=True, slots=True)
class Look:
    """What a worker has found in an input."""

    description: Description
    size: int
    """Of its file, in bytes."""
    known: dict[str, dict[Any, Any]]
    """See :meth:`.oven.Bake.known`."""
    worker: str
    """The address of who has it."""


class Workers:
    """The workers of a Dask cluster, who work for one bake."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.name = uuid4().hex
        """Of the bake, by which workers know it."""
        self._looks: list[Any] = []
        """The futures of all inputs."""
        self._asking = threading.Lock()
        self._where: dict[int, str] = {}
        """The addresses of the workers that have fetched an input."""

    def look(self, bake: Bake, number: int) -> Look:
        """Have an input fetched and described. May be called from several threads at once.

        Raises :class:`Refused`, or what a worker raised.
        """
        with self._asking:
            if not self._looks:
                # All at once: to ask for each takes the scheduler longer than to look at a small one.
                numbers, packed = range(len(bake.urls)), self._pack(bake, [])
                self._looks = self.client.map(_look, numbers, name=self.name, packed=packed, pure=False)
        future = self._looks[number]
        with _worker_errors("looked at an input"):
            while True:
                try:
                    found: Look = future.result(timeout=1)
                    break
                except TimeoutError:
                    if future.status == "error":  # by now, or what the worker raised is a TimeoutError itself
                        future.result()
                    if bake.stop.is_set():
                        raise Stopped from None
        if local_path(bake.urls[number]) is None:
            self._where[number] = found.worker
        return found

    def write(
        self,
        bake: Bake,
        store: ZarrStore,
        boxes: Sequence[Box],
        spans: Sequence[range],
        done: int,
        stops: list[int],
        finished: Callable[[range, list[int]], None],
    ) -> None:
        """Write the boxes but for the first ``done``, and bring what was written back into ``store``.

        ``spans`` are the numbers of the inputs of each box; ``finished`` gets the numbers of the boxes of each part
        once they are there, and the bytes of each. Raises :class:`Refused`, or what a worker raised, once no part is
        left running.
        """
        from distributed import as_completed

        parts = parts_of(range(done, len(boxes)), sum(self.client.nthreads().values()))
        # Each part goes to those who have its inputs, unless others have nothing to do.
        of: defaultdict[frozenset[str], list[range]] = defaultdict(list)
        for part in parts:
            inputs = {number for box in part for number in spans[box]}
            of[frozenset(self._where[number] for number in inputs if number in self._where)].append(part)
        same = {"name": self.name, "packed": self._pack(bake, stops), "begun": pickle.dumps(store), "pure": False}
        futures: dict[Any, range] = {}
        for who, theirs in of.items():
            some = [boxes[part.start : part.stop] for part in theirs]
            choice: dict[str, Any] = {"workers": list(who), "allow_other_workers": True} if who else {}
            futures |= zip(self.client.map(_write, some, **same, **choice), theirs, strict=True)
        try:
            with _worker_errors("wrote"):
                for future, (fork, sizes) in as_completed(futures, with_results=True):
                    if fork is not None:
                        store.session.merge(fork)  # type: ignore[attr-defined]
                    finished(futures[future], sizes)
        except BaseException:
            self.client.cancel(list(futures))
            raise

    def forget(self) -> None:
        """Have the workers drop what they keep of the bake: a cluster that stays should keep nothing of it."""
        with contextlib.suppress(Exception):
            self.client.cancel(self._looks)
            self.client.run(_forget, self.name)

    def _pack(self, bake: Bake, stops: list[int]) -> Any:
        # Computed, not scattered: it is made again where the worker that holds it goes.
        return self.client.submit(bytes, cloudpickle.dumps((bake, stops)), pure=False)


def parts_of(boxes: range, threads: int) -> list[range]:
    """Cut boxes into parts, the last ones the smallest: with those, all threads end at nearly the same time.

    As factoring does, https://doi.org/10.1145/135226.135232, but for the first parts, which a kill would lose.
    """
    at_once = _ROUNDS * max(threads, 1)  # an adaptive cluster may have no worker yet
    most = -(-len(boxes) // max(_PARTS, at_once))
    parts = []
    while boxes:
        size = max(1, min(most, len(boxes) // at_once))
        parts.append(boxes[:size])
        boxes = boxes[size:]
    return parts


@contextmanager
def _worker_errors(when: str) -> Iterator[None]:
    """Say what it means that one worker after the other died."""
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError
    from distributed.comm.core import CommClosedError

    try:
        yield
    except (FutureCancelledError, CommClosedError) as error:
        fix = "look whether its scheduler still runs, and at its log; then start the run again"
        raise Refused(UNAVAILABLE.at(None, f"the Dask cluster was lost: {error}", fix)) from None
    except KilledWorker as error:
        fix = "look at the workers' logs: if memory ran out, give them more in `options`, or take smaller chunks"
        raise Refused(LOST.at(None, f"workers died while they {when}: {error}", fix)) from None


@contextmanager
def memory_kept() -> Iterator[None]:
    """Let what is freed be used again until the end, where Dask has its workers give it back to the system at once.

    A bake takes tens of MiB for each part, and to be given them anew takes a third of its time.
    https://distributed.dask.org/en/stable/worker-memory.html#automatically-trim-memory
    https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    threshold, libc = os.environ.get("MALLOC_TRIM_THRESHOLD_", ""), ctypes.CDLL(None)
    if not threshold.isdigit() or not hasattr(libc, "mallopt"):
        yield
        return
    trim, mmap = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD
    libc.mallopt(trim, 1 << 30)
    libc.mallopt(mmap, 1 << 30)
    try:
        yield
    finally:
        libc.mallopt(trim, int(threshold))
        libc.mallopt(mmap, 128 << 10)  # where it was: it only moves where nobody sets the other
        libc.malloc_trim(0)


@dataclass
class _Held:
    """What a worker keeps of a bake, from one input and from one part to the next."""

    stop: threading.Event
    fetcher: Fetcher
    until: ExitStack
    """Stops what is still at work, and removes what it needs."""
    here: defaultdict[str, dict[int, Any]] = field(default_factory=lambda: defaultdict(dict))
    """What is known here of inputs; see :attr:`.oven.Bake.here`."""
    unpacked: dict[bytes, tuple[Bake, list[int]]] = field(default_factory=dict)


_held: dict[str, _Held] = {}
_holding = threading.Lock()


def _hold(name: str, packed: bytes) -> tuple[Bake, list[int]]:
    """What was packed for the workers, unpacked once; before and after all inputs are known it uses the same files."""
    with _holding:
        if name not in _held:
            until = ExitStack()
            until.enter_context(memory_kept())
            # Or what a lazy input takes to open would go to the cluster, and its thread let another one in meanwhile,
            # which waits for the lock that it holds.
            until.enter_context(dask.config.set(scheduler="synchronous"))
            stop = threading.Event()
            _held[name] = _Held(stop, until.enter_context(fetching(stop)), until)
            until.callback(stop.set)
        held = _held[name]
        if packed not in held.unpacked:
            bake, stops = pickle.loads(packed)  # noqa: S301 - it comes from the recipe's own process
            bake.stop, bake.fetcher = held.stop, held.fetcher
            vars(bake).update({name: held.here[name] for name in bake.here})
            held.unpacked[packed] = bake, stops
        return held.unpacked[packed]


def _look(number: int, name: str, packed: bytes) -> Look:
    """Fetch and describe one input, on a worker."""
    from distributed import get_worker

    bake, _ = _hold(name, packed)
    description, size = bake.look(number, bake.urls[number])
    return Look(description, size, bake.known(number), get_worker().address)


def _write(
    part: Sequence[Box], name: str, packed: bytes, begun: bytes
) -> tuple[icechunk.ForkSession | None, list[int]]:
    """Write one part, on a worker; returns the fork of the session that holds it, and the bytes of each box."""
    bake, stops = _hold(name, packed)
    store = pickle.loads(begun)  # noqa: S301 - it comes from the recipe's own process
    # What was consolidated when the dataset was published does not know how long its arrays are to be.
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    sizes = [bake.put(box, stops, cast("zarr.Array[Any]", group[box.variable])) for box in part]
    return getattr(store, "session", None), sizes


def _forget(name: str) -> None:
    with _holding:
        if name in _held:
            _held.pop(name).until.close()
