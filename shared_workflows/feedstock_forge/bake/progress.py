"""How far the writing of a dataset is, kept every now and then, so that the run after a kill goes on from there.

Boxes are written in the order of the inputs, so the number of the first ones that are done says it all. The next run
trusts it only if it has the very same work to do: the same inputs, holding what they held, and the same code.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .fetch import digest, local_path

if TYPE_CHECKING:
    from .stores import Store

EVERY = 60.0
"""Seconds of writing after which progress is kept; a bake that writes for less keeps none."""

SHARE = 20
"""Of the time that keeping it takes, this much passes at the least before it is kept again."""

log = logging.getLogger("feedstock_forge.bake")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a bake is, and what of."""

    work: str
    """The fingerprint of what decides how the dataset is written, apart from the values in the inputs."""
    boxes: int
    """So many of the first boxes are written."""
    inputs: int
    """So many of the first inputs were read for them."""
    sources: str
    """The fingerprint of these."""

    @classmethod
    def of(cls, kept: Mapping[str, Any] | None) -> Progress | None:
        """What a store keeps, if it is this."""
        try:
            return cls(**kept) if kept else None
        except TypeError:
            return None


class Keeper:
    """Keeps the progress of one bake in its store; usable from several threads at once."""

    def __init__(self, store: Store, work: str, count: int, identity: Callable[[int], str]) -> None:
        """For ``count`` inputs; ``identity`` is :func:`identity` of each, and may raise ``OSError``."""
        self.store = store
        self.work = work
        self.count = count
        self.identity = identity
        self.done = 0
        """So many of the first boxes are written."""
        self._spans: Sequence[range] = ()
        self._beyond: set[int] = set()
        self._sources: list[str] = []
        self._due = 0.0
        self._lock = threading.Lock()

    def takes_up(self) -> bool:
        """Whether the bake goes on from what an earlier run has kept in the store; ``done`` then says from where."""
        progress = Progress.of(self.store.kept())
        if progress is None:
            return False
        if progress.work != self.work or progress.sources != self._fingerprint(progress.inputs):
            log.info("starting anew: what an earlier run had begun was other work than this")
            return False
        self.done = progress.boxes
        return True

    def start(self, spans: Sequence[range]) -> None:
        """The writing begins; ``spans`` are the numbers of the inputs of each box."""
        self._spans = spans
        self._due = time.monotonic() + EVERY
        if self.done:
            count, total = self._whole(self.done)
            log.info("going on after input %d of %d (part %d), which an earlier run wrote", count, total, self.done)

    def finish(self, numbers: Iterable[int]) -> None:
        """The boxes of these numbers are written; keeps the progress if it is time."""
        with self._lock:
            self._beyond.update(numbers)
            before = self.done
            while self.done in self._beyond:
                self._beyond.remove(self.done)
                self.done += 1
            started = time.monotonic()
            if self.done == before or started < self._due or self.done == len(self._spans):
                return
            boxes = self.done
            self._due = float("inf")  # the other threads write meanwhile
        inputs = max(span.stop for span in self._spans[:boxes])
        sources = self._fingerprint(inputs)
        if sources is not None:
            count, total = self._whole(boxes)
            message = f"not whole yet: {count} of {total} inputs"
            self.store.keep(asdict(Progress(self.work, boxes, inputs, sources)), message)
            log.info("kept in case this run is stopped: %d of %d inputs (part %d)", count, total, boxes)
        ended = time.monotonic()
        self._due = ended + max(EVERY, SHARE * (ended - started))

    def _whole(self, boxes: int) -> tuple[int, int]:
        """How many of the inputs are wholly written with so many boxes, and how many there are."""
        return self._spans[boxes].start, self.count

    def _fingerprint(self, count: int) -> str | None:
        """Of what the first inputs hold; ``None`` if they cannot be looked at any more."""
        if count > self.count:
            return None
        try:
            while len(self._sources) < count:
                self._sources.append(self.identity(len(self._sources)))
        except OSError:
            return None
        return fingerprint(self._sources[:count])


def fingerprint(things: Any) -> str:
    """The SHA-256 of plain values, and of numbers and arrays among them."""
    if isinstance(things, np.ndarray) and things.dtype != object:
        return hashlib.sha256(things.tobytes()).hexdigest()
    return hashlib.sha256(json.dumps(things, sort_keys=True, default=_plain).encode()).hexdigest()


def identity(url: str, path: Path) -> str:
    """What tells the file of an input from one that was changed; a copy that was fetched is as old as the fetching.

    Raises ``OSError``.
    """
    stat = path.stat()
    if local_path(url) is not None:
        return f"{stat.st_size} {stat.st_mtime_ns}"
    return f"{stat.st_size} {digest(path)}"


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else repr(value)
