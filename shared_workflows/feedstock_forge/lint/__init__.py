"""Lint: everything that can be told about feedstocks and bakeries by reading their files, and nothing else.

No recipe is imported and no network is asked. What is found comes back as findings; what could not be checked comes
back as notes.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..findings import Finding, Place, Refused
from ..yaml_file import UNREADABLE
from . import feedstock, targets
from .report import Options, Report
from .requests import Requests
from .targets import Kind, Target

__all__ = ["Options", "Report", "fix", "lint"]


def lint(paths: Iterable[Path], options: Options) -> Report:
    """Look at every feedstock, bakery and file among ``paths``, in their order. Never raises for what it finds."""
    report = Report()
    requests = Requests(options.bakeries)
    seen: set[Path] = set()
    for path in paths:
        try:
            found = targets.find(path)
            if not found:
                report.findings.append(targets.nothing(path))
            for target in found:
                if (key := target.path.absolute()) not in seen:
                    seen.add(key)
                    _look(target, options, requests, report)
        except OSError as error:
            where = str(error.filename or path)
            report.findings.append(
                UNREADABLE.at(Place(where), f"cannot read {where}: {error.strerror}", "check its permissions")
            )
    report.findings = _ordered(report.findings)
    return report


def fix(paths: Iterable[Path], options: Options) -> list[Path]:
    """Rewrite what is mechanical in every meta.yaml among ``paths``; returns those that changed.

    What cannot be read is left alone: :func:`lint` says why.
    """
    from .rewrite import fix_file

    rewritten = []
    for target in dict.fromkeys(target for path in paths for target in targets.find(path)):
        if named := feedstock.meta_of(target, options):
            with suppress(Refused, OSError):
                if fix_file(*named):
                    rewritten.append(named[0])
    return rewritten


def _look(target: Target, options: Options, requests: Requests, report: Report) -> None:
    match target.kind:
        case Kind.FEEDSTOCK:
            feedstock.lint_feedstock(target.path, options, requests, report)
        case Kind.RECIPE:
            feedstock.lint_recipe(target.path, options, requests, report)
        case Kind.META:
            feedstock.lint_file(target.path, options, requests, report)
        case Kind.BAKERY | Kind.GRANT:
            from . import databases  # which feedstocks do not need

            look = databases.lint_bakery if target.kind is Kind.BAKERY else databases.lint_grant
            look(target.path, report)
        case Kind.MISPLACED:
            report.findings.append(targets.misplaced(target.path))
        case Kind.UNKNOWN:
            report.findings.append(targets.unknown(target.path))


def _ordered(findings: list[Finding]) -> list[Finding]:
    """Each finding once; the files in the order they were read, each of them from top to bottom."""
    files: dict[str, int] = {}
    for finding in findings:
        files.setdefault(finding.place.file if finding.place else "", len(files))

    def position(finding: Finding) -> tuple[int, int, int]:
        place = finding.place or Place("")
        return files[place.file], place.line or 0, place.column or 0

    return sorted(dict.fromkeys(findings), key=position)
