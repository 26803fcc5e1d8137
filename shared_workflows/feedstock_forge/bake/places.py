"""A dataset's place in a file system: claimed for one run, and filled with its next state all at once.

A bake claims a folder beside the dataset, ``.<name>.baking``, for itself: the lock on it ends with the process, so what
a killed run left in it is told from the work of a run that goes on. A new store is made in it and moved to its place;
readers see the old state or the new one. With a note of how far it is, a store that is half made stays in the folder
for the next run.
"""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..findings import Refused, Who, rule
from .fetch import at_home, disk_full, file_named
from .locks import lock

FOREIGN = rule("target-not-a-dataset", "A run must never replace what another hand has put there.")
UNWRITABLE = rule("target-unwritable", "The run needs leave to write its dataset.", who=Who.OPERATOR)
BUSY = rule("target-busy", "Two runs at once would each undo the other's work.")

STORE = "store"
"""The folder in the claimed one in which a new store is made."""

_NOTE = "progress.json"

_OLD = "old"
"""Where in the claimed folder the published state is while it makes room for the next."""

log = logging.getLogger("feedstock_forge.bake")


def path_of(target: str) -> Path | None:
    """Where on this machine a target is: a path or a ``file://`` URL; ``None`` for any other URL.

    Where a link leads, not the link: the claimed folder and the next state have to be beside the dataset itself.
    """
    path = file_named(target)
    if path is None:
        return None
    # Unlike Path.resolve, it leaves a link that leads to itself to whoever opens it.
    return Path(os.path.realpath(at_home(path if path == target else os.path.expandvars(path))))


@contextmanager
def claimed(path: Path) -> Iterator[Path]:
    """Claim the dataset at ``path`` for one run, and yield a folder beside it that goes with the claim, unless there
    is a note in it for the next run.

    Raises :class:`Refused` if another run is at it or it may not be written.
    """
    folder = path.with_name(f".{path.name}.baking")
    with storage_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        held = lock(folder)
    if held is None:
        raise Refused(BUSY.at(None, f"another run is writing {path}", "wait until it ends, then run it again"))
    try:
        _recover(folder, path)
        yield folder
    finally:
        try:
            # What cannot be put back must not be removed: then it stays for the next run's `_recover`.
            _put_back(folder, path)
            if not (folder / _NOTE).exists():
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(held)


def note(folder: Path, progress: dict[str, Any]) -> None:
    """Note in a claimed folder how far its store is, all at once."""
    written = folder / f"{_NOTE}.new"
    with written.open("w", encoding="utf-8") as file:
        json.dump(progress, file)
        file.flush()
        os.fsync(file.fileno())
    written.replace(folder / _NOTE)


def noted(folder: Path) -> dict[str, Any] | None:
    """What is noted in a claimed folder of the store in it."""
    try:
        found = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and (folder / STORE).is_dir() else None


def forget(folder: Path) -> None:
    """Remove the note from a claimed folder: what its store is from now on is for no other run."""
    (folder / _NOTE).unlink(missing_ok=True)


def refuse_foreign(path: Path, *marks: str) -> None:
    """Raise :class:`Refused` if something is at ``path`` that holds none of the files that mark a dataset, or that the
    run may not look into."""
    with storage_errors(str(path)):
        # What is still a link leads to itself, and says so when it is looked into.
        marked = not (path.exists() or path.is_symlink()) or any((path / mark).exists() for mark in marks)
        if not marked and (path.is_file() or any(path.iterdir())):
            raise foreign(str(path))


def foreign(target: str) -> Refused:
    """The refusal to replace what is at ``target``."""
    fix = "give another target, or move it away yourself"
    return Refused(FOREIGN.at(None, f"{target} exists and is not such a dataset", fix))


def move_into_place(staged: Path, path: Path) -> None:
    """Put a new state in the place of the old one, at once where the system can; the old one goes with the claim."""
    if path.exists() and _exchange(staged, path):
        return
    try:
        if path.exists():
            # For a moment nothing is in place; `_recover` puts the old store back if we die in it.
            path.rename(staged.with_name(_OLD))
        staged.rename(path)
    finally:
        _put_back(staged.parent, path)


@contextmanager
def storage_errors(where: str, *others: type[Exception]) -> Iterator[None]:
    """Turn what the system raises, or a storage library in its place (``others``), into a refusal."""
    failures: tuple[type[Exception], ...] = (OSError, *others)
    try:
        yield
    except failures as error:
        # Icechunk gives the error of the system, or of the object store, as text.
        if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or "No space left" in str(
            error
        ):
            raise disk_full(where) from None
        fix = "look at the URL of the target, and at what the run's user or credentials may do there"
        raise Refused(UNWRITABLE.at(None, f"{where} cannot be written: {_gist(error)}", fix)) from error


def _gist(error: Exception) -> str:
    """What happened and what it came from.

    Icechunk puts what happened first, marked ``x``; then where in its code; and last, behind arrows, each cause down to
    the system's or the object store's own words.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line.strip(" x|") for line in str(error).splitlines()]
    what = next((line for line in lines if line), type(error).__name__)
    cause = " ".join(str(error).rpartition("-> ")[2].split()) if "-> " in str(error) else ""
    if answer := re.search(r'code: "([^"]*)", message: "([^"]*)"', cause):
        cause = f"{answer[2]} ({answer[1]})"
    return what if cause in what else f"{what}: {cause}"


def _put_back(folder: Path, path: Path) -> None:
    """Put the old state back where a move into its place has not come to its end."""
    old = folder / _OLD
    if old.exists() and not path.exists():
        old.rename(path)


def _recover(folder: Path, path: Path) -> None:
    """Clear away what a killed run left, after putting back what it had taken from its place; but for a store with a
    note of how far it is."""
    _put_back(folder, path)
    kept = (STORE, _NOTE) if noted(folder) is not None else ()
    leftovers = [leftover for leftover in folder.iterdir() if leftover.name not in kept]
    if leftovers:
        log.info("removing what a run that was killed left beside %s", path)
    for leftover in leftovers:
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; ``False`` where the system cannot (renameat2(2): Linux, most file systems)."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    at_working_folder, exchange = -100, 2
    if not hasattr(libc, "renameat2"):
        return False
    return bool(
        libc.renameat2(at_working_folder, os.fsencode(one), at_working_folder, os.fsencode(other), exchange) == 0
    )
