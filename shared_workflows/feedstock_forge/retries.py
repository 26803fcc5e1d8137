"""Trying a request again: what the clients of GitHub and of Prefect share."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import stamina

stamina.instrumentation.set_on_retry_hooks([])  # the clients say what is tried again; it is not logged a second time


class Busy(Exception):  # noqa: N818 - a state, not a fault
    """A service asked to come back later, after so many seconds if it said how many."""

    def __init__(self, status: int, after: float | None) -> None:
        super().__init__(f"HTTP {status}")
        self.after = after


def attempts(patience: float, first: float, longest: float) -> Iterator[stamina.Attempt]:
    """Attempts with pauses that grow from ``first`` to ``longest`` seconds, for ``patience`` seconds in all.

    :class:`Busy` and broken connections are tried again; the last of them is let through.
    """
    return iter(
        stamina.retry_context(
            on=_backoff, attempts=None, timeout=patience, wait_initial=first, wait_max=longest, wait_jitter=2 * first
        )
    )


def _backoff(error: Exception) -> bool | float:
    if isinstance(error, Busy):
        return error.after if error.after is not None else True
    return isinstance(error, httpx.TransportError)
