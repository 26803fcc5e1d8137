"""The template's repository: its versions, what changed between two of them, and what one makes of answers."""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from .findings import Place, Refused, Who, rule
from .git import Repository, github_name
from .meta import ANSWERS

if TYPE_CHECKING:
    from .rendering import Version

USERS = ("feedstock", "tests", "recipes")
"""What is the user's after generation: no update touches it. copier.yml's `_skip_if_exists` says the same to Copier."""
CHANGELOG = "CHANGELOG.md"
CHECK_WORKFLOW = ".github/workflows/check.yml"
OWN_CHECK = "Check / Check"
"""What GitHub calls the check that this makes: its job's name, and that of the job in the workflow which it calls."""

NO_TEMPLATE = rule("template-unreachable", "An update compares two versions of the template.", who=Who.MAINTAINER)
NO_VERSION = rule("template-version-unknown", "An update compares two versions of the template.", who=Who.MAINTAINER)
NEW_QUESTION = rule("answers-refused", "The template has a new question, or refuses an old answer.", who=Who.MAINTAINER)


def same_place(address: str) -> str:
    """An address in one spelling, to compare it with others: however it is written, a repository has one."""
    if name := github_name(address):
        return f"github.com/{name.lower()}"
    return re.sub(r"^\w+://|(?:\.git)?/*$", "", address.removeprefix("git+"))


class Template:
    """A clone of the template's repository, and the commit to update to."""

    def __init__(self, clone: Repository, addresses: frozenset[str], commit: str) -> None:
        self.clone = clone
        self.addresses = addresses
        """Where it came from, as :func:`same_place` spells it: the address that was named, and that of its origin."""
        self.commit = commit
        self.version = clone.run("describe", "--tags", "--always", commit).strip()
        self._versions: dict[str, Version] = {}
        self._rendered: dict[tuple[str, str], Path] = {}
        self._lock = Lock()
        # One of the same name for each feedstock: versions repeat, and git answers the same.
        self._resolved = functools.cache(clone.resolve)
        self.changes = functools.cache(self._changes)

    def resolve(self, version: str, place: Place) -> str:
        """The commit of a version. Raises :class:`Refused` if the template's history does not hold it."""
        # `git describe` names a commit after a tag v1.0.0-3-gabc1234; rev-parse reads that as it reads a tag.
        if (commit := self._resolved(version)) is None:
            message = f"the template's history does not hold the version {version}"
            raise Refused(NO_VERSION.at(place, message, "run `copier recopy` in the feedstock, which needs no history"))
        return commit

    def is_older(self, commit: str) -> bool:
        """Whether the version to update to came before ``commit``."""
        return self.clone.ask("merge-base", "--is-ancestor", self.commit, commit) is not None

    def _changes(self, since: str) -> tuple[str, ...]:
        """What changed in the template since a commit, newest first: the changelog's new entries, or else subjects."""
        lines = self.clone.run("diff", "--unified=0", since, self.commit, "--", CHANGELOG).splitlines()
        added = "\n".join(line[1:] for line in lines if line.startswith("+") and not line.startswith("+++"))
        entries = re.findall(r"^[-*] (.+(?:\n  .+)*)", added, re.MULTILINE)
        if entries:
            return tuple(" ".join(entry.split()) for entry in entries)
        log = self.clone.run(
            "log",
            "--no-merges",
            "--format=%s",
            f"{since}..{self.commit}",
            "--",
            "template",
            "templates",
            "staged",
            "copier.yml",
        )
        return tuple(log.splitlines())

    def render(self, commit: str, answers: dict[str, Any], recorded: str, place: Place) -> Path:
        """The folder with the template's files at a commit, for the answers that a feedstock recorded.

        What is the user's is not rendered, and each pair of commit and answers only once. Raises :class:`Refused` if
        the template refuses an answer, or asks for one that is missing.
        """
        with self._lock:
            if (commit, recorded) in self._rendered:
                return self._rendered[commit, recorded]
            version = self._versions.get(commit) or self._read(commit)
            folder = Path(tempfile.mkdtemp(prefix="rendered-", dir=self.clone.folder.parent))
            (folder / ANSWERS).write_text(recorded, encoding="utf-8")
            try:
                version.render(folder, str(answers["_src_path"]), tuple(f"{name}/" for name in USERS))
            except ValueError as error:  # Copier's own: a validator's words, or a question without answer and default
                fix = "run `copier update` in the feedstock, which asks"
                raise Refused(NEW_QUESTION.at(place, str(error), fix)) from error
            self._rendered[commit, recorded] = folder
        return folder

    def _read(self, commit: str) -> Version:
        from .rendering import Version

        folder = self.clone.folder.parent / f"version-{len(self._versions)}"
        folder.mkdir()
        self.clone.extract(commit, ".", folder)
        name = self.clone.run("describe", "--tags", "--always", commit).strip()
        self._versions[commit] = version = Version(folder, commit, name)
        return version


@contextmanager
def fetched(
    address: str, version: str | None = None, *, token: str | None = None, server: str = ""
) -> Iterator[Template]:
    """The template at an address, at ``version`` or else its newest release (its head if there is none).

    Raises :class:`Refused` if it cannot be cloned or does not hold the version.
    """
    url = re.sub(r"^gh:", "https://github.com/", address)
    addresses = {same_place(address)}
    if Path(address).is_dir() and (origin := Repository(Path(address)).ask("remote", "get-url", "origin")):
        addresses.add(same_place(origin))
    with tempfile.TemporaryDirectory(prefix="feedstock-template-") as scratch:
        clone = Repository(Path(scratch, "template"), token, server)
        clone.folder.mkdir()
        try:
            clone.run("clone", "--quiet", "--no-checkout", "--", url, ".")
        except Refused as refused:
            reason = refused.findings[0].message.partition(": ")[2]
            raise Refused(
                NO_TEMPLATE.at(None, f"cannot clone {address}: {reason}", "pass --template ADDRESS")
            ) from None
        releases = clone.run("tag", "--list", "v[0-9]*", "--sort=-version:refname").splitlines()
        wanted = version or next((tag for tag in releases if "-" not in tag), "HEAD")
        commit = clone.resolve(wanted) or (version and clone.resolve(f"origin/{version}"))
        if not commit:
            message = f"the template's history does not hold the version {wanted}"
            raise Refused(NO_VERSION.at(Place(address), message, "pass --to VERSION: one of its tags or commits"))
        yield Template(clone, frozenset(addresses), commit)
