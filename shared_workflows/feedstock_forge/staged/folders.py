"""The folders of recipes in a repository of staged recipes, on disk or at a commit."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..findings import Refused, did_you_mean, rule
from ..git import Repository
from ..lint.targets import RECIPES as RECIPES
from ..meta import FILE, FOLDER

EXAMPLE = "example"
"""What contributors copy; never made a feedstock."""

NO_FOLDER = rule("staged-recipe-missing", "A recipe is proposed as a folder of its own, with a meta.yaml in it.")
NOT_A_FILE = rule(
    "staged-recipe-link", "A link or a submodule in a recipe's folder leads to something that was not reviewed with it."
)
BAD_NAME = rule("staged-file-name", "A name that cannot be printed cannot be reviewed.")


def path_of(name: str) -> str:
    """The folder of a recipe, in the repository."""
    return f"{RECIPES}/{name}"


def names(repository: Repository, commit: str) -> list[str]:
    """The recipes that are proposed at a commit: every folder below ``recipes/`` but the example."""
    listed = repository.run("ls-tree", "-z", "-d", "--name-only", commit, "--", f"{RECIPES}/").split("\0")
    return [name for path in listed if path and (name := path.split("/", 1)[1]) != EXAMPLE]


def choose(repository: Repository, commit: str, wanted: tuple[str, ...]) -> list[str]:
    """The wanted recipes, or all. Raises :class:`Refused` for one that is not proposed."""
    known = names(repository, commit)
    findings = []
    for name in wanted:
        if name not in known:
            message = f"there is no folder {path_of(name)} at {commit[:12]}"
            findings.append(NO_FOLDER.at(None, message, did_you_mean(name, known)))
    if findings:
        raise Refused(*findings)
    return [name for name in known if not wanted or name in wanted]


def refuse_odd(repository: Repository, commit: str, name: str) -> None:
    """Raise :class:`Refused` if the folder holds anything but files, or names that nobody can read."""
    for entry in repository.run("ls-tree", "-r", "-z", commit, "--", f"{path_of(name)}/").split("\0"):
        mode, _, path = entry.partition("\t")
        if not path.isprintable():
            raise Refused(BAD_NAME.at(None, f"{path} has a name that cannot be printed", "rename it"))
        if entry and not mode.startswith("100"):
            raise Refused(NOT_A_FILE.at(None, f"{path} is no file", "put the file itself there"))


@contextmanager
def as_feedstock(folder: Path) -> Iterator[Path]:
    """The folder of a feedstock; a recipe's folder is given the layout of one for as long as that takes."""
    if (folder / FOLDER).exists() or not (folder / FILE).is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="recipe-") as scratch:
        feedstock = Path(scratch, folder.resolve().name)
        shutil.copytree(folder, feedstock / FOLDER, symlinks=True)
        yield feedstock
