"""Findings: everything the forge has to say against something, as values until the edge prints them.

A :class:`Rule` is declared once, beside the code that applies it, and has a stable id with a section of the
same name in ``docs/findings.md``. Applying a rule to a place gives a :class:`Finding`. Code that cannot go on
raises :class:`Refused` with the findings that explain why.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

DOCUMENTATION = "docs/findings.md"


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
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)


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


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of finding. Create it with :func:`rule`, which keeps the ids unique."""

    id: str
    severity: Severity
    who: Who
    why: str

    def at(self, place: Place | None, message: str, fix: str) -> Finding:
        """Apply the rule to a place: ``message`` says what is wrong there, ``fix`` what to write or run."""
        return Finding(self, message, fix, place)


RULES: dict[str, Rule] = {}


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
        return "; ".join(f"{finding.id}: {finding.message}" for finding in self.findings)


def text(finding: Finding) -> str:
    """A finding for a terminal: id and place first, then what is wrong, what to do, and who can."""
    where = f"{finding.place}: " if finding.place else ""
    lines = [f"{where}{finding.severity}[{finding.id}] {finding.message}"]
    if finding.fix:
        lines.append(f"    fix: {finding.fix}")
    if finding.who is not Who.CONTRIBUTOR:
        lines.append(f"    who: {finding.who}")
    return "\n".join(lines)


def refuse_errors(findings: Iterable[Finding]) -> None:
    """Raise :class:`Refused` with the errors among ``findings``, if there are any."""
    errors = tuple(finding for finding in findings if finding.severity is Severity.ERROR)
    if errors:
        raise Refused(*errors)
