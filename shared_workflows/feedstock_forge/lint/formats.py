"""The ways to say what lint found: for a terminal, a program, GitHub's annotations, a comment, and code scanning."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..findings import DOCUMENTATION, Finding, Place, Refused, Severity, Who, did_you_mean, rule, visible
from ..older_forms import LICENCE_SPELLING, OLD_FORM
from .feedstock import KEY_ORDER
from .report import Report
from .text import MARK

UNKNOWN_ID = rule("finding-unknown", "Each finding has a section in the manual under its id.")

FIXABLE = frozenset(found.id for found in (KEY_ORDER, LICENCE_SPELLING, MARK, OLD_FORM))
"""What ``feedstock lint --fix`` rewrites, mostly."""

MAX_COMMENT = 60_000
"""Characters; GitHub refuses comments of more than 65,536."""

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.HINT: "cyan"}


def text(report: Report) -> str:
    """For people at a terminal: grouped by file, with colour where there is a terminal that wants it."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def style(words: str, **look: Any) -> str:
        return click.style(words, **look) if colour else words

    lines: list[str] = []
    explained: set[str] = set()
    for file, findings in _by_file(report):
        lines += ["", style(file, bold=True)] if lines else [style(file, bold=True)]
        for finding in findings:
            severity = style(finding.severity, fg=_COLOURS[finding.severity])
            identity = style(f"[{finding.id}]", dim=True)
            lines.append(f"  {_position(finding.place):>7}  {severity}  {finding.message}  {identity}")
            lines.append(f"           fix: {finding.fix}")
            if finding.who is not Who.CONTRIBUTOR:
                lines.append(f"           who: {finding.who}")
            if finding.id not in explained:
                explained.add(finding.id)
                lines.append(style(f"           why: {finding.rule.why}", dim=True))
    if lines:
        lines.append("")
    lines += [f"not checked: {note}" for note in report.notes]
    lines.append(summary(report))
    if report.findings:
        lines.append("`feedstock lint --explain ID` prints what the manual says about a finding.")
    return "\n".join(lines) + "\n"


def summary(report: Report) -> str:
    """One line: how much was found, in how much."""
    counts = [_number(report.count(severity), severity) for severity in Severity if report.count(severity)]
    of = [
        _number(count, word) for count, word in ((report.feedstocks, "feedstock"), (report.bakeries, "bakery")) if count
    ]
    looked = f" in {_number(report.files, 'file')}{' of ' if of else ''}{' and '.join(of)}" if report.files else ""
    fixable = 0 if report.fixed else sum(1 for finding in report.findings if finding.id in FIXABLE)
    mend = f" `feedstock lint --fix` may rewrite {fixable}." if fixable else ""
    return f"{', '.join(counts) or 'Nothing wrong'}{looked}.{mend}"


def as_json(report: Report) -> str:
    """For programs: one object, whose keys only grow."""
    import json

    findings = [
        {
            "id": finding.id,
            "severity": finding.severity,
            "file": finding.place.file if finding.place else None,
            "line": finding.place.line if finding.place else None,
            "column": finding.place.column if finding.place else None,
            "message": finding.message,
            "why": finding.rule.why,
            "fix": finding.fix,
            "who": finding.who,
            "documentation": finding.documentation,
        }
        for finding in report.findings
    ]
    document = {
        "format": 1,
        "forge": __version__,
        "summary": {
            "errors": report.count(Severity.ERROR),
            "warnings": report.count(Severity.WARNING),
            "hints": report.count(Severity.HINT),
            "files": report.files,
            "feedstocks": report.feedstocks,
            "bakeries": report.bakeries,
        },
        "findings": findings,
        "not_checked": report.notes,
    }
    return json.dumps(document, indent=2) + "\n"


_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.HINT: "notice"}


def github(report: Report) -> str:
    """Annotations: https://docs.github.com/actions/reference/workflow-commands-for-github-actions."""
    lines = []
    for finding in report.findings:
        properties = {"title": finding.id}
        if finding.place:
            properties["file"] = os.fsencode(_relative(finding.place.file)).decode(errors="replace")
            if finding.place.line:
                properties |= {"line": str(finding.place.line), "col": str(finding.place.column or 1)}
        listed = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
        message = f"{finding.message}\nfix: {finding.fix}\nwhy: {finding.rule.why}"
        lines.append(f"::{_COMMANDS[finding.severity]} {listed}::{_data(message)}")
    # A file's name may hold a line break: what is no command is shown without any.
    lines += [visible(f"not checked: {note}") for note in report.notes]
    return "\n".join([*lines, summary(report)]) + "\n"


