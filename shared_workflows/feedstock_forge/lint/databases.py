"""The bakery database of a forge: each bakery.yaml and each grant, as its operators write them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

from ..bakery import BAD_ID, MISNAMED, UNKNOWN_LABEL, Bakery, Grant, is_bakery_id
from ..findings import Finding, Place, Refused, Severity, Who, did_you_mean, rule
from ..meta import slug
from ..models import shown, validate
from ..yaml_file import Document, read_yaml
from . import text
from .report import Report
from .targets import BAKERY_FILE, GRANTS

ENDED = rule("grant-ended", "An ended grant grants nothing.", severity=Severity.HINT, who=Who.OPERATOR)


def lint_bakery(folder: Path, report: Report) -> None:
    """Look at a bakery's folder: its bakery.yaml and its grants."""
    report.bakeries += 1
    path = folder / BAKERY_FILE
    text.check(path, folder, report)
    bakery = None
    try:
        document = read_yaml(path, within=folder)
        bakery = validate(Bakery, document)
    except Refused as refused:
        report.findings += refused.findings
    name = folder.absolute().name
    if not is_bakery_id(name):
        fix = "name the folder in lower-case words joined by dots or hyphens: `ldeo.aws.us-west-2`"
        report.findings.append(BAD_ID.at(Place(str(path)), f"{shown(name)} is not a bakery id", fix))
    grants = folder / GRANTS
    if grants.is_dir():
        for path in sorted(grants.iterdir()):
            if path.suffix in (".yaml", ".yml"):
                lint_grant(path, report, labels=list(bakery.labels) if bakery else None)


def lint_grant(path: Path, report: Report, *, labels: list[str] | None = None) -> None:
    """Look at a grant; ``labels`` are those of its bakery, where they are known."""
    text.check(path, path.parent, report)
    try:
        document = read_yaml(path, within=path.parent)
        grant = validate(Grant, document)
    except Refused as refused:
        report.findings += refused.findings
        return
    report.findings += _grant(path, grant, document, labels)


def _grant(path: Path, grant: Grant, document: Document, labels: list[str] | None) -> Iterator[Finding]:
    feedstock = slug(grant.repository)
    names = (f"{feedstock}.yaml", f"{feedstock}.{grant.label}.yaml")
    if path.name not in names:
        message = f"the grant to {grant.repository} stands in {path.name}"
        yield MISNAMED.at(document.place(("repository",)), message, f"name the file {names[0]} or {names[1]}")
    if labels is not None and grant.label not in labels:
        fix = did_you_mean(grant.label, labels)
        yield UNKNOWN_LABEL.at(document.place(("label",)), f"the bakery has no label `{grant.label}`", fix)
    if grant.expires is not None and grant.expires < datetime.date.today():
        fix = "remove the file, or move the date"
        yield ENDED.at(document.place(("expires",)), f"the grant ended on {grant.expires}", fix)
