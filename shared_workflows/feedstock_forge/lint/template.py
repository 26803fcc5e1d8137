"""The generated files of a feedstock, compared with what the template renders from the recorded answers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..findings import Finding, Place, Refused, Severity, Who, rule
from ..git import github_name
from ..meta import ANSWERS
from ..yaml_file import read_text, read_yaml
from .workflows import FOLDER

CHANGED = rule(
    "workflow-changed",
    "The next update of the template would overwrite the change, or stop at it.",
    severity=Severity.WARNING,
    who=Who.MAINTAINER,
)
NOT_RENDERED = rule(
    "template-not-rendered",
    "Only the template can say what its files should look like.",
    severity=Severity.WARNING,
    who=Who.ORGANISATION,
)


def compare(folder: Path, forge: Path) -> Iterator[Finding]:
    """The findings about a feedstock's generated workflows; ``forge`` is a checkout with the template's history."""
    try:
        answers = read_yaml(folder / ANSWERS, within=folder).data
    except Refused as refused:
        yield from refused.findings
        return
    with tempfile.TemporaryDirectory(prefix="feedstock-lint-") as scratch:
        rendered = Path(scratch)
        try:
            _render(forge, rendered, answers)
        except Exception as error:  # Copier and Jinja raise many kinds; whichever it is, nothing was compared.
            fix = f"check that {forge} holds the template at {answers.get('_commit', 'its newest version')}"
            message = f"the template cannot be rendered: {type(error).__name__}: {error}"
            yield NOT_RENDERED.at(Place(str(folder / ANSWERS)), message, fix)
            return
        for path in sorted((rendered / FOLDER).glob("*.yml")):
            yield from _differs(folder, FOLDER / path.name, path.read_text(encoding="utf-8"))


def _render(forge: Path, into: Path, answers: dict[str, Any]) -> None:
    import copier

    version = answers.get("_commit") if (forge / ".git").exists() else None
    data = {key: value for key, value in answers.items() if not key.startswith("_")}
    # Where the feedstock was generated from GitHub, that address is the answer; this checkout's would be another.
    if origin := github_name(str(answers.get("_src_path"))):
        data.setdefault("forge", origin)
    # Without `unsafe`: a template that wants to run something is not rendered.
    copier.run_copy(str(forge), into, data=data, vcs_ref=version, defaults=True, quiet=True)


def _differs(folder: Path, name: Path, wanted: str) -> Iterator[Finding]:
    path = folder / name
    try:
        found = read_text(path, within=folder)
    except Refused:
        return  # That it is missing or unreadable is said elsewhere.
    if found == wanted:
        return
    lines = zip([*found.splitlines(), ""], [*wanted.splitlines(), ""], strict=False)
    number, line = next(((n, want) for n, (have, want) in enumerate(lines, 1) if have != want), (1, ""))
    message = f"{name} is not what the template renders: this line should be {line.strip() or 'empty'!r}"
    yield CHANGED.at(Place(str(path), number, 1), message, "run `copier update`, or `copier recopy` to restore it")
