"""The benchmarks: each figure is a ratio to a peer that ran beside it, or a rate, measured in the same run.

Seconds say more about the machine than about the program; a ratio to a peer that ran in between says what a user
feels. A benchmark is a module here whose ``run()`` returns its figures; ``python -m bench NAME…`` runs some of them,
and ``python -m bench`` all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter


@dataclass(frozen=True)
class Figure:
    """One number that is watched, and what it is held against."""

    name: str
    value: float
    unit: str
    """``/s``, or ``times`` for a ratio to the peer."""
    goal: str
    """As ``≤ 0.15`` or ``≥ 300``."""
    peer: str = ""
    detail: str = ""
    """What the value was made of: medians, counts, sizes."""

    @property
    def reached(self) -> bool:
        """Whether the value is on the right side of its goal."""
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
