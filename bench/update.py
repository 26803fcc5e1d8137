"""``feedstock update``: a hundred feedstocks in one call, held against a loop of ``copier update``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import copier

import bench
from bench import Figure, Series, say, scaled

ROOT = Path(__file__).parents[1]
FEEDSTOCK = Path(sys.executable).with_name("feedstock")
COPIER = Path(sys.executable).with_name("copier")
SIZES = [3, 10, 30, 100]
FEW = 10
"""Of the most, how many the loop of ``copier update`` takes in a turn; each takes as long as the next."""
TURNS = 3
BRANCH = "template/v2.0.0"
ANSWERS = {
    "title": "Sea surface temperature",
    "description": "A small dataset",
    "provider_name": "NOAA NCEI",
    "provider_url": "https://www.ncei.noaa.gov",
    "maintainers": "Ada Lovelace @ada",
    "forge": "ocean-forge/forge",
}


def run() -> list[Figure | Series]:
    """Feedstocks that are a version behind, a quarter of them edited by their users; then all of them current."""
    sizes, few = scaled(SIZES, SIZES[:2]), scaled(FEW, 3)
    many = sizes[-1]
    with tempfile.TemporaryDirectory() as scratch:
        say(f"generating {many} feedstocks")
        forge = _forge(Path(scratch, "forge"))
        folders = [_feedstock(forge, Path(scratch, f"sst-{number}-feedstock")) for number in range(many)]
        for folder in folders[::4]:
            _edit(folder)
        sample = folders[:: many // few][:few]

        def ours(count: int = many) -> None:
            _program(FEEDSTOCK, "update", "--template", forge, *folders[:count])

        def theirs() -> None:
            for folder in sample:
                _program(COPIER, "update", "--defaults", "--quiet", cwd=folder)

        def behind() -> None:
            for folder in folders:
                _git(folder, "reset", "--quiet", "--hard", "main")
                _git(folder, "clean", "--quiet", "-d", "--force")
                if _git(folder, "branch", "--list", BRANCH):
                    _git(folder, "branch", "--quiet", "-D", BRANCH)

        grown = []
        for size in sizes[:-1]:
            grown += _turns(behind, partial(ours, size))
            say(f"{size} feedstocks: {grown[-1]:.2f} s")
        ours_behind, theirs_behind = _turns(behind, ours, theirs)
        grown.append(ours_behind)
        say(f"{many} feedstocks: {ours_behind:.2f} s; {few} of them one after the other: {theirs_behind:.2f} s")
        for folder in sample:
            _git(folder, "add", "--all")
            if _git(folder, "write-tree") != _git(folder, "rev-parse", f"{BRANCH}^{{tree}}"):
                raise AssertionError(f"{folder.name}: `copier update` makes another tree")
        for folder in folders:
            _git(folder, "reset", "--quiet", "--hard", BRANCH)
        ours_current, theirs_current = _turns(lambda: None, ours, theirs)
    peer = f"a loop of `copier update`, {few} of them"
    turns = f"each, medians of {TURNS}"
    equal = f"the trees of those {few} are equal"
    return [
        Figure(
            f"{many} feedstocks, a version behind",
            (theirs_behind / few) / (ours_behind / many),
            "times as fast",
            "≥ 10",
            peer,
            f"{ours_behind / many * 1000:.0f} ms to {theirs_behind / few * 1000:.0f} ms {turns}; {equal}",
        ),
        Figure(
            f"{many} feedstocks, all current",
            (theirs_current / few) / (ours_current / many),
            "times as fast",
            "≥ 100",
            peer,
            f"{ours_current / many * 1000:.1f} ms to {theirs_current / few * 1000:.0f} ms {turns}",
        ),
        Series("`feedstock update`", "feedstocks, a version behind", [float(size) for size in sizes], grown),
    ]


def _turns(before: Callable[[], None], *runs: Callable[[], None]) -> list[float]:
    """The median seconds of each run, taken in turns; ``before`` sets the stage and is not counted."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(TURNS):
        before()
        for taken, one in zip(seconds, runs, strict=True):
            start = perf_counter()
            one()
            taken.append(perf_counter() - start)
    return [median(taken) for taken in seconds]


def _forge(folder: Path) -> Path:
    """This repository's last commit as a release, and one after it that changes a workflow and the README."""
    subprocess.run(["git", "clone", "--quiet", "--no-tags", ROOT, folder], check=True)
    _git(folder, "tag", "v1.0.0")
    for name, old, new in (
        (".github/workflows/check.yml", "  merge_group:\n", "  merge_group:\n  workflow_dispatch:\n"),
        ("README.md", "## Release it", "## Publish it"),
    ):
        path = folder / "template" / name
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    _git(folder, "commit", "--quiet", "--all", "--message", "Change the template")
    _git(folder, "tag", "v2.0.0")
    _git(folder, "gc", "--quiet")  # as a clone from GitHub is, whatever has been worked on here
    return folder


def _feedstock(forge: Path, folder: Path) -> Path:
    data = ANSWERS | {"id": folder.name.removesuffix("-feedstock")}
    copier.run_copy(str(forge), folder, data=data, vcs_ref="v1.0.0", defaults=True, quiet=True)
    _git(folder, "init", "--quiet")
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message", "Begin")
    _git(folder, "branch", "--move", "main")
    return folder


def _edit(folder: Path) -> None:
    """What users typically change."""
    readme = folder / "README.md"
    readme.write_text(
        readme.read_text(encoding="utf-8").replace("<!-- This", "Cite us.\n\n<!-- This"), encoding="utf-8"
    )
    (folder / ".github/workflows/mine.yml").write_text("on: push\n", encoding="utf-8")
    (folder / ".github/pull_request_template.md").unlink()
    (folder / "feedstock/recipe.py").write_text("mine = True\n", encoding="utf-8")
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message", "Edit")


def _program(*command: object, cwd: Path | None = None) -> None:
    subprocess.run([str(word) for word in command], cwd=cwd, env=_ENVIRONMENT, capture_output=True, check=True)


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, env=_ENVIRONMENT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


_ENVIRONMENT = bench.environment() | {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}
