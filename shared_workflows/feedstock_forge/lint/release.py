"""A release is planned: has the version moved, so that a release does not overwrite what another one published?"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ..findings import Finding, Refused, Severity, Who, rule
from ..meta import FILE, FOLDER, Meta
from ..yaml_file import Document, parse_yaml

NOT_MOVED = rule(
    "version-not-moved",
    "A release under the version of an earlier one overwrites its dataset, and no reader can tell the two apart.",
    severity=Severity.WARNING,
    who=Who.MAINTAINER,
)
OTHER_TAG = rule(
    "version-other-tag",
    "Whoever reads the tag expects the dataset of that version.",
    severity=Severity.WARNING,
    who=Who.MAINTAINER,
)

_TAG = re.compile(r"v?(\d{1,6}\.\d{1,6})(?:\.\d+)*")


def check(folder: Path, meta: Meta, document: Document, tag: str) -> Iterator[Finding]:
    """The findings about the version that the release ``tag`` would publish."""
    place = document.place(("version",))
    match = _TAG.fullmatch(tag)
    if match and match[1] != meta.version:
        fix = f'write `version: "{match[1]}"`, or choose another tag'
        yield OTHER_TAG.at(place, f"the tag is {tag}, the version {meta.version}", fix)
    previous = _git(folder, "describe", "--tags", "--abbrev=0", "--exclude", tag, "HEAD")
    if not previous or not _git(folder, "diff", "--name-only", previous, "HEAD", "--", FOLDER):
        return
    if _version_at(folder, previous, document) == meta.version:
        major, minor = meta.version.split(".")
        message = f"{FOLDER}/ has changed since {previous}, which was version {meta.version} too"
        fix = (
            f'write `version: "{major}.{int(minor) + 1}"` to replace the dataset, '
            f'or `"{int(major) + 1}.0"` to keep the old one beside it'
        )
        yield NOT_MOVED.at(place, message, fix)


def _version_at(folder: Path, tag: str, document: Document) -> str | None:
    try:
        old = parse_yaml(_git(folder, "show", f"{tag}:./{FOLDER}/{FILE}"), document.path)
    except Refused:
        return None
    if not isinstance(old.data, dict):
        return None
    return old.raw.get(("version",)) or str(old.data.get("version", "1.0"))


def _git(folder: Path, *arguments: str) -> str:
    """What git prints; nothing where it fails: without history there is no earlier release."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
