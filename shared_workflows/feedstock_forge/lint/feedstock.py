"""One feedstock, or one folder of staged recipes: its meta.yaml, its code, and everything that reviewers read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from .. import entry_points, meta
from ..findings import Finding, Place, Refused, Severity, rule
from ..meta import FILE, FOLDER, OTHER_ID, Meta, slug
from ..models import MAX_FINDINGS
from ..yaml_file import Document, Loc, read_text, read_yaml
from . import leftovers, requirements, text, workflows
from .report import Options, Report
from .requests import Requests
from .targets import Kind, Target

NO_REQUIREMENTS = rule(
    "requirements-missing",
    "Without a list of requirements the recipe runs with whatever its bakery happens to have installed.",
    severity=Severity.HINT,
)
KEY_ORDER = rule(
    "meta-key-order",
    "Reviewers of many feedstocks find a value faster where it always stands.",
    severity=Severity.HINT,
)

_ORIGIN = re.compile(r'^\[remote "origin"\][^\[]*?\n[ \t]*url[ \t]*=[ \t]*(\S{1,500})', re.MULTILINE)
_REPOSITORY = re.compile(r"[:/]([\w.-]+)/([\w.-]+?)(?:\.git)?/?$", re.ASCII)


def lint_feedstock(folder: Path, options: Options, requests: Requests, report: Report) -> None:
    """Look at a feedstock repository."""
    repository = options.repository or repository_of(folder)
    name = repository or folder.resolve().name
    checked = _lint_meta(folder / FOLDER / FILE, folder, name, requests, report, named=repository is not None)
    text.check_folder(folder / FOLDER, folder, report)
    text.check_folder(folder / ".github", folder, report)
    for path in _own_files(folder):
        text.check(path, folder, report)
    report.findings += workflows.check(folder, options, report)
    report.findings += leftovers.check(folder)
    if checked is not None and options.release is not None:
        from . import release  # which starts git

        report.findings += release.check(folder, *checked, options.release)


def lint_recipe(folder: Path, options: Options, requests: Requests, report: Report) -> None:
    """Look at a folder of staged recipes; its name is that of the feedstock that it would become."""
    name = options.repository or folder.resolve().name
    _lint_meta(folder / FILE, folder, name, requests, report, named=True)
    text.check_folder(folder, folder, report)


def lint_file(path: Path, options: Options, requests: Requests, report: Report) -> None:
    """Look at a meta.yaml by itself, under a name such as ``noaa-oisst_meta.yaml``."""
    _lint_meta(path, path.parent, _named(path, options), requests, report, named=False, alone=True)
    text.check(path, path.parent, report)
    report.note("Recipes were not looked for beside files that are not called meta.yaml.")


def meta_of(target: Target, options: Options) -> tuple[Path, Path, str] | None:
    """The meta.yaml of a target, the folder that it must not leave, and its repository; None if it has none."""
    folder = target.path
    match target.kind:
        case Kind.FEEDSTOCK:
            return folder / FOLDER / FILE, folder, options.repository or repository_of(folder) or folder.resolve().name
        case Kind.RECIPE:
            return folder / FILE, folder, options.repository or folder.resolve().name
        case Kind.META:
            return folder, folder.parent, _named(folder, options)
        case _:
            return None


def _named(path: Path, options: Options) -> str:
    return options.repository or path.name.removesuffix(FILE).rstrip("_-.") or path.absolute().parent.name


def repository_of(folder: Path) -> str | None:
    """``owner/name`` from git's configuration; None where there is no remote: a folder may have any name."""
    try:
        config = read_text(folder / ".git" / "config")
    except Refused:
        config = ""
    if (origin := _ORIGIN.search(config)) and (match := _REPOSITORY.search(origin[1])):
        return f"{match[1]}/{match[2]}"
    return None


def _lint_meta(
    path: Path, within: Path, repository: str, requests: Requests, report: Report, *, named: bool, alone: bool = False
) -> tuple[Meta, Document] | None:
    report.feedstocks += 1
    try:
        document = read_yaml(path, within=within)
    except Refused as refused:
        report.findings += refused.findings
        return None
    model, findings = meta.check(document, repository)
    report.findings += findings
    report.findings += _key_order(document)
    if not alone:
        # Also where the file is wrong elsewhere: the next run should not bring up what this one could have said.
        report.findings += _code(path.parent, _entry_points(document), document, report)
        report.findings += _requirements(path.parent, within, report)
    if model is None:
        return None
    if named and "id" in document.data and model.id != slug(repository):
        message = f"the id is `{model.id}`, the repository {repository}"
        fix = f"write `id: {slug(repository)}`, or rename the repository"
        report.findings.append(OTHER_ID.at(document.place(("id",)), message, fix))
    report.findings += requests.check(model, document)
    if requests.bakeries is None:
        report.note("Bakeries and labels were not looked up: there is no bakery database (--bakeries FOLDER).")
    return model, document


def _entry_points(document: Document) -> Iterator[tuple[str, Loc]]:
    """The well-formed entry points of a meta.yaml, and where each stands in the file."""
    recipes = document.data.get("recipes")
    entries = [(("recipes",), recipes)] if isinstance(recipes, dict) else []
    if isinstance(recipes, list):
        entries = [(("recipes", index), recipe) for index, recipe in enumerate(recipes)]  # type: ignore[misc]
    for loc, entry in entries:
        for key in ("object", "dict_object"):
            value = entry.get(key) if isinstance(entry, dict) else None
            if isinstance(value, str) and meta.is_entry_point(value):
                yield value, (*loc, key)


def _code(root: Path, wanted: Iterator[tuple[str, Loc]], document: Document, report: Report) -> Iterator[Finding]:
    modules: dict[str, entry_points.Module | None] = {}
    for entry_point, loc in wanted:
        span = document.values.get(loc)
        place = Place(str(document.path), span.line, span.column) if span else document.place()
        name = entry_point.partition(":")[0]
        if name not in modules:
            modules[name] = None
            try:
                modules[name] = entry_points.read(entry_points.find(root, entry_point, place))
                report.files += 1
            except Refused as refused:
                yield from refused.findings
        if (module := modules[name]) is not None:
            yield from entry_points.check(module, entry_point, place)


def _requirements(root: Path, within: Path, report: Report) -> Iterator[Finding]:
    path = root / requirements.FILE
    locked = any((folder / name).exists() for folder in {root, within} for name in requirements.LOCKS)
    if not os.path.lexists(path):
        if not locked:
            message = f"there is no {requirements.FILE} beside {FILE}"
            yield NO_REQUIREMENTS.at(Place(str(root / FILE)), message, f"add {path} with a version for each package")
        return
    try:
        yield from islice(requirements.check(path, read_text(path, within=within), locked=locked), MAX_FINDINGS)
        report.files += 1
    except Refused as refused:
        yield from refused.findings


def _key_order(document: Document) -> Iterator[Finding]:
    order = list(Meta.model_fields)
    known = [key for key in document.data if key in order]
    if known != (wanted := sorted(known, key=order.index)):
        first = next(key for key, other in zip(known, wanted, strict=True) if key != other)
        message = f"`{first}` stands before `{wanted[known.index(first)]}`"
        yield KEY_ORDER.at(document.place((first,), key=True), message, f"order the keys: {', '.join(wanted)}")


def _own_files(folder: Path) -> Iterator[Path]:
    """The text files at the top of a repository, such as its README."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.is_dir())
    for name in names:
        if name.endswith(text.SUFFIXES) or name.startswith("README"):
            yield folder / name
