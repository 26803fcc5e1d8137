"""Characters that people who review a file cannot see: https://trojansource.codes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ..findings import Finding, Place, Refused, Severity, rule
from ..yaml_file import OUTSIDE, decode, is_inside, read_bytes
from .report import Report

HIDDEN = rule("text-hidden-character", "Reviewers approve what they see; this text is not what they see.")
MARK = rule(
    "text-byte-order-mark",
    "Some programs take the mark for a part of the first word.",
    severity=Severity.HINT,
)
TOO_MUCH = rule("feedstock-too-much-text", "Nobody reviews so much, and data belong in a bakery's storage.")

SUFFIXES = (".py", ".pyi", ".yaml", ".yml", ".md", ".rst", ".txt", ".toml", ".cfg", ".ini", ".sh", ".lock")
MAX_FILES = 1000
MAX_BYTES = 8 << 20
MAX_ENTRIES = 20_000
MAX_SHOWN = 5
"""Findings of this kind for one file."""

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f\x7f]")
# C0 and C1 controls, line breaks that only some programs break at, bidirectional controls, zero width and other
# invisible characters, and tags.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
_JOINERS = "\u200c\u200d"
_MARK = b"\xef\xbb\xbf"


def check_folder(folder: Path, within: Path, report: Report) -> None:
    """Check every text file below a folder, up to what a person might review. Links to folders are not followed."""
    if not folder.is_dir():
        return
    if not is_inside(folder, within):
        message = f"{folder.name} leads out of {within}"
        report.findings.append(OUTSIDE.at(Place(str(folder)), message, "replace the link by the folder itself"))
        return
    read = number = 0
    for number, path in enumerate(_files(folder), start=1):
        if path is None or number > MAX_FILES or read > MAX_BYTES:
            message = (
                f"there are more than {MAX_FILES} text files or {MAX_BYTES >> 20} MiB here; not all were looked at"
            )
            report.findings.append(TOO_MUCH.at(Place(str(folder)), message, "move the data elsewhere"))
            return
        read += check(path, within, report)


def _files(folder: Path) -> Iterator[Path | None]:
    """The text files below a folder, in a stable order; None where there are too many entries to go on."""
    waiting, entries = [folder], 0
    while waiting:
        with os.scandir(waiting.pop()) as found:
            listed = sorted(found, key=lambda entry: entry.name)
        for entry in listed:
            if (entries := entries + 1) > MAX_ENTRIES:
                yield None
                return
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith(".") and entry.name != "__pycache__":
                    waiting.append(Path(entry.path))
            elif entry.name.endswith(SUFFIXES):
                yield Path(entry.path)


def check(path: Path, within: Path, report: Report) -> int:
    """Add what is hidden in a file to the report, or why the file cannot be read; returns how many bytes were."""
    report.files += 1
    try:
        content = read_bytes(path, within=within)
        if content.isascii() and not _CONTROL.search(content):
            return len(content)
        text = decode(content, path)
    except Refused as refused:
        report.findings += refused.findings
        return 0
    if content.startswith(_MARK):
        report.findings.append(
            MARK.at(Place(str(path), 1, 1), "the file starts with a byte order mark", "save it as UTF-8 without one")
        )
        text = text[1:]
    report.findings += islice(_hidden(path, text), MAX_SHOWN)
    return len(content)


def _hidden(path: Path, text: str) -> Iterator[Finding]:
    import unicodedata

    for match in _HIDDEN.finditer(text):
        if match[0] in _JOINERS and not _separates_ascii(text, match.start()):
            continue  # Persian, Indic scripts and emoji need them.
        line = text.count("\n", 0, match.start()) + 1
        column = match.start() - (text.rfind("\n", 0, match.start()) + 1) + 1
        name = unicodedata.name(match[0], "a control character")
        message = f"a hidden character: U+{ord(match[0]):04X} {name}"
        yield HIDDEN.at(Place(str(path), line, column), message, "delete it, or write it as an escape in code")


def _separates_ascii(text: str, index: int) -> bool:
    return text[index - 1 : index].isascii() or text[index + 1 : index + 2].isascii()
