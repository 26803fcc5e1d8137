"""What a recipe's pull request would become, told by reading its files: nothing of it is imported or run.

This is what the job with a token looks at by itself. What only running can tell comes from the trial.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import git, lint, meta
from ..bakery import Bakeries
from ..findings import Finding, Place, Refused, Severity, below, rule
from ..github import GitHub
from ..meta import ANSWERS, FILE, LabelRequest, Meta
from ..yaml_file import read_yaml
from .feedstock import Source, Template, files, of_staged
from .folders import RECIPES
from .trial import MAX_FOLDERS, NAME

OUTSIDE = rule(
    "recipe-pull-outside",
    "A pull request that changes more than recipes could change what checks it.",
)
TOO_MANY = rule("recipe-pull-too-large", "Nobody reviews that many recipes at once, and one that fails stops all.")
BAD_FOLDER = rule("recipe-folder-invalid", "The folder's name becomes the feedstock's and its repository's.")

_SHOWN_FILES = 10


@dataclass(frozen=True, slots=True)
class Ask:
    """One label that a recipe asks for, and who decides."""

    wish: LabelRequest
    decides: str
    """In words, such as ``open to all``."""
    people: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FolderPreview:
    """One recipe folder, and the feedstock that it would become."""

    folder: str
    meta: Meta | None
    findings: tuple[Finding, ...]
    asks: tuple[Ask, ...]
    files: tuple[str, ...]
    """The generated feedstock's files."""

    @property
    def errors(self) -> list[Finding]:
        """What has to be mended."""
        return [finding for finding in self.findings if finding.severity is Severity.ERROR]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a pull request changes, folder by folder."""

    repository: str
    number: int
    commit: str
    folders: tuple[FolderPreview, ...]
    findings: tuple[Finding, ...]
    """What is wrong with the pull request as a whole."""


def changed(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """The recipe folders that hold some of the paths, and the paths outside of any; both sorted."""
    folders: set[str] = set()
    outside: set[str] = set()
    for path in paths:
        parts = path.split("/")
        if len(parts) > 2 and parts[0] == RECIPES:
            folders.add(parts[1])
        else:
            outside.add(path)
    return sorted(folders), sorted(outside)


def whole(folders: Sequence[str], outside: Sequence[str]) -> list[Finding]:
    """What is wrong with a pull request that changes these, whatever stands in its files."""
    found = []
    if folders and outside:
        named = ", ".join(f"`{path}`" for path in outside[:_SHOWN_FILES])
        more = f" and {len(outside) - _SHOWN_FILES} more" if len(outside) > _SHOWN_FILES else ""
        fix = "take them out of this pull request; propose them in one of their own"
        found.append(OUTSIDE.at(Place(outside[0]), f"it also changes {named}{more}", fix))
    if len(folders) > MAX_FOLDERS:
        message = f"it changes {len(folders)} recipe folders; at most {MAX_FOLDERS} are looked at"
        found.append(TOO_MANY.at(None, message, "propose a few recipes at a time"))
    found += [
        BAD_FOLDER.at(Place(f"{RECIPES}/{name}"), f"{name!a} cannot name a feedstock", "use a-z, digits and hyphens")
        for name in folders[:MAX_FOLDERS]
        if not is_folder(name)
    ]
    return found


def is_folder(name: str) -> bool:
    """Whether a recipe folder can be called so."""
    return re.fullmatch(NAME, name, re.ASCII) is not None


def look(client: GitHub, repository: str, pull: Mapping[str, Any], server: str, bakeries: Bakeries) -> Preview:
    """Look at a pull request. Raises :class:`Refused` if GitHub or git cannot be asked."""
    number, commit = int(pull["number"]), str(pull["head"]["sha"])
    rows = client.pull_files(repository, number)
    # A file that moves away is as much of a change to where it was.
    paths = {str(row[key]) for row in rows for key in ("filename", "previous_filename") if row.get(key)}
    folders, outside = changed(sorted(paths))
    findings = whole(folders, outside)
    with tempfile.TemporaryDirectory() as scratch:
        clone, tree = Path(scratch, "clone"), Path(scratch, "tree")
        clone.mkdir()
        tree.mkdir()
        # From this repository, which has the commits of its pull requests, wherever from; it may be private.
        url = git.clone_url(server, repository)
        here = git.fetch(url, commit, clone, token=client.token, server=server)
        sound = [name for name in folders[:MAX_FOLDERS] if is_folder(name)]
        present = [name for name in sound if here.ask("rev-parse", "--verify", f"{commit}:{RECIPES}/{name}")]
        for name in present:
            here.extract(commit, f"{RECIPES}/{name}", tree)
        template = _template(client, repository, Path(scratch), server) if present else None
        with Source(template) if template else nullcontext() as source:
            found = tuple(_becomes(folder(tree, name, bakeries), here, commit, source, repository) for name in present)
    return Preview(repository, number, commit, found, tuple(findings))


def folder(root: Path, name: str, bakeries: Bakeries) -> FolderPreview:
    """Look at the recipe folder of this name in a checkout of staged recipes."""
    path = root / RECIPES / name
    report = lint.lint([path], lint.Options(bakeries=bakeries))
    findings = tuple(below(finding, root) for finding in report.findings)
    try:
        declared, _ = meta.check(read_yaml(path / FILE, within=path), name)
    except Refused:
        declared = None
    asks = tuple(_ask(wish, bakeries) for wish in declared.bakeries) if declared else ()
    return FolderPreview(name, declared, findings, asks, ())


def _template(client: GitHub, repository: str, scratch: Path, server: str) -> Template | None:
    """The template that the staged recipes came from, by their default branch; ``None`` if that does not say."""
    content = client.file(repository, ANSWERS)
    if content is None:
        return None
    (scratch / ANSWERS).write_text(content, encoding="utf-8")
    return dataclasses.replace(of_staged(scratch), server=server)


def _becomes(
    seen: FolderPreview, here: git.Repository, commit: str, source: Source | None, staged: str
) -> FolderPreview:
    """The same folder, with the files of the feedstock, or with what keeps it from becoming one."""
    if source is None or seen.errors:
        return seen
    try:
        return dataclasses.replace(seen, files=files(here, commit, seen.folder, source, staged))
    except Refused as refused:
        return dataclasses.replace(seen, findings=(*seen.findings, *refused.findings))


def _ask(wish: LabelRequest, bakeries: Bakeries) -> Ask:
    try:
        bakery = bakeries.read(wish.id).bakery
    except Refused as refused:
        return Ask(wish, refused.findings[0].message)
    spec = bakery.labels.get(wish.label)
    people = tuple(operator.github for operator in bakery.operators)
    if spec is None:
        return Ask(wish, f"there is no label {wish.label}", people)
    if bakery.closed or spec.grants == "closed":
        return Ask(wish, "closed", people)
    if spec.grants == "open":
        return Ask(wish, "open to every feedstock", people)
    return Ask(wish, "on request, once the feedstock is there", people)
