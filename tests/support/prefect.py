"""A real Prefect server and real workers, on loopback, gone when the test is."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from feedstock_forge.prefect import Prefect, wait_until_healthy

START_SECONDS = 120


@dataclass(frozen=True)
class Server:
    """A running server: its API's URL and the environment that reaches it."""

    url: str
    home: Path
    auth: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        secret = {"PREFECT_API_AUTH_STRING": self.auth} if self.auth else {}
        return {"PREFECT_API_URL": self.url} | secret

    def client(self, patience: float = 30) -> Prefect:
        return Prefect(self.url, auth=self.auth, patience=patience)


def quiet(home: Path) -> dict[str, str]:
    """The environment of every Prefect process here: its own home, no telemetry, nobody's profile."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    return inherited | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "INFO",
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, whose group is ended at the end: first asked, then killed."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, cwd=log.parent
        )
    try:
        yield started
    finally:
        for how, seconds in ((signal.SIGINT, 10), (signal.SIGKILL, 10)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.wait(seconds)
                break


@contextlib.contextmanager
def serve(home: Path, auth: str | None = None) -> Iterator[Server]:
    """Start a server on a fresh SQLite file in ``home`` and wait until it is healthy."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = quiet(home) | ({"PREFECT_SERVER_API_AUTH_STRING": auth} if auth else {})
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    log = home / "server.log"
    with process(command, environment, log):
        assert wait_until_healthy(url, START_SECONDS), log.read_text(errors="replace")[-2000:]
        yield Server(url, home, auth)


@contextlib.contextmanager
def work(server: Server, bakeries: Path, bakery: str = "local", *labels: str) -> Iterator[Path]:
    """Serve a bakery with a real worker; yields its log."""
    log = server.home / f"worker-{bakery}-{'-'.join(labels) or 'all'}.log"
    command = [sys.executable, "-m", "feedstock_forge", "bakery", "serve", bakery, "--bakeries", str(bakeries)]
    for label in labels:
        command += ["--label", label]
    with process(command, quiet(server.home) | server.environment, log):
        yield log
