"""The bakery database of a forge: each bakery.yaml and each grant, as its operators write them.

What they must be is said in :mod:`feedstock_forge.labels.grants`, which `feedstock bakery check` and the check of a
grant's pull request ask too.
"""

from __future__ import annotations

from pathlib import Path

from ..bakery import Bakeries
from ..labels import grants
from . import text
from .report import Report
from .targets import BAKERY_FILE, GRANTS


def lint_bakery(folder: Path, report: Report) -> None:
    """Look at a bakery's folder: its bakery.yaml and its grants."""
    report.bakeries += 1
    folder = folder if folder.name else folder.absolute()
    text.check(folder / BAKERY_FILE, folder, report)
    inside = folder / GRANTS
    for path in sorted(inside.iterdir()) if inside.is_dir() else []:
        if path.suffix in (".yaml", ".yml"):
            text.check(path, inside, report)
    report.findings += grants.check_bakery(Bakeries(folder.parent), folder.name)


def lint_grant(path: Path, report: Report) -> None:
    """Look at one grant, held against the bakery in whose folder it is."""
    text.check(path, path.parent, report)
    path = path if len(path.parts) > 2 and ".." not in path.parts else path.absolute()
    folder = path.parents[1]
    found = grants.check_bakery(Bakeries(folder.parent), folder.name)
    report.findings += [finding for finding in found if finding.place and finding.place.file == str(path)]
