"""A real Prefect server and real workers on loopback, gone when their context ends. The tests stand on them too."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from feedstock_forge.prefect import Prefect, wait_until_healthy

START_SECONDS = 120


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Server:
    """A server that was started: its API's URL and the environment that reaches it."""

    url: str
    home: Path
    log: Path
    pid: int
    auth: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to reach it."""
        secret = {"PREFECT_API_AUTH_STRING": self.auth} if self.auth else {}
        return {"PREFECT_API_URL": self.url} | secret

    def client(self, patience: float = 30) -> Prefect:
        """A client of ours for it."""
        return Prefect(self.url, auth=self.auth, patience=patience)

    def wait(self) -> None:
        """Wait until it answers. Raises ``RuntimeError`` with the end of its log if it does not."""
        if not wait_until_healthy(self.url, START_SECONDS):
            raise RuntimeError(f"Prefect did not start:\n{self.log.read_text(errors='replace')[-2000:]}")


@dataclass(frozen=True)
class Worker:
    """A worker that was started."""

    log: Path
    pid: int


def quiet(home: Path) -> dict[str, str]:
    """The environment of every Prefect process here: its own home, no telemetry, nobody's profile."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    return inherited | {
        "PREFECT_HOME": str(home),
        "FEEDSTOCK_ENVIRONMENTS": str(home / "environments"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "INFO",
    }


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(
    command: list[str], environment: dict[str, str], log: Path, keep: Callable[[], bool] = _never
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, ended with everything that it started unless ``keep`` says otherwise."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, cwd=log.parent
        )
    try:
        yield started
    finally:
        if not keep():
            _end(started)


def _end(started: subprocess.Popen[bytes]) -> None:
    """Ask a process to stop, and kill whatever of it and its descendants is left after ten seconds."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [psutil.Process(started.pid), *psutil.Process(started.pid).children(recursive=True)]
        started.send_signal(signal.SIGINT)
        _, alive = psutil.wait_procs(family, timeout=10)
        for member in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
    started.wait(10)


@contextlib.contextmanager
def start(
    home: Path,
    *,
    auth: str | None = None,
    ui: bool = False,
    keep: Callable[[], bool] = _never,
    **extra: str,
) -> Iterator[Server]:
    """Start a server on a SQLite file in ``home``; :meth:`Server.wait` tells when it answers. ``extra`` adds to its
    environment."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    environment = quiet(home) | ({"PREFECT_SERVER_API_AUTH_STRING": auth} if auth else {}) | extra
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log = home / "server.log"
    with process(command if ui else [*command, "--no-ui"], environment, log, keep) as started:
        yield Server(f"http://127.0.0.1:{port}/api", home, log, started.pid, auth)


@contextlib.contextmanager
def serve(home: Path, auth: str | None = None, **extra: str) -> Iterator[Server]:
    """A server that answers, on a fresh SQLite file in ``home``; ``extra`` adds to its environment."""
    with start(home, auth=auth, **extra) as server:
        server.wait()
        yield server


@contextlib.contextmanager
def work(
    server: Server, bakeries: Path, bakery: str = "local", *labels: str, keep: Callable[[], bool] = _never, **extra: str
) -> Iterator[Worker]:
    """Serve a bakery with a real worker; ``extra`` adds to its environment."""
    log = server.home / f"worker-{bakery}-{'-'.join(labels) or 'all'}.log"
    command = [sys.executable, "-m", "feedstock_forge", "bakery", "serve", bakery, "--bakeries", str(bakeries)]
    for label in labels:
        command += ["--label", label]
    with process(command, quiet(server.home) | server.environment | extra, log, keep) as started:
        yield Worker(log, started.pid)
