"""What a path on the command line stands for: a feedstock, a folder of them, a forge, or a single file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from ..findings import Finding, Place, rule
from ..meta import FILE, FOLDER

NOTHING = rule("lint-nothing", "A check that looked at nothing must not look like a check that passed.")
UNKNOWN_FILE = rule("lint-file-unknown", "The name of a file tells what belongs in it.")
MISPLACED = rule("meta-misplaced", "Each recipe folder becomes one feedstock, named as the folder is.")

RECIPES = "recipes"
BAKERIES = "bakeries"
BAKERY_FILE = "bakery.yaml"
GRANTS = "grants"


class Kind(Enum):
    """What there is to look at."""

    FEEDSTOCK = auto()  # a repository with feedstock/meta.yaml
    RECIPE = auto()  # a folder of staged recipes, with meta.yaml right inside
    META = auto()  # a meta.yaml by itself
    BAKERY = auto()  # a folder with bakery.yaml and grants/
    GRANT = auto()
    MISPLACED = auto()  # a meta.yaml among the recipe folders
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to look at: a folder, or a file where the kind is a file's."""

    kind: Kind
    path: Path


def find(path: Path) -> list[Target]:
    """What a path stands for; empty where there is nothing to look at."""
    return list(_inside(path) if path.is_dir() else _file(path))


def nothing(path: Path) -> Finding:
    """The finding for a path that stands for nothing."""
    if not os.path.lexists(path):
        return NOTHING.at(Place(str(path)), f"there is no {path}", "check the path")
    fix = f"name a folder with {FOLDER}/{FILE}, with recipe folders, or with {BAKERIES}/"
    return NOTHING.at(Place(str(path)), f"there is no feedstock and no bakery in {path}", fix)


def misplaced(path: Path) -> Finding:
    """The finding for a meta.yaml among the recipe folders."""
    folder = path.absolute().parent.name
    fix = f"move it and its recipe into {folder}/<name>/"
    return MISPLACED.at(Place(str(path)), f"{FILE} stands in {folder}/ itself", fix)


def unknown(path: Path) -> Finding:
    """The finding for a file whose name says nothing to the forge."""
    fix = f"name a folder, a {FILE}, a {BAKERY_FILE} or a file in {GRANTS}/"
    return UNKNOWN_FILE.at(Place(str(path)), f"{path.name} is no file that the forge reads", fix)


def _file(path: Path) -> Iterator[Target]:
    if not os.path.lexists(path):
        return
    folder = path.absolute().parent
    if path.name == FILE and folder.name == FOLDER:
        yield Target(Kind.FEEDSTOCK, _parent(path.parent))
    elif path.name == FILE:
        yield Target(Kind.MISPLACED, path) if folder.name == RECIPES else Target(Kind.RECIPE, path.parent)
    elif path.name.endswith(FILE):
        yield Target(Kind.META, path)
    elif path.name == BAKERY_FILE:
        yield Target(Kind.BAKERY, path.parent)
    elif folder.name == GRANTS:
        yield Target(Kind.GRANT, path)
    else:
        yield Target(Kind.UNKNOWN, path)


def _inside(path: Path) -> Iterator[Target]:
    name = path.absolute().name
    if _is_feedstock(path):
        yield Target(Kind.FEEDSTOCK, path)
    elif name == FOLDER and os.path.lexists(path / FILE):
        yield Target(Kind.FEEDSTOCK, _parent(path))
    elif os.path.lexists(path / BAKERY_FILE):
        yield Target(Kind.BAKERY, path)
    elif name != RECIPES and os.path.lexists(path / FILE):
        yield Target(Kind.RECIPE, path)
    elif (path / BAKERIES).is_dir() or (path / RECIPES).is_dir():
        # A forge or a repository of staged recipes: what else it holds, such as a template, is not for users.
        for folder in (path / BAKERIES, path / RECIPES):
            if folder.is_dir():
                yield from _many(folder)
    else:
        yield from _many(path)


def _many(folder: Path) -> Iterator[Target]:
    """The feedstocks, recipe folders and bakeries right inside a folder."""
    if os.path.lexists(folder / FILE):
        yield Target(Kind.MISPLACED, folder / FILE)
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    for name in names:
        child = folder / name
        if _is_feedstock(child):
            yield Target(Kind.FEEDSTOCK, child)
        elif os.path.lexists(child / BAKERY_FILE):
            yield Target(Kind.BAKERY, child)
        elif os.path.lexists(child / FILE):
            yield Target(Kind.RECIPE, child)


def _is_feedstock(folder: Path) -> bool:
    # A feedstock without its meta.yaml is still one: that it is missing is what its author needs to hear.
    if os.path.lexists(folder / FOLDER / FILE):
        return True
    return folder.absolute().name.endswith("-feedstock") and (folder / FOLDER).is_dir()


def _parent(folder: Path) -> Path:
    return folder.parent if folder.name else folder / ".."
