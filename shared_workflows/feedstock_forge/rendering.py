"""Copier, spoken to in one place: one version of a template, read once and rendered for many feedstocks.

Copier's own functions clone the template and compile each of its texts anew for every render, which is most of what
they do. Here both happen once a version; the questions, the answers and the files are Copier's. It declares no class
for that, so its own `Worker` is used, and a test holds what comes out equal to what `copier update` makes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import yaml
from copier._main import Worker
from copier._subproject import Subproject
from copier._template import Template
from copier.errors import CopierAnswersInterrupt, InteractiveSessionError

Place = Callable[[Mapping[str, Any]], tuple[Path, Path]]

_OPEN = re.compile(r"""(?:Question|for question|for) ["'](\w+)["']""")
"""How Copier names the question whose answer is missing or refused."""


class _Plain:
    """A text that holds nothing to fill in: most file names and answers do not."""

    def __init__(self, text: str) -> None:
        self._text = text

    def render(self, *_: object, **__: object) -> str:
        return self._text


def _compiled(environment: Any) -> Callable[[Any], Any]:
    """Jinja's ``from_string``, which compiles each text once, and none that has nothing to fill in."""
    compile_ = environment.from_string
    marks = (environment.block_start_string, environment.variable_start_string, environment.comment_start_string)
    marks += ("\r", *filter(None, (environment.line_statement_prefix, environment.line_comment_prefix)))

    @functools.cache
    def from_string(text: Any) -> Any:
        plain = isinstance(text, str) and environment.keep_trailing_newline and not any(mark in text for mark in marks)
        return _Plain(text) if plain else compile_(text)

    return from_string


def _config(folder: Path) -> dict[str, Any] | None:
    """What copier.yml says, read by libyaml, which is some times faster; ``None`` if Copier must read it itself."""
    file = folder / "copier.yml"
    loader = getattr(yaml, "CSafeLoader", None)
    if loader is None or len(list(folder.glob("copier.*"))) != 1 or not file.is_file():
        return None
    try:
        config: Any = yaml.load(file.read_bytes(), Loader=loader)  # noqa: S506 (a safe one)
    except yaml.YAMLError:  # such as an `!include`, or several documents in one file
        return None
    return config if isinstance(config, dict) else None


class _Worker(Worker):
    def _sync_git_index_executable_bit(self, *_: object) -> None:
        """Do nothing: what is rendered here is in nobody's index, and Copier asks git so for every file."""


class _Copy(_Worker):
    """Copies into a folder that may be named after the answers."""

    place: Place

    def _ask(self) -> None:
        super()._ask()
        aside, self.dst_path = self.place(self.answers.user)
        vars(self)["subproject"] = Subproject(local_abspath=aside, answers_relpath=self.subproject.answers_relpath)


class Version:
    """The files of a template at one commit, in ``folder``."""

    def __init__(self, folder: Path, commit: str, name: str) -> None:
        self._folder = folder
        self._commit = commit
        self._known: dict[str, Any] = {
            "vcs": "git", "local_abspath": folder, "commit_hash": commit, "commit": name, "git_index_modes": {},
        }  # fmt: skip
        self._templates: dict[str, Template] = {}
        self._environment: Any = None
        self._lock = Lock()

    def questions(self, address: str) -> dict[str, Any]:
        """The questions that the template asks or computes, by name, as copier.yml describes them."""
        questions: dict[str, Any] = self._template(address).questions_data
        return questions

    def copy(self, address: str, data: Mapping[str, Any], place: Place, *, ask: bool) -> str:
        """Make a new project as ``copier copy`` does, and return what the template then has to say.

        ``place`` is given the answers, and returns where to write and what to call it, which may differ. Questions that
        ``data`` leaves open are asked at the terminal or take their default. Raises ``ValueError`` if an answer is
        refused, or missing with no default, and ``KeyboardInterrupt`` if whoever is asked has enough.
        """
        with self._lock:
            worker = self._prepared(
                _Copy(dst_path=self._folder / "new", data=dict(data), defaults=not ask, quiet=True), address
            )
            worker.place = place
            try:
                worker.run_copy()
            except (CopierAnswersInterrupt, InteractiveSessionError):  # Ctrl-C, Ctrl-D
                raise KeyboardInterrupt from None
            words: str = worker._render_string(worker.template.message_after_copy)
            return words

    def unanswered(self, address: str, data: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """The questions that ``data`` leaves open: those whose default does not answer them, and those whose does.

        Raises ``ValueError`` if an answer in ``data`` is refused.
        """
        required: list[str] = []
        with self._lock:
            while True:
                # Each of those is given its own example, so that the questions after it are come to.
                given = {name: self.questions(address)[name].get("placeholder", "") for name in required} | dict(data)
                worker = self._prepared(_Worker(dst_path=self._folder / "new", data=given, defaults=True), address)
                try:
                    worker._ask()
                except ValueError as error:
                    found = _OPEN.search(str(error))
                    if found is None or found[1] in data:
                        raise
                    if found[1] not in required:
                        required.append(found[1])
                        continue
                return required, [
                    name for name in worker.answers.user if name not in worker.answers.hidden | set(given)
                ]

    def render(self, into: Path, address: str, exclude: tuple[str, ...]) -> None:
        """Render into a folder that holds recorded answers, as if the template had come from ``address``.

        Raises ``ValueError`` if an answer is refused, or missing with no default.
        """
        with self._lock:  # Python renders one at a time anyway
            worker = _Worker(dst_path=into, defaults=True, overwrite=True, quiet=True, exclude=exclude)
            self._prepared(worker, address)
            recorded = set(worker.subproject.last_answers)
            worker.run_copy()
            # Copier drops an answer that it refuses, and goes on with the default.
            for name in recorded - set(worker.answers.last) - worker.answers.hidden:
                raise ValueError(f"the template refuses the recorded answer to `{name}`")

    def _prepared(self, worker: Any, address: str) -> Any:
        """The same worker, with the template and the compiled texts that others have used before it."""
        vars(worker)["template"] = self._template(address)
        if self._environment is None:
            self._environment = worker.jinja_env
            self._environment.from_string = _compiled(self._environment)
        vars(worker)["jinja_env"] = self._environment
        return worker

    def _template(self, address: str) -> Template:
        if address not in self._templates:
            self._templates[address] = template = Template(url=address, ref=self._commit)
            vars(template).update(self._known)
            if (config := _config(self._folder)) is not None:
                vars(template)["_raw_config"] = config
        return self._templates[address]
