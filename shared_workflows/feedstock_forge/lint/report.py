"""What lint is told, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..bakery import Bakeries
from ..findings import Finding, Severity


@dataclass(frozen=True, slots=True)
class Options:
    """What the person who lints knows and the files do not say."""

    bakeries: Bakeries | None = None
    """The bakery database to look labels up in; without one they are not looked up."""
    repository: str | None = None
    """``owner/name`` of the feedstock, where its git configuration does not tell."""
    release: str | None = None
    """The tag of a release that is about to be published."""
    template: Path | None = None
    """A checkout of the forge, to render the generated files from."""


@dataclass(slots=True)
class Report:
    """What was looked at and what was found."""

    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    feedstocks: int = 0
    bakeries: int = 0
    notes: list[str] = field(default_factory=list)
    """What was not checked, and how to have it checked."""
    fixed: bool = False
    """Whether what is mechanical has just been rewritten, so that what is left is a person's to write."""

    def count(self, severity: Severity) -> int:
        """How many findings weigh so much."""
        return sum(1 for finding in self.findings if finding.severity is severity)

    def note(self, words: str) -> None:
        """Say once what was not checked."""
        if words not in self.notes:
            self.notes.append(words)
