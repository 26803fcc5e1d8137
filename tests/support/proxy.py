"""A proxy between us and a service: it holds requests to the service's contract, and misbehaves where a test says."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

Fault = Callable[[int], str | None]
"""What to do to the n-th request (from 1): a name in :data:`FAULTS`, or nothing."""

Judge = Callable[[str, str, bytes], str | None]
"""What is wrong with a request (method, path with query, body), if anything."""

FAULTS = ("503", "429", "reset before", "reset after", "half answer", "duplicate", "delay")


@dataclass
class Proxy:
    """A running proxy and the requests that it has seen."""

    url: str = ""
    seen: list[str] = field(default_factory=list)
    before: Callable[[int], None] = lambda number: None
    """Called before a request is passed on."""
    after: Callable[[int], None] = lambda number: None
    """Called once the service has answered, before the answer is passed back."""
    fault: Fault = lambda number: None
    judge: Judge = lambda method, path, body: None
    """A request that it objects to is refused with 400 and never passed on: the test that made it fails."""


@contextlib.contextmanager
def between(upstream: str, judge: Judge | None = None) -> Iterator[Proxy]:
    """A proxy for the service at ``upstream`` (an API's URL); set its ``fault``, ``before`` and ``after`` at will."""
    proxy = Proxy()
    if judge:
        proxy.judge = judge
    base, _, root = upstream.rpartition("/api")
    client = httpx.Client(base_url=base or root, timeout=30)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if wrong := proxy.judge(self.command, self.path.removeprefix("/api"), body):
                self.answer(400, json.dumps({"contract": wrong}).encode())
                return
            with lock:
                proxy.seen.append(f"{self.command} {self.path.removeprefix('/api')}")
                number = len(proxy.seen)
            fault = proxy.fault(number)
            proxy.before(number)
            if fault in ("503", "429"):
                self.answer(int(fault), b"{}", {"retry-after": "0"})
                return
            if fault == "delay":
                time.sleep(0.3)
            if fault == "reset before":
                self.reset()
                return
            headers = {
                name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")
            }
            for _ in range(2 if fault == "duplicate" else 1):
                response = client.request(self.command, self.path, content=body, headers=headers)
            proxy.after(number)
            if fault == "reset after":
                self.reset()
            elif fault == "half answer":
                self.answer(response.status_code, response.content, cut=True)
            else:
                self.answer(response.status_code, response.content)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names are http.server's

        def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None, cut: bool = False) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                self.reset()

        def reset(self) -> None:
            # SO_LINGER of zero seconds turns the close into a reset, as from a machine that died.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

        def log_message(self, *arguments: object) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError, ValueError, OSError):
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    proxy.url = f"http://127.0.0.1:{server.server_port}/api"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        client.close()
