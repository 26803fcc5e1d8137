"""Trying a request again: what the clients of GitHub and of Prefect share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    import stamina


class Busy(Exception):  # noqa: N818 - a state, not a fault
    """A service asked to come back later, after so many seconds if it said how many."""

    def __init__(self, status: int, after: float | None) -> None:
        super().__init__(f"HTTP {status}")
        self.after = after


NEVER_SENT = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)


class First:
    """The first attempt, which keeps what went wrong with it."""

    num = 1
    error: Exception | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None


def attempts(patience: float, first: float, longest: float) -> Iterator[First | stamina.Attempt]:
    """Attempts with pauses that grow from ``first`` to ``longest`` seconds, for ``patience`` seconds in all.

    :class:`Busy` and broken connections are tried again; the last of them is let through, and so is any other error.
    """
    start = time.monotonic()
    alone = First()
    yield alone
    if alone.error is None:
        return
    left = patience - (time.monotonic() - start)
    if left <= 0:
        raise alone.error
    # Only now, since it imports asyncio: that takes longer than a request, of which most are answered at once.
    import stamina

    stamina.instrumentation.set_on_retry_hooks([])  # the clients say what is tried again: no second line in the log
    for attempt in stamina.retry_context(
        on=_backoff, attempts=None, timeout=left, wait_initial=first, wait_max=longest, wait_jitter=2 * first
    ):
        if attempt.num == 1:
            with attempt:
                raise alone.error
        else:
            yield attempt


def reason(error: httpx.TransportError) -> str:
    """Why a request failed. What could not be sent is quoted by the library, and may be a secret: that is left out."""
    return type(error).__name__ if isinstance(error, NEVER_SENT) else str(error) or type(error).__name__


def is_rows(answer: object) -> bool:
    """Whether an answer is what a list is asked for."""
    return isinstance(answer, list) and all(isinstance(row, dict) for row in answer)


def _backoff(error: Exception) -> bool | float:
    if isinstance(error, Busy):
        return error.after if error.after is not None else True
    # What cannot be sent will not be the next time, and says what it was.
    return isinstance(error, httpx.TransportError) and not isinstance(error, NEVER_SENT)
