"""Writing a request into meta.yaml and more into a grant, comments and order kept: only what changes is touched."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..findings import Refused, Who, rule
from ..meta import FILE, FOLDER
from ..yaml_file import Document, Loc, parse_yaml

NOT_EDITABLE = rule(
    "meta-not-editable",
    "A change that a program is not sure of is left to a person.",
    who=Who.MAINTAINER,
)

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._-]*|\d{4}-\d\d-\d\d|\d+(?:\.\d+)? [A-Za-z]+")
_KEY = "bakeries"


def with_request(text: str, wish: Mapping[str, Any]) -> str:
    """``text`` of a meta.yaml with one request in its ``bakeries``: added, or brought up to date.

    ``wish`` has ``id`` and ``label``, and whatever else the request is to say. Raises :class:`Refused` where the file
    is not written in a way that this understands.
    """
    document = parse_yaml(text, Path(FOLDER) / FILE)
    data = document.data if isinstance(document.data, dict) else {}
    asked = data.get(_KEY)
    known = asked if isinstance(asked, list) else []
    index = next((at for at, item in enumerate(known) if _same(item, wish)), None)
    expected = [*known, dict(wish)]
    if index is not None:
        expected = [*known[:index], {**known[index], **wish}, *known[index + 1 :]]
    if data and "bakery" not in data:
        # What an alias stands for has no place of its own in the text, and without its anchor an alias is none.
        with suppress(KeyError, Refused):
            edited = _added(document, wish, known) if index is None else _updated(document, (_KEY, index), wish)
            # Whatever the surgery did, the file must now say exactly the old and the new.
            if parse_yaml(edited, document.path).data == {**data, _KEY: expected}:
                return edited
    item = "\n".join(_lines(wish, "    "))
    message = "the request cannot be added to this file by a program"
    fix = f"run `feedstock lint --fix`, or add it yourself: `bakeries:` {item}"
    raise Refused(NOT_EDITABLE.at(document.place((_KEY,), key=True), message, fix))


def with_values(text: str, path: Path, values: Mapping[str, Any]) -> str | None:
    """``text`` of a grant with some of its top-level values changed or added; ``None`` where that is not certain."""
    document = parse_yaml(text, path)
    edited = _updated(document, (), values)
    return edited if parse_yaml(edited, path).data == {**document.data, **values} else None


def _same(item: object, wish: Mapping[str, Any]) -> bool:
    return isinstance(item, dict) and (item.get("id"), item.get("label")) == (wish["id"], wish["label"])


def _flow(value: Any) -> str:
    """A value in flow style; quoted only where YAML needs it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(_flow(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, str):
        return (
            value if _PLAIN.fullmatch(value) and value.lower() not in ("true", "false", "null") else json.dumps(value)
        )
    return json.dumps(value)


def _lines(wish: Mapping[str, Any], indent: str) -> list[str]:
    return [f"{indent}{'  ' if at else '- '}{key}: {_flow(value)}" for at, (key, value) in enumerate(wish.items())]


def _added(document: Document, wish: Mapping[str, Any], known: list[Any]) -> str:
    text = document.text
    newline = "\r\n" if "\r\n" in text else "\n"
    if (_KEY,) not in document.keys:
        block = newline.join([f"{_KEY}:", *_lines(wish, "  "), ""])
        return f"{text if text.endswith(newline) else text + newline}{block}"
    span = document.values[(_KEY,)]
    if text[span.start : span.start + 1] == "[":
        if known:
            end = _end(document, (_KEY, len(known) - 1))
            return f"{text[:end]}, {_flow(wish)}{text[end:]}"
        return f"{text[: span.start]}[{_flow(wish)}]{text[span.end :]}"
    if not known:
        end = document.keys[(_KEY,)].end
        at = _line_end(text, end)
        return f"{text[:at]}{newline}{newline.join(_lines(wish, '  '))}{text[at:]}"
    first = document.values[(_KEY, 0)]
    line = text[text.rfind("\n", 0, first.start) + 1 : first.start]
    indent = line[: line.index("-")] if "-" in line else ""
    at = _line_end(text, _end(document, (_KEY, len(known) - 1)))
    return f"{text[:at]}{newline}{newline.join(_lines(wish, indent))}{text[at:]}"


def _updated(document: Document, at: Loc, wish: Mapping[str, Any]) -> str:
    """The mapping at a location, which has a ``label``, with what is wished for.

    The changes are made from the last to the first, so that no position moves before it is used.
    """
    text = document.text
    newline = "\r\n" if "\r\n" in text else "\n"
    item = document.data
    for part in at:
        item = item[part]
    changes: list[tuple[int, int, str]] = []
    label = (*at, "label")
    for key, value in wish.items():
        loc = (*at, key)
        if key in item:
            if item[key] != value:
                changes.append((document.values[loc].start, _end(document, loc), _flow(value)))
        elif text[document.values[at].start] == "{":
            end = _end(document, label)
            changes.append((end, end, f", {key}: {_flow(value)}"))
        else:
            end = _line_end(text, _end(document, label))
            indent = " " * (document.keys[label].column - 1)
            changes.append((end, end, f"{newline}{indent}{key}: {_flow(value)}"))
    for start, end, put in sorted(changes, reverse=True):
        text = text[:start] + put + text[end:]
    return text


def _end(document: Document, loc: Loc) -> int:
    """Where a value's own text ends; a block collection's span also takes the blank lines and comments after it."""
    span = document.values[loc]
    children = [known for known in document.values if known[:-1] == loc and known != loc]
    if document.text[span.start : span.start + 1] in ("[", "{") or not children:
        return span.end
    return max(_end(document, child) for child in children)


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    return end - 1 if text[end - 1 : end] == "\r" else end
