"""Rewrites of meta.yaml that need no thought: older forms, spellings and the order of keys.

Only text that has to change is touched, so comments and formatting stay. Every step proves itself: its result must
parse, and must mean what the file meant before, or the step is left out.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .. import licences
from ..findings import Refused
from ..meta import Meta, slug
from ..older_forms import modernise
from ..stac import ROLES
from ..yaml_file import Document, Loc, decode, parse_yaml, read_bytes

_MARK = "\ufeff"
_MODELINE = "# yaml-language-server:"
_DROPPED = ("pangeo_forge_version", "pangeo_notebook_version")

Edit = tuple[int, int, str]
"""Replace the characters from the first to the second offset."""


def fix_file(path: Path, within: Path, repository: str) -> bool:
    """Rewrite a meta.yaml in the present form; whether anything changed.

    ``repository`` gives the id that older files lack. Raises :class:`Refused` with one of the ``file-*`` findings.
    """
    text = decode(read_bytes(path, within=within), path)
    fixed = rewrite(text, path, repository)
    if fixed == text or path.is_symlink():
        return False
    _replace(path, fixed)
    return True


def rewrite(text: str, path: Path, repository: str) -> str:
    """The text of a meta.yaml in the present form; the text itself where it is broken, or in that form already."""
    text = text.lstrip(_MARK)
    for step in _STEPS:
        try:
            document = parse_yaml(text, path)
            if not isinstance(document.data, dict) or not document.data or not _is_block(document):
                return text
            changed = _apply(text, step(document, repository))
            if changed != text and _meaning(changed, path, repository) == _meaning(text, path, repository):
                text = changed
        except (Refused, KeyError):  # What an alias stands for has no place of its own in the text.
            continue
    return text


def _meaning(text: str, path: Path, repository: str) -> Any:
    document = parse_yaml(text, path)
    return modernise(document, slug(repository))[0] if isinstance(document.data, dict) else None


def _apply(text: str, edits: Iterable[Edit]) -> str:
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _is_block(document: Document) -> bool:
    """Whether the keys of the file stand each at the start of a line of its own."""
    return all(
        _line_start(document.text, document.keys[(key,)].start) == document.keys[(key,)].start for key in document.data
    )


def _line_start(text: str, offset: int) -> int:
    return text.rfind("\n", 0, offset) + 1


def _line_end(text: str, offset: int) -> int:
    """The offset after the newline of a line."""
    end = text.find("\n", offset)
    return len(text) if end < 0 else end + 1


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _end(document: Document, loc: Loc) -> int:
    """Where a value really ends: a block collection's own end lies after the comments that follow it."""
    span, value = document.values[loc], _at(document.data, loc)
    if isinstance(value, dict | list) and value and document.text[span.start] not in "{[&*!":
        parts = value if isinstance(value, dict) else range(len(value))
        return max(_end(document, (*loc, part)) for part in parts)
    return max(span.end, document.keys[loc].end) if loc in document.keys else span.end


def _at(data: Any, loc: Loc) -> Any:
    for part in loc:
        data = data[part]
    return data


def _scalar(document: Document, loc: Loc, new: str) -> list[Edit]:
    """Another text for a scalar, in the quotes that it has; nothing for one that only an alias repeats."""
    if (span := document.values.get(loc)) is None:
        return []
    quote = document.text[span.start]
    return [(span.start, span.end, f"{quote}{new}{quote}" if quote in "'\"" else new)]


def _without_line(document: Document, loc: Loc) -> Edit:
    """Remove a key with its value; a comment behind it stays, on a line of its own."""
    text = document.text
    start, end = document.keys[loc].start, _end(document, loc)
    stop = _line_end(text, end)
    comment = text[end:stop].strip()
    if comment.startswith("#"):
        return start, stop, comment + _newline(text)
    return _line_start(text, start), stop, ""


def _drop_versions(document: Document, _: str) -> list[Edit]:
    return [_without_line(document, (key,)) for key in _DROPPED if key in document.data]


