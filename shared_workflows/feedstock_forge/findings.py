"""Findings: everything the forge has to say against something, as values until the edge prints them.

A :class:`Rule` is declared once, beside the code that applies it, and has a stable id with a section of the
same name in ``docs/findings.md``. Applying a rule to a place gives a :class:`Finding`. Code that cannot go on
raises :class:`Refused` with the findings that explain why.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

DOCUMENTATION = "docs/findings.md"

MAX_TEXT = 400
"""Characters of a message or a fix: what a person reads, however long the value that a stranger wrote."""

# Whatever moves the cursor, hides or reorders text: C0 and C1 controls, line and paragraph separators, zero width,
# bidirectional controls and tags. https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


class Severity(StrEnum):
    """How much a finding weighs: an error refuses, a warning asks, a hint offers."""

    ERROR = "error"
    WARNING = "warning"
    HINT = "hint"


class Who(StrEnum):
    """Who can act on a finding; the roles of the design."""

    CONTRIBUTOR = "contributor"
    MAINTAINER = "feedstock maintainer"
    OPERATOR = "bakery operator"
    ORGANISATION = "organisation maintainer"


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a file; line and column count from 1, as editors do."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        """Format as ``file:line:column``, which terminals and editors turn into links."""
        return ":".join(str(part) for part in (self.shown, self.line, self.column) if part is not None)

    @property
    def shown(self) -> str:
        """The file for a line of output: whoever named it can neither hide something nor command GitHub's runner."""
        shown = visible(self.file)
        return f"./{shown}" if shown.startswith((":", "#")) else shown


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: its rule, its place, what it is and what to do."""

    rule: Rule
    message: str
    fix: str
    place: Place | None = None

    @property
    def id(self) -> str:
        """The stable id, also the anchor in the manual."""
        return self.rule.id

    @property
    def severity(self) -> Severity:
        """The severity of the rule."""
        return self.rule.severity

    @property
    def who(self) -> Who:
        """Who can act on it."""
        return self.rule.who

    @property
    def documentation(self) -> str:
        """Where the manual explains it."""
        return f"{DOCUMENTATION}#{self.id}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of finding. Create it with :func:`rule`, which keeps the ids unique."""

    id: str
    severity: Severity
    who: Who
    why: str

    def at(self, place: Place | None, message: str, fix: str) -> Finding:
        """Apply the rule to a place: ``message`` says what is wrong there, ``fix`` what to write or run.

        Both may quote what a stranger wrote: here it becomes short and visible, once for every output.
        """
        return Finding(self, _one_line(message), _one_line(fix), place)


def visible(words: str) -> str:
    """Text with every character that could hide, reorder or overwrite something written as its escape."""
    return _INVISIBLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), words)


def _one_line(words: str) -> str:
    words = visible(re.sub(r"\s*\n\s*", " ", words[: 4 * MAX_TEXT]))
    return words if len(words) <= MAX_TEXT else f"{words[: MAX_TEXT - 60]} … {words[-50:]}"


def did_you_mean(word: str, known: Collection[str]) -> str:
    """``did you mean `x`?``, or the known words where none is near."""
    if len(word) <= 100 and known:
        import difflib

        lower = {name.lower(): name for name in known}
        if near := difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6):
            return f"did you mean `{lower[near[0]]}`?"
    listed = [f"`{name}`" for name in list(known)[:12]]
    more = " …" if len(known) > len(listed) else ""
    return f"write one of {', '.join(listed)}{more}" if listed else "remove it"


RULES: dict[str, Rule] = {}
_ID = re.compile(r"[a-z][a-z0-9-]{1,60}")


def rule(id: str, why: str, *, severity: Severity = Severity.ERROR, who: Who = Who.CONTRIBUTOR) -> Rule:  # noqa: A002
    """Declare a rule. Raises ``ValueError`` if the id is taken: ids are a promise to users."""
    if id in RULES:
        raise ValueError(f"the finding id {id!r} is declared twice")
    RULES[id] = declared = Rule(id, severity, who, why)
    return declared


class Refused(Exception):  # noqa: N818 - reads as what happened
    """The forge will not go on; ``findings`` say why. Never raised for a fault of the forge itself."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__(*findings)
        self.findings = findings

    def __str__(self) -> str:
        """One line, for logs that show only the exception."""
        return "; ".join(
            f"{finding.id}: {finding.message}" + (f" (fix: {finding.fix})" if finding.fix else "")
            for finding in self.findings
        )


def text(finding: Finding) -> str:
    """A finding for a terminal: id and place first, then what is wrong, what to do, and who can."""
    where = f"{finding.place}: " if finding.place else ""
    lines = [f"{where}{finding.severity}[{finding.id}] {finding.message}"]
    if finding.fix:
        lines.append(f"    fix: {finding.fix}")
    if finding.who is not Who.CONTRIBUTOR:
        lines.append(f"    who: {finding.who}")
    return "\n".join(lines)


def as_data(finding: Finding) -> dict[str, Any]:
    """A finding for another process of the forge, its rule included; :func:`of_data` makes it one again there."""
    place = asdict(finding.place) if finding.place else None
    return {"rule": asdict(finding.rule), "message": finding.message, "fix": finding.fix, "place": place}


def of_data(data: Mapping[str, Any]) -> Finding:
    """The finding of :func:`as_data`. Raises ``KeyError``, ``TypeError`` or ``ValueError`` if it is none.

    Its rule may be one that nobody has declared here: who runs a recipe imports nothing of what the recipe uses.
    """
    place = Place(**data["place"]) if data["place"] else None
    name, severity, who, why = (str(data["rule"][key]) for key in ("id", "severity", "who", "why"))
    if not _ID.fullmatch(name):
        raise ValueError(f"{name[:60]!r} is no finding id")
    declared = RULES.get(name) or Rule(name, Severity(severity), Who(who), _one_line(why))
    return declared.at(place, str(data["message"]), str(data["fix"]))


def below(finding: Finding, root: Path) -> Finding:
    """The same finding, its place told from ``root`` where it is in there: as a reader of the repository knows it."""
    place = finding.place
    if place is None or not Path(place.file).is_relative_to(root):
        return finding
    return replace(finding, place=replace(place, file=str(Path(place.file).relative_to(root))))


def refuse_errors(findings: Iterable[Finding]) -> None:
    """Raise :class:`Refused` with the errors among ``findings``, if there are any."""
    errors = tuple(finding for finding in findings if finding.severity is Severity.ERROR)
    if errors:
        raise Refused(*errors)
