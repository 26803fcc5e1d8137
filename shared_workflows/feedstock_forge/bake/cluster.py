"""Writing on a Dask cluster: its workers open the inputs themselves and write whole chunks into the store.

A worker gets the bake once and parts of the dataset one after the other. Into Icechunk each part is written in a
fork of the session, and the forks are merged into what is committed: still all at once, or nothing.
https://icechunk.io/en/stable/parallel/#distributed-writes
"""

from __future__ import annotations

import contextlib
import pickle
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import cloudpickle
import icechunk
import zarr
from zarr.abc.store import Store as ZarrStore
from zarr.storage import LocalStore

from ..findings import Refused, Who, rule
from .fetch import fetching

if TYPE_CHECKING:
    from .oven import Bake, Box

LOST = rule(
    "engine-worker-lost", "What kills one worker after the other would kill every further one.", who=Who.OPERATOR
)

_PARTS = 64
"""Parts of a dataset at the least: an adaptive cluster grows with what waits."""


def client() -> Any | None:
    """The client of the Dask cluster that is the default here. Never imports distributed: none runs without it."""
    if "distributed" not in sys.modules:
        return None
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None


def takes(store: ZarrStore) -> bool:
    """Whether workers can write into a store that was begun for them."""
    return isinstance(store, LocalStore) or isinstance(getattr(store, "session", None), icechunk.ForkSession)


def write(
    client: Any,
    bake: Bake,
    store: ZarrStore,
    boxes: Sequence[Box],
    done: int,
    stops: list[int],
    finished: Callable[[range, list[int]], None],
) -> None:
    """Write the boxes but for the first ``done`` on the cluster, and bring what was written back into ``store``.

    ``finished`` gets the numbers of the boxes of each part once they are there, and the bytes of each. Raises
    :class:`Refused`, or what a worker raised, once no part is left running.
    """
    from distributed import KilledWorker, as_completed

    threads = sum(client.nthreads().values())
    left = len(boxes) - done
    count = min(left, max(_PARTS, 4 * threads))
    parts = [range(done + left * part // count, done + left * (part + 1) // count) for part in range(count)]
    # Computed, not scattered: it is made again where the worker that holds it goes.
    packed = client.submit(bytes, cloudpickle.dumps((bake, stops)), pure=False)
    begun, key = pickle.dumps(store), uuid4().hex
    futures = {
        client.submit(_write, key, packed, begun, boxes[part.start : part.stop], pure=False): part for part in parts
    }
    try:
        for future in as_completed(futures):
            fork, sizes = future.result()
            if fork is not None:
                store.session.merge(fork)  # type: ignore[attr-defined]
            finished(futures[future], sizes)
    except KilledWorker as error:
        client.cancel(list(futures))
        fix = "look at the workers' logs: if memory ran out, give them more in `options`, or take smaller chunks"
        raise Refused(LOST.at(None, f"workers died while they wrote: {error}", fix)) from None
    except BaseException:
        client.cancel(list(futures))
        raise
    finally:
        # A cluster that stays should keep nothing of this run.
        with contextlib.suppress(Exception):
            client.run(_forget, key)


_held: dict[str, tuple[Bake, list[int], ExitStack]] = {}
"""What a worker keeps between the parts of a bake, and where it puts inputs that it has to fetch."""
_holding = threading.Lock()


def _write(key: str, packed: bytes, begun: bytes, part: Sequence[Box]) -> tuple[icechunk.ForkSession | None, list[int]]:
    """Write one part, on a worker; returns the fork of the session that holds it, and the bytes of each box."""
    with _holding:
        if key not in _held:
            bake, stops = pickle.loads(packed)  # noqa: S301 - it comes from the recipe's own process
            fetched = ExitStack()
            bake.fetcher = fetched.enter_context(fetching(bake.stop))
            _held[key] = bake, stops, fetched
        bake, stops, _ = _held[key]
    store = pickle.loads(begun)  # noqa: S301 - as above
    # What was consolidated when the dataset was published does not know how long its arrays are to be.
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    sizes = [bake.put(box, stops, cast("zarr.Array[Any]", group[box.variable])) for box in part]
    return getattr(store, "session", None), sizes


def _forget(key: str) -> None:
    with _holding:
        if key in _held:
            _held.pop(key)[2].close()