def _drop_empty(document: Document, _: str) -> list[Edit]:
    edits = []
    maintainers = document.data.get("maintainers")
    for index, maintainer in enumerate(maintainers if isinstance(maintainers, list) else ()):
        if isinstance(maintainer, dict) and "orcid" in maintainer and not maintainer["orcid"] and len(maintainer) > 1:
            edits += _own_line(document, ("maintainers", index, "orcid"))
    provenance = document.data.get("provenance")
    if isinstance(provenance, dict) and "license_link" in provenance and len(provenance) > 1:
        link = provenance["license_link"]
        if not link or (isinstance(link, dict) and not any(link.values())):
            edits += _own_line(document, ("provenance", "license_link"))
    return edits


def _own_line(document: Document, loc: Loc) -> list[Edit]:
    """The removal of a key, if it stands at the start of its line, and not only where an alias repeats it."""
    if (key := document.keys.get(loc)) is None:
        return []
    before = document.text[_line_start(document.text, key.start) : key.start]
    return [] if before.strip() else [_without_line(document, loc)]


def _list_bakery(document: Document, _: str) -> list[Edit]:
    bakery = document.data.get("bakery")
    if not isinstance(bakery, dict | str) or not bakery or "bakeries" in document.data:
        return []
    text, key, value = document.text, document.keys[("bakery",)], document.values[("bakery",)]
    newline = _newline(text)
    rename = (key.start, key.end, "bakeries")
    if isinstance(bakery, str):
        colon = text.index(":", key.end) + 1
        return [rename, (colon, value.start, f"{newline}  - id: "), *_after_line(text, value.end, "    label: prod")]
    if text[value.start] == "{":
        label = "" if "label" in bakery else "label: prod, "
        return [rename, (value.start, value.start + 1, "[{" + label), (value.end, value.end, "]")]
    start, end = _line_start(text, value.start), _line_end(text, _end(document, ("bakery",)))
    indent = text[start : value.start]
    first, *rest = text[start:end].splitlines(keepends=True)
    lines = [f"{indent}- {first[len(indent) :]}", *(f"  {line}" if line.strip() else line for line in rest)]
    if "label" not in bakery:
        if not lines[0].endswith("\n"):
            lines[0] += newline
        # Below the id where that is one line, above everything else otherwise.
        one_line = next(iter(bakery)) == "id" and _line_end(text, _end(document, ("bakery", "id"))) == start + len(
            first
        )
        if one_line:
            lines.insert(1, f"{indent}  label: prod{newline}")
        else:
            lines[:1] = [f"{indent}- label: prod{newline}", f"{indent}  {first[len(indent) :]}"]
    return [rename, (start, end, "".join(lines))]


def _after_line(text: str, offset: int, line: str) -> list[Edit]:
    """A new line below the one at an offset."""
    end, newline = _line_end(text, offset), _newline(text)
    return [(end, end, f"{line}{newline}" if text[:end].endswith("\n") else f"{newline}{line}")]


def _plain_dict(document: Document, _: str) -> list[Edit]:
    recipes = document.data.get("recipes")
    if not (isinstance(recipes, list) and len(recipes) == 1 and isinstance(recipes[0], dict)):
        return []
    if "dict_object" not in recipes[0]:
        return []
    text, whole, entry = document.text, document.values[("recipes",)], document.values[("recipes", 0)]
    if text[whole.start] == "[":
        return [(whole.start, entry.start, ""), (entry.end, whole.end, "")]
    return [(whole.start, whole.start + 1, " ")] if text[whole.start] == "-" else []


