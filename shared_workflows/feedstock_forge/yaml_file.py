"""YAML as people write it: plain values, the position of each of them, and a finding for whatever is unreadable.

The dialect is the safe part of YAML 1.2 that meta files need. Unlike YAML 1.1, ``on`` is a word and not a
boolean, ``1_000`` a word and not a number. Files come from strangers, so size, depth and alias expansion are bounded.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .findings import Finding, Place, Refused, rule

MAX_BYTES = 1 << 20
MAX_DEPTH = 40
MAX_NODES = 20_000

Loc = tuple[str | int, ...]

MISSING = rule("file-missing", "Without this file there is nothing to read.")
NOT_A_FILE = rule(
    "file-not-regular", "Only regular files are read: pipes, devices and folders never end or never start."
)
OUTSIDE = rule("file-outside", "A file that leaves the feedstock is not part of what reviewers saw.")
UNREADABLE = rule("file-unreadable", "The file is there and cannot be opened.")
TOO_LARGE = rule("file-too-large", "Nobody reviews a file of this size, and reading it would slow everybody else down.")
ENCODING = rule("file-encoding", "Every tool after this one expects UTF-8.")
BROKEN = rule("yaml-broken", "The file is not YAML, so none of it can be used.")
DUPLICATE_KEY = rule("yaml-duplicate-key", "Of two equal keys one is silently lost.")
TOO_DEEP = rule("yaml-too-deep", "Nothing that the forge reads is nested this deeply.")
TOO_BIG = rule("yaml-too-big", "Aliases that multiply can fill the memory of whoever reads them.")
NOT_A_MAPPING = rule("yaml-not-a-mapping", "The keys are what the forge looks for.")


@dataclass(frozen=True, slots=True)
class Span:
    """Where a node stands in the text: offsets count characters from 0, line and column from 1."""

    start: int
    end: int
    line: int
    column: int


@dataclass(slots=True)
class Document:
    """A YAML file: its text, its values as plain Python, and the span of every key and value by location.

    A location is a tuple of keys and indices, such as ``("recipes", 0, "id")``.
    """

    path: Path
    text: str
    data: Any
    values: dict[Loc, Span] = field(default_factory=dict)
    keys: dict[Loc, Span] = field(default_factory=dict)
    raw: dict[Loc, str] = field(default_factory=dict)
    """The text of every plain (unquoted) scalar: ``1.10`` is a number to YAML and a version to us."""
    moved: dict[Loc, Loc] = field(default_factory=dict)
    """Where the parts of a modernised document really stand: ``("bakeries", 0)`` may be ``("bakery",)`` in the file."""

    def where(self, loc: Loc) -> Loc:
        """The location in the file of what the present form has at ``loc``."""
        for length in range(len(loc), 0, -1):
            if (real := self.moved.get(loc[:length])) is not None:
                return (*real, *loc[length:])
        return loc

    def holds(self, loc: Loc) -> bool:
        """Whether the file has something at ``loc``."""
        return (real := self.where(loc)) in self.values or real in self.keys

    def place(self, loc: Loc = (), *, key: bool = False) -> Place:
        """The place of a value (or of its key); the nearest parent's for what is not there."""
        loc = self.where(loc)
        spans = (self.keys, self.values) if key else (self.values, self.keys)
        for length in range(len(loc), -1, -1):
            for known in spans:
                if span := known.get(loc[:length]):
                    return Place(str(self.path), span.line, span.column)
        return Place(str(self.path), 1, 1)


def read_text(path: Path, *, within: Path | None = None, max_bytes: int = MAX_BYTES) -> str:
    """Read a text file that a stranger may have written; a byte order mark at its start is not part of it.

    ``within`` is the folder that the file, links followed, must not leave. Raises :class:`Refused` with one of
    the ``file-*`` findings.
    """
    return decode(read_bytes(path, within=within, max_bytes=max_bytes), path).removeprefix("\ufeff")