def _data(words: str) -> str:
    return words.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(words: str) -> str:
    return _data(words).replace(":", "%3A").replace(",", "%2C")


def as_markdown(report: Report) -> str:
    """A pull request's comment: what a reviewer must know first, and nothing that a file could have forged."""
    from .. import markdown

    verdict = "✗" if report.count(Severity.ERROR) else "✓"
    head = [f"### {verdict} Lint: {summary(report)}", ""]
    tail = [f"_Not checked: {markdown.escape(note)}_" for note in report.notes]
    room = MAX_COMMENT - sum(len(line) + 1 for line in head + tail)
    body: list[str] = []
    for number, block in enumerate(_blocks(report)):
        if (room := room - len(block) - 1) < 200:
            body.append(f"\n… and more: {len(report.findings) - number} in all were left out here.")
            break
        body.append(block)
    return "\n".join([*head, *body, "", *tail]).rstrip() + "\n"


def _blocks(report: Report) -> Iterator[str]:
    from .. import markdown

    for file, findings in _by_file(report):
        heading = f"**{markdown.code(file)}**\n\n"
        for finding in findings:
            place = f"{_position(finding.place)} " if finding.place and finding.place.line else ""
            who = "" if finding.who is Who.CONTRIBUTOR else f" · who: {finding.who}"
            yield (
                f"{heading}- {place}**{finding.severity}** {markdown.sentence(finding.message)}\n"
                f"  **Fix:** {markdown.sentence(finding.fix)}{who} · `{finding.id}`"
            )
            heading = ""


_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.HINT: "note"}


def sarif(report: Report) -> str:
    """For code scanning: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html."""
    import json

    rules = {finding.id: finding.rule for finding in report.findings}
    index = {name: number for number, name in enumerate(rules)}
    run = {
        "tool": {
            "driver": {
                "name": "Feedstock Forge",
                "version": __version__,
                "rules": [
                    {
                        "id": declared.id,
                        "shortDescription": {"text": declared.id.replace("-", " ")},
                        "fullDescription": {"text": declared.why},
                        "help": {"text": f"{declared.why} See {DOCUMENTATION}#{declared.id}."},
                        "defaultConfiguration": {"level": _LEVELS[declared.severity]},
                    }
                    for declared in rules.values()
                ],
            }
        },
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, index[finding.id]) for finding in report.findings],
    }
    document = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [run],
    }
    return json.dumps(document, indent=2) + "\n"


def _result(finding: Finding, rule_index: int) -> dict[str, Any]:
    from urllib.parse import quote

    place = finding.place or Place(".")
    location: dict[str, Any] = {"artifactLocation": {"uri": quote(_relative(place.file), errors="surrogateescape")}}
    if place.line:
        location["region"] = {"startLine": place.line, "startColumn": place.column or 1}
    return {
        "ruleId": finding.id,
        "ruleIndex": rule_index,
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.message}\nFix: {finding.fix}"},
        "locations": [{"physicalLocation": location}],
    }


FORMATS: dict[str, Callable[[Report], str]] = {
    "text": text,
    "json": as_json,
    "github": github,
    "markdown": as_markdown,
    "sarif": sarif,
}


def explain(finding_id: str) -> str:
    """The manual's section about a finding. Raises :class:`Refused` if it has none."""
    package = Path(__file__).parents[1]
    manual = next(
        path for path in (package.parents[1] / DOCUMENTATION, package / Path(DOCUMENTATION).name) if path.is_file()
    )
    sections = re.split(r"^## `([a-z-]+)`$", manual.read_text(encoding="utf-8"), flags=re.MULTILINE)
    known = dict(zip(sections[1::2], sections[2::2], strict=True))
    if finding_id not in known:
        raise Refused(UNKNOWN_ID.at(None, f"there is no finding `{finding_id}`", did_you_mean(finding_id, list(known))))
    return f"{finding_id}\n\n{known[finding_id].strip()}"


def _by_file(report: Report) -> Iterator[tuple[str, Iterator[Finding]]]:
    return groupby(report.findings, key=lambda finding: finding.place.shown if finding.place else "(no file)")


def _position(place: Place | None) -> str:
    return f"{place.line}:{place.column or 1}" if place and place.line else "-"


def _relative(file: str) -> str:
    """A path as the repository names it, where it lies below this folder."""
    absolute, here = os.path.normpath(Path(file).absolute()), Path.cwd()  # `..` counts, links do not
    path = Path(absolute)
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else absolute


def _number(count: int, word: str) -> str:
    plural = f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
    return f"{count} {word if count == 1 else plural}"
