"""The files that the template generates: there, pinned to one commit of the forge, and as the template renders them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..findings import Finding, Place, Refused, Severity, Who, rule
from ..meta import ANSWERS
from ..yaml_file import read_text
from .report import Options, Report

MISSING = rule(
    "workflow-missing",
    "The workflows are what checks a change and registers a release; without them nothing happens, silently.",
    severity=Severity.WARNING,
    who=Who.MAINTAINER,
)
NOT_PINNED = rule(
    "workflow-not-pinned",
    "Whoever moves a branch or a tag changes what runs here; a commit cannot be moved.",
    who=Who.MAINTAINER,
)
SEVERAL_PINS = rule(
    "workflow-pins-differ",
    "The forge's workflows belong together and are tested together, at one commit.",
    who=Who.MAINTAINER,
)
FOLDER = Path(".github", "workflows")
GENERATED = ("check.yml", "register.yml")

_USES = re.compile(r"""^\s*(?:-\s+)?["']?uses["']?\s*:\s*["']?([^\s"'#]+)["']?""")
_SHA = re.compile(r"[0-9a-f]{40}")
_FORGE = re.compile(r"([^/@]+/[^/@]+)/\.github/workflows/[^/@]+\.ya?ml@(.+)")


def check(folder: Path, options: Options, report: Report) -> Iterator[Finding]:
    """The findings about the generated workflows of a feedstock."""
    pins: dict[str, Place] = {}
    for name in GENERATED:
        path = folder / FOLDER / name
        try:
            lines = read_text(path, within=folder).splitlines()
        except Refused as refused:
            if not path.exists():
                generated = (folder / ANSWERS).exists()
                fix = "run `copier update`" if generated else "generate the feedstock from the template"
                yield MISSING.at(Place(str(path)), f"there is no {FOLDER / name}", fix)
            else:
                yield from refused.findings
            continue
        for number, line in enumerate(lines, start=1):
            if match := _USES.match(line):
                place = Place(str(path), number, match.start(1) + 1)
                used = match[1]
                if not used.startswith(("./", "$/", "docker://")) and not _SHA.fullmatch(used.rpartition("@")[2]):
                    fix = f"write `{used.partition('@')[0]}@<full commit SHA> # <version>`"
                    yield NOT_PINNED.at(place, f"`{used}` is not pinned to a commit", fix)
                elif forge := _FORGE.fullmatch(used):
                    pins.setdefault(forge[2], place)
    if len(pins) > 1:
        (first, _), (other, place) = list(pins.items())[:2]
        message = f"this workflow is pinned to {other[:12]}, another one to {first[:12]}"
        yield SEVERAL_PINS.at(place, message, "run `copier update`, which moves them together")
    if (folder / ANSWERS).exists():
        if options.template is None:
            report.note("Generated files were not compared with the template (--template FOLDER).")
        else:
            from . import template  # which needs more than reading files does

            yield from template.compare(folder, options.template)
