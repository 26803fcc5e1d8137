"""A data provider that fails in the ways providers do, over real HTTP.

A file is found by its name in any folder, so that it also serves what S3 knows as a bucket.
"""

from __future__ import annotations

import errno
import http.server
import io
import logging
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from fsspec import AbstractFileSystem

from demo.provider import running

LOGIN_PAGE = b"<!DOCTYPE html>\n<html><title>Earthdata Login</title></html>\n"


@dataclass
class Provider:
    """Serves a folder; ``answers`` says what becomes of the requests for a file, one after the other.

    ``404``, ``503 86400``, ``302 https://…`` …: that status, and when or where to ask then. ``html``: a page.
    ``cut``: half the file, then the connection closes. ``short``: half the file, as if it were all. ``slow``: the file
    in drops. ``trickle``: 500 bytes a second. ``hang``: 200 bytes, then nothing. ``large``: the same, of what is said
    to take 60 % of what is free on this disk. ``whole``: all of it, whatever part was asked for. Requests after the
    last are served well.
    """

    url: str
    answers: dict[str, list[str]] = field(default_factory=dict)
    always: dict[str, str] = field(default_factory=dict)
    requests: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The Range of every request, by file name; empty where none was asked for."""
    unchanged: list[str] = field(default_factory=list)
    """The files that were not sent, since whoever asked had them."""
    etag: str = '"1"'
    over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serve(folder: Path, port: int = 0) -> Iterator[Provider]:
    """Serve ``folder`` on this machine."""
    provider = Provider("")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.path.partition("?")[0].rpartition("/")[2]
            asked = self.headers.get("Range", "")
            provider.requests[name].append(asked)
            planned = provider.answers.get(name) or [provider.always.get(name, "well")]
            how = planned[0] if name in provider.always and not provider.answers.get(name) else planned.pop(0)
            status, _, then = how.partition(" ")
            if status.isdigit():
                self.send_response(int(status))
                if then:
                    self.send_header("Location" if "://" in then else "Retry-After", then)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if self.headers.get("If-None-Match") == provider.etag and how == "well":
                self.send_response(304)
                self.end_headers()
                provider.unchanged.append(name)
                return
            content = LOGIN_PAGE if how == "html" else (folder / name).read_bytes()
            content = content[: len(content) // 2] if how == "short" else content
            begin, _, end = asked.removeprefix("bytes=").partition("-") if asked and how != "whole" else ("0", "", "")
            body = content[int(begin) : int(end) + 1 if end else None]
            sent = body[: len(body) // 2] if how == "cut" else body
            self.send_response(206 if asked and how != "whole" else 200)
            free = shutil.disk_usage(folder).free
            self.send_header("Content-Length", str(int(free * 0.6) if how == "large" else len(body)))
            self.send_header("Content-Range", f"bytes {begin}-{int(begin) + len(body) - 1}/{len(content)}")
            self.send_header("ETag", provider.etag)
            self.end_headers()
            if how == "slow":
                for start in range(0, len(sent), 4096):
                    self.wfile.write(sent[start : start + 4096])
                    time.sleep(0.02)
            elif how == "trickle":
                for start in range(0, len(sent), 50):
                    self.wfile.write(sent[start : start + 50])
                    if provider.over.wait(0.1):
                        return
            elif how in ("hang", "large"):
                self.wfile.write(sent[:200])
                provider.over.wait(60)
            else:
                self.wfile.write(sent)
            self.close_connection = how == "cut"

        def do_HEAD(self) -> None:
            name = self.path.rpartition("/")[2]
            short = provider.always.get(name) == "short"
            self.send_response(200)
            self.send_header("Content-Length", str((folder / name).stat().st_size // (2 if short else 1)))
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing: clients are killed here."""

    with running(Server(("127.0.0.1", port), Handler)) as provider.url:
        try:
            yield provider
        finally:
            provider.over.set()


@contextmanager
def once_said(words: str, change: Callable[[], object]) -> Iterator[None]:
    """Have something happen as soon as a bake says these words."""
    log = logging.getLogger("feedstock_forge.bake")

    class Waiting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if words in record.getMessage():
                log.removeHandler(self)
                change()

    waiting, level = Waiting(), log.level
    log.addHandler(waiting)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(waiting)


class FileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A file system that fails in the ways that those of object stores do; its URLs begin with ``faulty://``.

    ``answers`` says what becomes of the readings of a file, one after the other; the last is for all that follow.
    ``reset``: the connection breaks. ``denied``: it may not be read. ``login``: whoever asks has no credentials.
    ``short``: half the file, as if it were all. ``large``: it is said to be larger than any disk. ``hang``: a part of
    it, then nothing. ``full``: this machine's disk has no space left. ``well``: the file.
    """

    protocol = "faulty"
    folder: ClassVar[Path]
    answers: ClassVar[dict[str, list[str]]]
    read: ClassVar[list[str]]
    """The files that were asked for, one for each time."""
    over: ClassVar[threading.Event]

    @classmethod
    def serve(cls, folder: Path) -> None:
        """Hold the files of ``folder``."""
        cls.folder, cls.answers, cls.read, cls.over = folder, {}, [], threading.Event()

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        found = self.folder / path
        status = found.stat()
        kind = "directory" if found.is_dir() else "file"
        size = 1 << 60 if self.answers.get(path) == ["large"] else status.st_size
        return {"name": path, "size": size, "type": kind, "modified": status.st_mtime_ns}

    def _open(self, path: str, *_: Any, **__: Any) -> io.IOBase:
        self.read.append(path)
        planned = self.answers.get(path, ["well"])
        how = planned.pop(0) if len(planned) > 1 else planned[0]
        if how in _FAULTS:
            raise _FAULTS[how]
        content = (self.folder / path).read_bytes()
        if how == "hang":
            return _Hanging(content, self.over)
        return io.BytesIO(content[: len(content) // 2] if how == "short" else content)


class NoCredentialsError(Exception):
    """As botocore has one."""


_FAULTS = {
    "reset": ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    "denied": PermissionError("Access Denied"),
    "login": NoCredentialsError("Unable to locate credentials"),
    "full": OSError(errno.ENOSPC, "No space left on device"),
}


class _Hanging(io.BytesIO):
    def __init__(self, content: bytes, over: threading.Event) -> None:
        super().__init__(content)
        self.over = over

    def read(self, size: int | None = -1, /) -> bytes:
        if not self.tell():
            return super().read(20_000)
        self.over.wait(60)
        raise OSError(errno.ECONNRESET, "Connection reset by peer")
