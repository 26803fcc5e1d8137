"""Generating a feedstock: what this template costs beside an almost empty one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

from bench import Figure, alternate
from bench.update import ANSWERS, _forge, _git, _program

TIMES = 15


def run() -> list[Figure]:
    """`copier copy` of this repository and of a template with one question and one file, whole processes."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        forge, empty = _forge(folder / "forge"), _empty(folder / "empty")
        number = count()

        def copy(template: Path) -> None:
            data = [word for key, value in (ANSWERS | {"id": "sst"}).items() for word in ("--data", f"{key}={value}")]
            _program(
                Path(sys.executable).with_name("copier"),
                *("copy", "--defaults", "--quiet", *data, template, folder / f"feedstock-{next(number)}"),
            )

        copy(forge)
        ours, theirs = alternate(TIMES, lambda: copy(forge), lambda: copy(empty))
    return [
        Figure(
            "`copier copy` of a feedstock, whole process",
            ours / theirs,
            "times",
            "≤ 1.25",
            "the same of a template with one question and one file",
            f"{ours * 1000:.0f} ms to {theirs * 1000:.0f} ms, medians of {TIMES}",
        )
    ]


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
