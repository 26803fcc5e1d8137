"""Copier, spoken to in one place: one version of a template, read once and rendered for many feedstocks.

Copier's own functions clone the template and compile each of its texts anew for every render, which is most of what
they do. Here both happen once a version; the questions, the answers and the files are Copier's. It declares no class
for that, so its own `Worker` is used, and a test holds what comes out equal to what `copier update` makes.
"""

from __future__ import annotations

import functools
from pathlib import Path
from threading import Lock
from typing import Any

from copier._main import Worker
from copier._template import Template


class _Worker(Worker):
    def _sync_git_index_executable_bit(self, *_: object) -> None:
        """Do nothing: what is rendered here is in nobody's index, and Copier asks git so for every file."""


class Version:
    """The files of a template at one commit, in ``folder``."""

    def __init__(self, folder: Path, commit: str, name: str) -> None:
        self._folder = folder
        self._commit = commit
        self._known: dict[str, Any] = {"vcs": "git", "local_abspath": folder, "commit_hash": commit, "commit": name}
        self._templates: dict[str, Template] = {}
        self._environment: Any = None
        self._lock = Lock()

    def render(self, into: Path, address: str, exclude: tuple[str, ...]) -> None:
        """Render into a folder that holds recorded answers, as if the template had come from ``address``.

        Raises ``ValueError`` if an answer is refused, or missing with no default.
        """
        with self._lock:  # Python renders one at a time anyway
            worker = _Worker(dst_path=into, defaults=True, overwrite=True, quiet=True, exclude=exclude)
            vars(worker)["template"] = self._template(address)
            if self._environment is None:
                self._environment = worker.jinja_env
                self._environment.from_string = functools.cache(self._environment.from_string)
            vars(worker)["jinja_env"] = self._environment
            recorded = set(worker.subproject.last_answers)
            worker.run_copy()
            # Copier drops an answer that it refuses, and goes on with the default.
            for name in recorded - set(worker.answers.last) - worker.answers.hidden:
                raise ValueError(f"the template refuses the recorded answer to `{name}`")

    def _template(self, address: str) -> Template:
        if address not in self._templates:
            self._templates[address] = template = Template(url=address, ref=self._commit)
            vars(template).update(self._known)
        return self._templates[address]
