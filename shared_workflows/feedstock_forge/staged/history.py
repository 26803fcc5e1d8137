"""A folder's history, moved: the commits that made it, with their authors, as if it had always stood elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..findings import Refused, rule
from ..git import Repository

SHALLOW = rule("staged-history-shallow", "The feedstock keeps the history of its recipe, which a shallow clone lacks.")

_FIELDS = "%an%x00%ae%x00%ad%x00%cn%x00%ce%x00%cd%x00%B"
# `#12` in a message would be another pull request where the commit moves to.
_REFERENCE = re.compile(r"(?<![\w/&#])#(?=\d+\b)")


@dataclass(frozen=True, slots=True)
class Moved:
    """A moved history."""

    tip: str
    """The newest commit; its tree is the folder alone, in its new place."""
    commits: int
    source: str
    """The commit of this repository that changed the folder last."""
    date: str
    """When that was committed, as git writes it for itself."""


def move(repository: Repository, commit: str, folder: str, to: str, name: str) -> Moved:
    """Commits of a folder as it stands at ``commit``, moved to the folder ``to``; ``name`` is ``owner/name`` of here.

    What was a folder of the same name before it was last removed is left behind. The same history gives the same
    commits, whoever asks and however often. Raises :class:`Refused` for a shallow clone.
    """
    if repository.run("rev-parse", "--is-shallow-repository").strip() == "true":
        fix = "run `git fetch --unshallow` (in a workflow: `fetch-depth: 0`)"
        raise Refused(SHALLOW.at(None, f"{repository.folder} is a shallow clone", fix))
    moved: dict[str, str] = {}
    source = ""
    listed = repository.run("rev-list", "--reverse", "--topo-order", "--parents", commit, "--", f"{folder}/")
    for line in listed.splitlines():
        source, *parents = line.split()
        if tree := repository.ask("rev-parse", "--verify", "--quiet", f"{source}:{folder}"):
            moved[source] = _commit(repository, source, tree, [moved[old] for old in parents if old in moved], to, name)
    tip = moved[source]
    count = int(repository.run("rev-list", "--count", tip))
    return Moved(tip, count, source, repository.run("show", "--no-patch", "--format=%cd", "--date=raw", source).strip())


def _commit(repository: Repository, source: str, tree: str, parents: list[str], to: str, name: str) -> str:
    shown = repository.run("show", "--no-patch", "--date=raw", "--encoding=UTF-8", f"--format={_FIELDS}", source)
    author, author_email, authored, committer, committer_email, committed, message = shown.split("\0", 6)
    identity = {
        "GIT_AUTHOR_NAME": author or "unknown",
        "GIT_AUTHOR_EMAIL": author_email,
        "GIT_AUTHOR_DATE": f"@{authored}",
        "GIT_COMMITTER_NAME": committer or "unknown",
        "GIT_COMMITTER_EMAIL": committer_email,
        "GIT_COMMITTER_DATE": f"@{committed}",
    }
    words = _REFERENCE.sub(f"{name}#", message.strip()).encode("utf-8", "replace").decode("utf-8")
    root = repository.run("mktree", stdin=f"040000 tree {tree}\t{to}\n").strip()
    arguments = [word for parent in parents for word in ("-p", parent)]
    return repository.run("commit-tree", root, *arguments, stdin=f"{words}\n", environment=identity).strip()