def read_bytes(path: Path, *, within: Path | None = None, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file of at most ``max_bytes``; what is no file is not waited for.

    Arguments and errors are those of :func:`read_text`.
    """
    place = Place(str(path))
    if within is not None and not is_inside(path, within):
        raise Refused(OUTSIDE.at(place, f"{path.name} leads out of {within}", "replace the link by the file itself"))
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer that never comes.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        raise Refused(MISSING.at(place, f"there is no file {path}", f"create {path}, or name another folder")) from None
    except OSError as error:
        raise Refused(UNREADABLE.at(place, f"cannot open {path}: {error.strerror}", "check its permissions")) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(NOT_A_FILE.at(place, f"{path} is not a regular file", "put a text file in its place"))
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise Refused(UNREADABLE.at(place, f"cannot read {path}: {error.strerror}", "check the disk")) from None
    finally:
        os.close(descriptor)
    if len(content) > max_bytes:
        size = f"{status.st_size / 2**20:.1f} MiB"
        limit = f"{max_bytes / 2**20:g} MiB"
        raise Refused(TOO_LARGE.at(place, f"{path.name} has {size}; the limit is {limit}", "shorten it"))
    return content


def decode(content: bytes, path: Path) -> str:
    """The text of a file. Raises :class:`Refused` with the place of the first byte that is not UTF-8."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode()) + 1
        raise Refused(
            ENCODING.at(
                Place(str(path), line, column),
                f"{path.name} is not UTF-8: byte 0x{content[error.start]:02x} here",
                f"save it as UTF-8 (`iconv -f latin1 -t utf-8 {path.name}` if it came from an older editor)",
            )
        ) from None


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path, links followed, stays in a folder."""
    real, root = os.path.realpath(path), os.path.realpath(folder)
    return real == root or real.startswith(root.rstrip(os.sep) + os.sep)


def read_yaml(path: Path, *, within: Path | None = None) -> Document:
    """Read a YAML file into a :class:`Document` whose data is a mapping.

    Raises :class:`Refused` with one of the ``file-*`` or ``yaml-*`` findings.
    """
    document = parse_yaml(read_text(path, within=within), path)
    if not isinstance(document.data, dict):
        found = "empty" if document.data is None else f"a {_kind(document.data)}"
        raise Refused(
            NOT_A_MAPPING.at(document.place(), f"{path.name} is {found}, not a mapping", "write `key: value` lines")
        )
    return document


def parse_yaml(content: str, path: Path) -> Document:
    """Parse YAML text; ``path`` names it in findings. Raises :class:`Refused` with one of the ``yaml-*`` findings."""
    document = Document(path, content, None)
    if (directive := _TAG_DIRECTIVE.search(content)) is not None:
        # libyaml compares each of them with all before it: a megabyte would take it ten seconds.
        place = Place(str(path), content.count("\n", 0, directive.start()) + 1, 1)
        raise Refused(BROKEN.at(place, "a `%TAG` has no meaning here", "remove the line"))
    try:
        events = yaml.parse(content, Loader=_LOADER)
        document.data = _Builder(document, events).build()
    except yaml.YAMLError as error:
        raise Refused(_broken(document, error)) from None
    return document


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TAG_DIRECTIVE = re.compile(r"^%TAG\b", re.MULTILINE)
_TAGS = {None, "!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"}

# The core schema of YAML 1.2, https://yaml.org/spec/1.2.2/#103-core-schema
_NULL = re.compile(r"(?:~|null|Null|NULL)?\Z")
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,300}\Z|0o[0-7]{1,300}\Z|0x[0-9a-fA-F]{1,300}\Z")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z"
)


def _resolve(raw: str) -> Any:
    if _NULL.match(raw):
        return None
    if raw in _BOOL:
        return _BOOL[raw]
    if _INT.match(raw):
        return int(raw, 0) if raw[:2] in ("0o", "0x") else int(raw)
    if _FLOAT.match(raw):
        return float(raw.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return raw


def _kind(value: object) -> str:
    return {dict: "mapping", list: "list", str: "text", bool: "boolean", int: "number", float: "number"}.get(
        type(value), "null"
    )


class _Builder:
    """Builds values and spans from parser events, bounded in depth and in size after alias expansion."""

    def __init__(self, document: Document, events: Iterator[Any]) -> None:
        self.document = document
        self.events = events
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.count = 0

    def build(self) -> Any:
        data = None
        seen = False
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if seen:
                    raise Refused(
                        BROKEN.at(
                            self._place(event),
                            "a second YAML document starts here",
                            "keep one document: remove the line `---`",
                        )
                    )
                seen = True
                data = self._node(next(self.events), (), 0)
        return data

    def _place(self, event: Any) -> Place:
        mark = event.start_mark
        return Place(str(self.document.path), mark.line + 1, mark.column + 1)

    @staticmethod
    def _span(start: Any, end: Any) -> Span:
        return Span(start.start_mark.index, end.end_mark.index, start.start_mark.line + 1, start.start_mark.column + 1)

    def _grow(self, event: Any, by: int = 1) -> None:
        self.count += by
        if self.count > MAX_NODES:
            raise Refused(
                TOO_BIG.at(
                    self._place(event),
                    f"the file holds more than {MAX_NODES:,} values once its aliases are expanded",
                    "write values out instead of repeating them by alias",
                )
            )

    def _node(self, event: Any, loc: Loc, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise Refused(
                TOO_DEEP.at(self._place(event), f"nested more than {MAX_DEPTH} levels deep", "flatten this part")
            )
        if (tag := getattr(event, "tag", None)) not in _TAGS:
            raise Refused(BROKEN.at(self._place(event), f"the tag `{tag}` has no meaning here", "remove the tag"))
        before = self.count
        self._grow(event)
        document = self.document
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise Refused(
                    BROKEN.at(
                        self._place(event), f"the alias *{event.anchor} has no anchor before it", "write the value out"
                    )
                )
            value, size = self.anchors[event.anchor]
            self._grow(event, size)
            document.values[loc] = self._span(event, event)
            return value
        if isinstance(event, yaml.ScalarEvent):
            plain = event.implicit[0] and not event.style  # libyaml says "" where PyYAML says None
            value = _resolve(event.value) if plain else event.value
            if plain:
                document.raw[loc] = event.value
            document.values[loc] = self._span(event, event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = []
            for item in self.events:
                if isinstance(item, yaml.SequenceEndEvent):
                    document.values[loc] = self._span(event, item)
                    break
                value.append(self._node(item, (*loc, len(value)), depth + 1))
        else:
            value = self._mapping(event, loc, depth)
        if event.anchor:
            self.anchors[event.anchor] = (value, self.count - before)
        return value

    def _mapping(self, event: Any, loc: Loc, depth: int) -> dict[Any, Any]:
        document = self.document
        mapping: dict[Any, Any] = {}
        for key_event in self.events:
            if isinstance(key_event, yaml.MappingEndEvent):
                document.values[loc] = self._span(event, key_event)
                break
            if not isinstance(key_event, yaml.ScalarEvent):
                raise Refused(
                    BROKEN.at(self._place(key_event), "a key must be a word", "quote it if it holds { } [ ] * or &")
                )
            self._grow(key_event)
            # Keys are words, whatever they look like: `on`, `1.0` and `null` included.
            key = key_event.value
            place = (*loc, key)
            if key in mapping:
                raise Refused(
                    DUPLICATE_KEY.at(
                        self._place(key_event),
                        f"the key `{key}` stands here again; it is first on line {document.keys[place].line}",
                        "remove one of the two, or merge their values",
                    )
                )
            document.keys[place] = self._span(key_event, key_event)
            mapping[key] = self._node(next(self.events), place, depth + 1)
        return mapping


def _broken(document: Document, error: yaml.YAMLError) -> Finding:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = Place(str(document.path), mark.line + 1, mark.column + 1) if mark else Place(str(document.path))
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    start = document.text.rfind("\n", 0, mark.index) + 1 if mark else 0
    if "\t" in document.text[start : len(document.text) - len(document.text[start:].lstrip(" \t"))]:
        return BROKEN.at(place, "this line is indented with a tab", "indent with spaces; YAML forbids tabs")
    return BROKEN.at(place, f"not valid YAML: {problem}", "check quotes, colons and indentation on and above this line")
