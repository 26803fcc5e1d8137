"""Generating feedstocks: what this template costs beside an almost empty one, and beside Copier's own way."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

from bench import Figure, Series, alternate, say, scaled
from bench.update import ANSWERS, COPIER, FEEDSTOCK, _forge, _git, _program

SIZES = [1, 3, 10, 30]
TIMES = 15
TURNS = 3
"""How often each size is taken; a feedstock more makes the difference, not a turn more."""


def run() -> list[Figure | Series]:
    """`feedstock new` and `copier copy` of this repository, and of a template with one question and one file."""
    times, sizes = scaled(TIMES, 3), scaled(SIZES, SIZES[:2])
    data = [word for key, value in (ANSWERS | {"id": "sst"}).items() for word in ("--data", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        forge, empty = _forge(folder / "forge"), _empty(folder / "empty")
        number = count()

        def new() -> Path:
            made = folder / f"feedstock-{next(number)}"
            _program(FEEDSTOCK, "new", "--defaults", *data, "--template", forge, made)
            return made

        def copy(template: Path) -> Path:
            made = folder / f"feedstock-{next(number)}"
            _program(COPIER, "copy", "--defaults", "--quiet", *data, template, made)
            return made

        # Which also puts both programs' bytecode and files where every later call finds them.
        copy(empty)
        if _tree(new()) != _tree(copy(forge)):
            raise AssertionError("`copier copy` makes another tree")
        ours, copied, theirs = alternate(times, new, lambda: copy(forge), lambda: copy(empty))
        ours_grown, copied_grown = [], []
        for size in sizes:
            seconds = alternate(
                scaled(TURNS, 1),
                partial(_again, size, new),
                partial(_again, size, partial(copy, forge)),
            )
            ours_grown.append(seconds[0])
            copied_grown.append(seconds[1])
            say(f"{size} feedstocks one after another: {seconds[0]:.1f} s; with `copier copy`: {seconds[1]:.1f} s")
    peer = "`copier copy` of a template with one question and one file"
    medians = f"medians of {times}"
    work, steps = "feedstocks, one after another", [float(size) for size in sizes]
    return [
        Figure(
            "`feedstock new`, whole process",
            ours / theirs,
            "times",
            "≤ 1.25",
            peer,
            f"{ours * 1000:.0f} ms to {theirs * 1000:.0f} ms, {medians}; the tree is that of `copier copy`",
        ),
        Figure(
            "`copier copy` of a feedstock, whole process",
            copied / theirs,
            "times",
            "",
            peer,
            f"{copied * 1000:.0f} ms to {theirs * 1000:.0f} ms, {medians}",
        ),
        Series("`feedstock new`", work, steps, ours_grown),
        Series("`copier copy`", work, steps, copied_grown),
    ]


def _again(times: int, make: Callable[[], object]) -> None:
    for _ in range(times):
        make()


def _tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file's mode and content."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes()) for path in files}


def _empty(folder: Path) -> Path:
    (folder / "template").mkdir(parents=True)
    (folder / "copier.yml").write_text("_subdirectory: template\nid:\n  type: str\n", encoding="utf-8")
    (folder / "template/README.md.jinja").write_text("# {{ id }}\n", encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message", "Begin")
    _git(folder, "tag", "v1.0.0")
    _git(folder, "gc", "--quiet")
    return folder
