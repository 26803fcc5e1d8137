"""How fast GitHub may be asked, by all threads of a program together.

Many changes at once meet GitHub's limits: so many requests an hour for a token, which every answer tells, and so many
changes a minute and an hour, which it does not. https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from threading import Event, Lock

BETWEEN = 1.0
"""Seconds between two changes, as GitHub asks; it keeps below its 80 a minute too."""
AN_HOUR = 500
"""Changes in an hour that GitHub allows."""
RESERVE = 0.01
"""The part of the hour's requests that is left to others who use the same token."""
HOUR = 3600.0


class Stopped(Exception):  # noqa: N818 - says what happened
    """The program is leaving; nobody waits for this request any more."""


class Pace:
    """A gate that every request passes; it waits there for as long as GitHub wants."""

    def __init__(
        self, between: float = BETWEEN, *, an_hour: int = AN_HOUR, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.between = between
        self._changes: deque[float] = deque(maxlen=an_hour)
        self._next_change = 0.0
        self._paused_until = 0.0
        self._say = say
        self._lock = Lock()
        self._stopped = Event()

    def stop(self) -> None:
        """Let nobody wait any more: every request raises :class:`Stopped`."""
        self._stopped.set()

    def before(self, method: str) -> None:
        """Wait until a request may be sent."""
        if method != "GET":
            self.wait(self._book() - time.time())
        while (left := self._paused_until - time.time()) > 0:
            self.wait(left)

    def after(self, headers: Mapping[str, str]) -> None:
        """Heed what an answer says about the hour's budget."""
        limit, left, reset = (headers.get(f"x-ratelimit-{name}", "") for name in ("limit", "remaining", "reset"))
        if limit.isdigit() and left.isdigit() and reset.isdigit() and int(left) < int(limit) * RESERVE:
            self.pause(float(reset) - time.time() + 1)

    def pause(self, seconds: float) -> None:
        """Send nothing for so many seconds."""
        with self._lock:
            until = time.time() + seconds
            if until <= self._paused_until + 1 or seconds <= 0:
                return
            self._paused_until = until
        at = time.strftime("%H:%M:%S", time.localtime(until))
        self._say(f"GitHub has had enough requests for now; going on at {at}")

    def wait(self, seconds: float) -> None:
        """Wait, unless the program is leaving."""
        if self._stopped.wait(max(seconds, 0.0)):
            raise Stopped

    def _book(self) -> float:
        """The moment of the next change; each has one of its own."""
        with self._lock:
            moment = max(time.time(), self._next_change)
            if len(self._changes) == self._changes.maxlen:
                moment = max(moment, self._changes[0] + HOUR)
            self._changes.append(moment)
            self._next_change = moment + self.between
            return moment
