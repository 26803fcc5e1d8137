"""Folders that a run has for itself: the lock on one ends with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def lock(folder: Path, *, make: bool = True) -> int | None:
    """Lock ``folder``, making it if need be, and return the descriptor to close; ``None`` if another process holds it.

    Raises ``OSError`` if it cannot be made or opened.
    """
    while True:
        if make:
            folder.mkdir(exist_ok=True)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            if make:
                continue
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        # The run before may have removed the folder between our opening and locking it.
        if folder.exists() and os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
        os.close(descriptor)


@contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder for this run below ``parent``, removed at its end; those that killed runs left are removed first."""
    for leftover in parent.glob(f"{prefix}*"):
        try:
            held = lock(leftover, make=False)
        except OSError:
            continue  # another user's, or gone meanwhile
        if held is not None:
            shutil.rmtree(leftover, ignore_errors=True)
            os.close(held)
    held = None
    while held is None:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with suppress(FileNotFoundError):  # another run took it for a leftover before it was locked
            held = lock(folder, make=False)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)
