"""The template's repository: its versions, what changed between two of them, and what one makes of answers."""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from .findings import Place, Refused, Who, rule
from .git import Repository, github_name

if TYPE_CHECKING:
    from .rendering import Version

USERS = ("feedstock", "tests", "recipes")
"""What is the user's after generation: no update touches it. copier.yml's `_skip_if_exists` says the same to Copier."""
CHANGELOG = "CHANGELOG.md"
CHECK_WORKFLOW = ".github/workflows/check.yml"
OWN_CHECK = "Check / Check"
"""What GitHub calls the check that this makes: its job's name, and that of the job in the workflow which it calls."""
ENGINE = (".github", "bakeries", "bench", "demo", "docs", "schemas", "shared_workflows", "tests")
"""What the forge holds beside its template: no generated file comes from there, and it is most of the files."""

NO_TEMPLATE = rule(
    "template-unreachable", "Feedstocks are made from a version of the template, in git.", who=Who.MAINTAINER
)
NO_VERSION = rule(
    "template-version-unknown", "Feedstocks are made from a version of the template, in git.", who=Who.MAINTAINER
)
NO_COPIER = rule("copier-missing", "Copier fills in the template; whoever only bakes does without it.")
NEW_QUESTION = rule("answers-refused", "The template has a new question, or refuses an old answer.", who=Who.MAINTAINER)


def same_place(address: str) -> str:
    """An address in one spelling, to compare it with others: however it is written, a repository has one."""
    if name := github_name(address):
        return f"github.com/{name.lower()}"
    return re.sub(r"^\w+://|(?:\.git)?/*$", "", address.removeprefix("git+"))


def newest(tags: Iterable[str]) -> str | None:
    """The newest release among tags, as Copier chooses it: by PEP 440, and no pre-release."""
    from packaging.version import InvalidVersion, Version

    releases = {}
    for tag in tags:
        with suppress(InvalidVersion):
            if not (version := Version(tag)).is_prerelease:
                releases[version] = tag
    return releases[max(releases)] if releases else None


class Template:
    """The template's repository, and the commit to make feedstocks from or update them to."""

    def __init__(self, clone: Repository, addresses: frozenset[str], commit: str, scratch: Path) -> None:
        self.clone = clone
        """A clone, or the repository itself where that is a folder here: it is only read."""
        self.addresses = addresses
        """Where it came from, as :func:`same_place` spells it: the address that was named, and that of its origin."""
        self.commit = commit
        self.scratch = scratch
        """Where its versions are unpacked and rendered."""
        self.version = self._name(commit)
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

    @property
    def uncommitted(self) -> bool:
        """Whether this is the commit that somebody works on in a folder, and has changed since."""
        if self.clone.folder.parent == self.scratch or self.clone.resolve("HEAD") != self.commit:
            return False
        return bool(self.clone.ask("status", "--porcelain", "--", ".", *(f":(exclude,top){name}" for name in ENGINE)))

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
        from .meta import ANSWERS  # whose models take longer than all that `feedstock new` needs of this module

        with self._lock:
            if (commit, recorded) in self._rendered:
                return self._rendered[commit, recorded]
            version = self._read(commit)
            folder = Path(tempfile.mkdtemp(prefix="rendered-", dir=self.scratch))
            (folder / ANSWERS).write_text(recorded, encoding="utf-8")
            try:
                version.render(folder, str(answers["_src_path"]), tuple(f"{name}/" for name in USERS))
            except ValueError as error:  # Copier's own: a validator's words, or a question without answer and default
                fix = "run `copier update` in the feedstock, which asks"
                raise Refused(NEW_QUESTION.at(place, str(error), fix)) from error
            self._rendered[commit, recorded] = folder
        return folder

    def read(self) -> Version:
        """The files of the commit, unpacked once, to render them."""
        with self._lock:
            return self._read(self.commit)

    def _read(self, commit: str) -> Version:
        if commit not in self._versions:
            folder = self.scratch / f"version-{len(self._versions)}"
            folder.mkdir()
            self.clone.extract(commit, ".", folder, without=ENGINE)
            name = self.version if commit == self.commit else self._name(commit)
            # Only now: in `feedstock new` Copier is being imported while git works.
            try:
                from .rendering import Version
            except ModuleNotFoundError as error:
                message, fix = f"{error.name} is not installed here", "pip install 'feedstock-forge[template]'"
                raise Refused(NO_COPIER.at(None, message, fix)) from error

            self._versions[commit] = Version(folder, commit, name)
        return self._versions[commit]

    def _name(self, commit: str) -> str:
        return self.clone.run("describe", "--tags", "--always", commit).strip()


@contextmanager
def fetched(
    address: str, version: str | None = None, *, token: str | None = None, server: str = ""
) -> Iterator[Template]:
    """The template at an address, at ``version`` or else its newest release (its head if there is none).

    Raises :class:`Refused` if it cannot be cloned or does not hold the version.
    """
    with tempfile.TemporaryDirectory(prefix="feedstock-template-") as scratch:
        clone = _repository(address, Path(scratch), token, server)
        addresses = {same_place(address)}
        if Path(address).is_dir() and (origin := clone.ask("remote", "get-url", "origin")):
            addresses.add(same_place(origin))
        wanted = version or newest(clone.run("tag", "--list").splitlines()) or "HEAD"
        commit = clone.resolve(wanted) or (version and clone.resolve(f"origin/{version}"))
        if not commit:
            message = f"the template's history does not hold the version {wanted}"
            raise Refused(NO_VERSION.at(Place(address), message, "pass --to VERSION: one of its tags or commits"))
        yield Template(clone, frozenset(addresses), commit, Path(scratch))


def _repository(address: str, scratch: Path, token: str | None, server: str) -> Repository:
    """The repository at an address: itself if it is a folder here, or else a clone."""
    fix = "pass --template ADDRESS"
    if (folder := Path(address).expanduser()).is_dir():
        here = Repository(folder.absolute())
        if here.ask("rev-parse", "--show-prefix") != "":
            raise Refused(NO_TEMPLATE.at(None, f"{address} is no git repository", fix))
        return here
    url = address.removeprefix("git+")
    for short, server_url in (("gh:", "https://github.com/"), ("gl:", "https://gitlab.com/")):
        if url.startswith(short):
            url = server_url + url.removeprefix(short).lstrip("/")
    clone = Repository(scratch / "template", token, server)
    clone.folder.mkdir()
    try:
        clone.run("clone", "--quiet", "--no-checkout", "--", url, ".")
    except Refused as refused:
        reason = refused.findings[0].message.partition(": ")[2]
        raise Refused(NO_TEMPLATE.at(None, f"cannot clone {address}: {reason}", fix)) from None
    return clone
