"""The benchmarks: each figure is a ratio to a peer that ran beside it, or a rate, measured in the same run.

Seconds say more about the machine than about the program; a ratio to a peer that ran in between says what a user
feels. A benchmark is a module here whose ``run()`` returns its figures, and series of them as the work grows;
``python -m bench NAME…`` runs some of them, and ``python -m bench`` all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import log
from statistics import fmean, median
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

quick = False
"""Whether this is a rehearsal, on little work, whose results are not kept; see :func:`scaled`."""


@dataclass(frozen=True)
class Figure:
    """One number that is watched, and what it is held against."""

    name: str
    value: float
    unit: str
    """``/s``, or ``times`` for a ratio to the peer."""
    goal: str
    """As ``≤ 0.15`` or ``≥ 300``; empty where the value is only watched."""
    peer: str = ""
    detail: str = ""
    """What the value was made of: medians, counts, sizes."""

    @property
    def reached(self) -> bool:
        """Whether the value is on the right side of its goal."""
        if not self.goal:
            return True
        sign, limit = self.goal.split()
        return self.value <= float(limit) if sign == "≤" else self.value >= float(limit)


def alternate(times: int, *runs: Callable[[], object]) -> list[float]:
    """The median seconds of each of several runs, taken in turns so that the machine's moods meet all of them."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(times):
        for taken, run in zip(seconds, runs, strict=True):
            start = perf_counter()
            run()
            taken.append(perf_counter() - start)
    return [median(taken) for taken in seconds]


@dataclass(frozen=True)
class Series:
    """What the same work costs at several sizes."""

    name: str
    work: str
    """What is counted, such as ``recipes``."""
    sizes: list[float]
    seconds: list[float]

    @property
    def exponent(self) -> float:
        """The slope of the logarithms: 1 where twice the work takes twice the time."""
        xs, ys = [log(size) for size in self.sizes], [log(second) for second in self.seconds]
        x, y = fmean(xs), fmean(ys)
        return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def scaled(whole: T, rehearsal: T) -> T:
    """The amount of work: the whole, or little of it in a rehearsal."""
    return rehearsal if quick else whole


def environment(inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What measured processes get: nothing that changes Python, which keeps bytecode as installed programs have it."""
    return {key: value for key, value in inherited.items() if not key.startswith("PYTHON")}


def say(line: str) -> None:
    """Tell the person who waits how far it is."""
    print(f"  {line}", file=sys.stderr, flush=True)


@contextmanager
def timed(into: list[float]) -> Iterator[None]:
    """Append the seconds that the block takes."""
    start = perf_counter()
    yield
    into.append(perf_counter() - start)
