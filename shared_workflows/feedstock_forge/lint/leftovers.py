"""What an update or a merge leaves behind for a person to settle, and nobody should commit."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..findings import Finding, Place, Refused, Severity, Who, rule
from ..yaml_file import read_bytes

CONFLICT = rule(
    "conflict-marker",
    "Two versions of these lines stand one after the other; the file is neither.",
    who=Who.MAINTAINER,
)
REJECTED = rule(
    "rejected-patch",
    "An update could not be applied to the file beside it, which is still as it was.",
    who=Who.MAINTAINER,
)
UNSEEN = rule(
    "leftovers-unseen",
    "What nobody has looked at may hold what an update left.",
    severity=Severity.WARNING,
    who=Who.MAINTAINER,
)

HIDDEN = (".github", ".schemas")
DATASETS = (".icechunk", ".zarr")
"""What a run on this machine writes: many files, and none that a person edits."""
MAX_FILES = 5_000
MAX_BYTES = 1 << 20
"""What is larger is data: a person resolves conflicts in text."""

# Both ends must be there: a line of seven signs alone is also how some write a heading.
_BEGIN = re.compile(rb"^<{7} .*$", re.MULTILINE)
_END = re.compile(rb"^>{7} ", re.MULTILINE)


def check(folder: Path) -> Iterator[Finding]:
    """The findings about conflict markers and rejected patches in a repository."""
    for number, path in enumerate(_files(folder)):
        if number == MAX_FILES:
            message = f"there are more than {MAX_FILES:,} files: from {path} on, none was looked at for conflicts"
            yield UNSEEN.at(Place(str(path)), message, "keep data outside the repository")
            return
        if path.name.endswith(".rej"):
            fix = f"make the change in {path.name.removesuffix('.rej')} by hand, then delete {path.name}"
            yield REJECTED.at(Place(str(path)), f"{path.name} is a rejected patch", fix)
            continue
        try:
            content = read_bytes(path, within=folder) if path.stat().st_size <= MAX_BYTES else b""
        except (OSError, Refused):
            continue  # Whether a file can be read is said where it is needed.
        if (begin := _BEGIN.search(content)) and _END.search(content, begin.end()):
            line = content.count(b"\n", 0, begin.start()) + 1
            fix = "keep one of the two versions, or both in one, and delete the lines <<<<<<<, ======= and >>>>>>>"
            yield CONFLICT.at(Place(str(path), line, 1), f"a conflict in {path.name} is not resolved", fix)


def _files(folder: Path) -> Iterator[Path]:
    """The regular files of a repository in a stable order, without those of datasets; of the hidden folders, those that
    the template makes."""
    with os.scandir(folder) as found:
        listed = sorted(found, key=lambda entry: entry.name)
    for entry in listed:
        if entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
        elif entry.is_dir(follow_symlinks=False) and (
            entry.name in HIDDEN or not (entry.name.startswith((".", "__")) or entry.name.endswith(DATASETS))
        ):
            yield from _files(Path(entry.path))
