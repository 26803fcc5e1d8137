"""A process that runs a stranger's code is kept on a leash, and ended with everything that it started.

Its standard input is the leash: it closes when whoever holds the other end lets go, however that comes about. Imports
little, since such a process begins with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

GRACE = 10.0
"""Seconds that a process has to put things away when it is told to stop."""
_ROUNDS = 20


def hold() -> None:
    """Watch the other end of standard input, and end this process's group when it lets go."""
    leash = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def watch() -> None:
        while os.read(leash, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="leash", daemon=True).start()


def adopt() -> set[int]:
    """Let what processes leave behind become this process's own, so that it can be ended.

    So does Linux with prctl(2); elsewhere a daemon outlives it. Returns the processes that are there already.
    """
    import psutil  # the worker's; the environment of who is on the leash, who imports this module too, need not have it

    if sys.platform == "linux":
        set_child_subreaper = 36
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)
    return {child.pid for child in psutil.Process().children(recursive=True)}


def end(process: subprocess.Popen[bytes], others: set[int]) -> None:
    """End a process and its group, by asking first for as long as :data:`GRACE`; and then what has left the group:
    everything below this process that is not among ``others``."""
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    _signal(process, signal.SIGKILL)
    process.wait()
    _end_orphans(others)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _end_orphans(others: set[int]) -> None:
    """End what left the group, a daemon for one, as long as there is any: some may be starting more."""
    import psutil

    for _ in range(_ROUNDS):
        left = [child for child in psutil.Process().children(recursive=True) if child.pid not in others]
        if not left:
            return
        for child in left:
            with contextlib.suppress(psutil.Error):
                child.kill()
        psutil.wait_procs(left, timeout=1)
