"""Inputs at URLs that fsspec knows: object stores, FTP, and whatever else its file systems reach."""

from __future__ import annotations

import errno
import ftplib
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.callbacks import Callback
from fsspec.core import url_to_fs

from ..findings import Refused
from .fetch import FORBIDDEN, MISSING, PROTOCOL, Again, CutShort, Download, Room, shown
from .steps import Stopped


class Copy(Download):
    """An input copied out of a file system.

    The file system works in a thread, and how it gets on is seen from the copy that grows: not all of them tell, and
    one that hangs can only be left behind.
    """

    def __init__(self, url: str, path: Path, stop: threading.Event, room: Room) -> None:
        super().__init__(url, path, stop, room)
        self._attempts = itertools.count(1)

    def __call__(self) -> None:
        """Copy all of it. Raises :class:`Again` for whatever may pass, and :class:`Refused` for the rest."""
        with self._errors():
            try:
                system, path = url_to_fs(self.url)
            except (ImportError, ValueError) as error:
                fix = "add the library that it names to feedstock/requirements.txt"
                raise Refused(PROTOCOL.at(None, f"{shown(self.url)} cannot be read: {error}", fix)) from None
        # Each attempt writes a file of its own: one that was left behind may wake up.
        part = self.path.with_name(f"{self.path.name}.{next(self._attempts)}")
        left = threading.Event()
        try:
            with self._errors():
                self._watch(_in_thread(lambda: self._copy(system, path, part, _Leave(left))), part)
        except (Again, Stopped):
            left.set()
            part.unlink(missing_ok=True)
            system.clear_instance_cache()  # its connection may be what is broken
            raise
        if not self.unchanged:
            part.replace(self.path)

    def _watch(self, work: Future[tuple[bool, dict[str, str]]], part: Path) -> None:
        self.pace.begin(0)
        while not wait([work], min(1, self.pace.patience / 10)).done:
            if self.stop.is_set():
                raise Stopped
            self.pace.reach(part.stat().st_size if part.exists() else 0)
        self.unchanged, self.state = work.result()

    def _copy(
        self, system: AbstractFileSystem, path: str, part: Path, callback: Callback
    ) -> tuple[bool, dict[str, str]]:
        """Whether it has not changed since it was fetched, and by what to tell that the next time."""
        info = system.info(path)
        if info.get("type") == "directory":
            raise IsADirectoryError(path)
        state = {} if self.unless is None else _state(system, path)
        if state and state == self.unless:
            return True, state
        size = info.get("size")
        if isinstance(size, int):
            self.room.take(self, size)
        system.get_file(path, str(part), callback=callback)
        came = part.stat().st_size
        if isinstance(size, int) and came < size:
            raise CutShort(f"it breaks off after {came:,} of {size:,} bytes")
        return False, state

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Say of every error whether trying again may help, and of what URL it is."""
        url = shown(self.url)
        try:
            yield
        except (Refused, Again, Stopped):
            raise
        except IsADirectoryError:
            raise Refused(MISSING.at(None, f"{url} is a folder", "name the files in it, one by one")) from None
        except (FileNotFoundError, NotADirectoryError):
            raise Refused(MISSING.at(None, f"there is no {url}", "correct it in INPUTS, or leave it out")) from None
        except (ValueError, NotImplementedError) as error:
            what = f"{url} cannot be read: {error or type(error).__name__}"
            raise Refused(MISSING.at(None, what, "correct it in INPUTS, or leave it out")) from None
        except Exception as error:  # each library has errors of its own
            reason = " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())
            if isinstance(error, PermissionError | ftplib.error_perm) or "Credential" in type(error).__name__:
                fix = "use a public URL, or let the run's credentials read it"
                raise Refused(FORBIDDEN.at(None, f"{url} may not be read: {reason}", fix)) from None
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise Again(reason) from error


class _Leave(Callback):  # type: ignore[misc]  # fsspec has no types
    """Ends a copy that was left behind, where its file system tells of its progress."""

    def __init__(self, left: threading.Event) -> None:
        super().__init__()
        self.left = left

    def relative_update(self, inc: int = 1) -> None:  # noqa: ARG002 - fsspec's signature
        if self.left.is_set():
            raise Stopped


def _state(system: AbstractFileSystem, path: str) -> dict[str, str]:
    try:
        return {"ukey": str(system.ukey(path))}
    except NotImplementedError:
        return {}


def _in_thread(function: Callable[[], Any]) -> Future[Any]:
    """What ``function`` comes to, in a thread that no one waits for when the process ends."""
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # raised by whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=work, name="bake-copy", daemon=True).start()
    return future