def _resources(document: Document, repository: str) -> list[Edit]:
    """Numbers with their unit. Before `bakery` becomes a list, since only there they are MiB and 1/1024 of a core."""
    bakery = document.data.get("bakery")
    if not isinstance(bakery, dict) or "bakeries" in document.data:
        return []
    if not isinstance(resources := bakery.get("resources"), dict):
        return []
    modern = modernise(document, slug(repository))[0]["bakeries"][0]["resources"]
    edits = []
    for key in ("memory", "cpu"):
        if type(resources.get(key)) is int and modern.get(key) != resources[key]:
            value = modern[key]
            edits += _scalar(document, ("bakery", "resources", key), f"{value:g}" if key == "cpu" else value)
    return edits


def _spellings(document: Document, _: str) -> list[Edit]:
    edits = []
    data = document.data
    if isinstance(data.get("version"), int | float) and (raw := document.raw.get(("version",))):
        span = document.values[("version",)]
        edits.append((span.start, span.end, f'"{raw}"'))
    provenance = data.get("provenance")
    if not isinstance(provenance, dict):
        return edits
    providers = provenance.get("providers")
    for index, provider in enumerate(providers if isinstance(providers, list) else ()):
        roles = provider.get("roles") if isinstance(provider, dict) else None
        for number, role in enumerate(roles if isinstance(roles, list) else ()):
            where: Loc = ("provenance", "providers", index, "roles", number)
            if isinstance(role, str) and role not in ROLES and role.strip().lower() in ROLES:
                edits += _scalar(document, where, role.strip().lower())
    words = provenance.get("license")
    terms = licences.understand(words) if isinstance(words, str) else None
    if terms is not None and terms.license != words:
        loc = ("provenance", "license")
        if not terms.url:
            edits += _scalar(document, loc, terms.license)
        elif "license_link" not in provenance and document.text[document.values[("provenance",)].start] != "{":
            key = document.keys[loc].start
            indent = " " * (key - _line_start(document.text, key))
            link = f'{indent}license_link: {{url: "{terms.url}"}}'
            edits += [
                *_scalar(document, loc, terms.license),
                *_after_line(document.text, document.values[loc].end, link),
            ]
    return edits


def _add_missing(document: Document, repository: str) -> list[Edit]:
    data, _ = modernise(document, slug(repository))
    newline = _newline(document.text)
    added = "".join(
        f'{key}: "{data[key]}"{newline}' if key == "version" else f"{key}: {data[key]}{newline}"
        for key in ("id", "version")
        if key not in document.data and key in data
    )
    start = _blocks(document)[0][1]
    return [(start, start, added)] if added else []


def _order(document: Document, _: str) -> list[Edit]:
    text, order = document.text, [*Meta.model_fields, *document.data]
    blocks = _blocks(document)
    start = blocks[0][1]
    ends = [begin for _, begin in blocks[1:]] + [len(text)]
    parts = {key: text[begin:end] for (key, begin), end in zip(blocks, ends, strict=True)}
    wanted = sorted(parts, key=order.index)
    if wanted == list(parts):
        return []
    newline = _newline(text)
    lines = [part if part.endswith("\n") else part + newline for part in (parts[key] for key in wanted)]
    return [(start, len(text), "".join(lines))]


def _blocks(document: Document) -> list[tuple[str, int]]:
    """Where each key of the file begins, the comment right above it included; an editor's modeline stays on top."""
    text, blocks, floor = document.text, [], 0
    for key in document.data:
        begin = document.keys[(key,)].start
        while begin > floor:
            above = _line_start(text, begin - 1)
            line = text[above:begin]
            if not line.startswith("#") or line.startswith(_MODELINE):
                break
            begin = above
        blocks.append((key, begin))
        floor = document.keys[(key,)].end
    return blocks


_STEPS: tuple[Callable[[Document, str], list[Edit]], ...] = (
    _add_missing,
    _drop_versions,
    _drop_empty,
    _resources,
    _list_bakery,
    _plain_dict,
    _spellings,
    _order,
)


def _replace(path: Path, text: str) -> None:
    """Write the file whole or not at all, with the permissions that it had."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    written = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        written.chmod(path.stat().st_mode & 0o7777)
        written.replace(path)
    except BaseException:
        written.unlink()
        raise
