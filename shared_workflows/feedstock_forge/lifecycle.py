"""The template's life in a feedstock: a newer version becomes a branch, and nobody's edits are lost.

The template is rendered as it was and as it is, with the feedstock's recorded answers, and git merges the difference
into the feedstock's commit. No working tree is touched, and the branch appears at the end and at once: after a kill,
the same command goes on with the feedstocks that have none.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from .findings import Finding, Place, Refused, Who, rule
from .git import FORGE, Repository
from .meta import ANSWERS
from .template import Template
from .yaml_file import parse_yaml

BRANCH = "template/"

NO_ANSWERS = rule("answers-missing", "An update repeats the recorded answers.", who=Who.MAINTAINER)
NO_REPOSITORY = rule("feedstock-not-committed", "An update is a branch on top of a commit.", who=Who.MAINTAINER)
FAILED = rule("update-failed", "This feedstock stays as it is; the others go on.", who=Who.MAINTAINER)

_ABSENT = "0" * 40

One = TypeVar("One")
Other = TypeVar("Other")


class State(StrEnum):
    """How it went with one feedstock."""

    CURRENT = "current"
    AHEAD = "ahead"  # it has a newer version than this one
    WAITING = "waiting"  # its branch is there from an earlier run
    PLANNED = "planned"  # what a dry run says
    UPDATED = "updated"
    DECLINED = "declined"  # somebody closed its pull request
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an update did, or would do, to one feedstock."""

    name: str
    state: State
    version: str = ""
    branch: str = ""
    files: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    """Files that both sides changed in the same lines: the branch keeps the feedstock's."""
    findings: tuple[Finding, ...] = ()
    page: str = ""
    """Its pull request, on GitHub."""
    commit: str = ""
    """What the pull request is at."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a feedstock's answers say at a commit."""

    text: str
    answers: dict[str, Any]
    place: Place

    @property
    def version(self) -> str:
        """The template's version that the feedstock has."""
        return str(self.answers["_commit"])

    @property
    def source(self) -> str:
        """Where its template came from."""
        return str(self.answers["_src_path"])


@dataclass(frozen=True, slots=True)
class Conflict:
    """A file that the feedstock and the template changed in the same lines, or that one of them removed."""

    path: str
    text: str
    """As `copier update` would leave it, with both sides between markers; empty if that cannot be shown."""


@dataclass(frozen=True, slots=True)
class Merged:
    """An update as a tree in the feedstock's repository; nothing refers to it yet."""

    tree: str
    since: str
    """The template's version that the feedstock has, as it is recorded."""
    old: str
    """Its commit."""
    files: tuple[str, ...]
    conflicts: tuple[Conflict, ...]


def update(folders: Iterable[Path], template: Template, *, dry_run: bool = False, jobs: int = 1) -> Iterator[Outcome]:
    """Update feedstocks, several at a time; an outcome for each, in their order. Never raises for one feedstock."""

    def one(folder: Path) -> Outcome:
        return guarded(lambda: _update(folder, template, dry_run), lambda found: _refused(folder, found))

    yield from together(one, list(folders), jobs)


def together(
    work: Callable[[One], Other], over: Sequence[One], jobs: int, stop: Callable[[], None] = lambda: None
) -> Iterator[Other]:
    """The results of ``work``, in the order of ``over``; what has not begun when the reader stops never does.

    What has begun comes to its end, and on Ctrl-C ``stop`` is called so that it need not wait for long. Threads are
    enough: nearly all of the work waits for git or for GitHub.
    """
    with ThreadPoolExecutor(max(1, min(jobs, len(over)))) as pool:
        futures = [pool.submit(work, item) for item in over]
        try:
            for future in futures:
                yield future.result()
        except KeyboardInterrupt:
            stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def guarded(work: Callable[[], One], refused: Callable[[tuple[Finding, ...]], One]) -> One:
    """What ``work`` returns, or what ``refused`` makes of its findings: whatever goes wrong, the others go on."""
    try:
        return work()
    except Refused as error:
        return refused(error.findings)
    except Exception as error:
        if os.environ.get("FEEDSTOCK_DEBUG"):
            raise
        fix = "run it again for this one as `feedstock --debug update …`, and open an issue with what it prints"
        return refused((FAILED.at(None, f"{type(error).__name__}: {error}", fix),))


def _refused(folder: Path, findings: tuple[Finding, ...]) -> Outcome:
    return Outcome(folder.name, State.REFUSED, findings=findings)


def source(folder: Path) -> str:
    """Where a feedstock's template came from. Raises :class:`Refused` if its answers do not say."""
    return recorded(_committed(folder), "HEAD", str(folder / ANSWERS)).source


def recorded(repository: Repository, commit: str, file: str) -> Recorded:
    """The answers of a feedstock at a commit; ``file`` is what a finding calls them.

    Raises :class:`Refused` if they are missing or do not say which version of which template it has.
    """
    return parsed(repository.read(commit, ANSWERS), file)


def parsed(text: str, file: str) -> Recorded:
    """Answers from their text, as :func:`recorded`."""
    data = parse_yaml(text, Path(file)).data
    for key in ("_commit", "_src_path"):
        if not isinstance(data, dict) or not isinstance(data.get(key), str):
            fix = "run `copier recopy` in the feedstock"
            raise Refused(NO_ANSWERS.at(Place(file), f"{ANSWERS} has no `{key}`", fix))
    return Recorded(text, dict(data), Place(file))


def _committed(folder: Path) -> Repository:
    """The repository in a folder. A folder inside another one is refused: it would get its branch there."""
    repository = Repository(folder)
    top = repository.ask("rev-parse", "--show-cdup")
    if top is None or top or repository.ask("cat-file", "-e", f"HEAD:{ANSWERS}") is None:
        message = f"{folder} is not a repository of its own with {ANSWERS} committed"
        raise Refused(NO_REPOSITORY.at(Place(str(folder)), message, "run `git init`, `git add --all` and `git commit`"))
    return repository


def _update(folder: Path, template: Template, dry_run: bool) -> Outcome:
    repository = _committed(folder)
    now = recorded(repository, "HEAD", str(folder / ANSWERS))
    if state := standing(now, template):
        return Outcome(folder.name, state, template.version if state is State.CURRENT else now.version)
    branch = f"{BRANCH}{template.version}"
    if repository.resolve(f"refs/heads/{branch}"):
        return Outcome(folder.name, State.WAITING, template.version, branch)
    head = repository.run("rev-parse", "HEAD").strip()
    merged = merge(repository, head, now, template)
    left = tuple(conflict.path for conflict in merged.conflicts)
    if not dry_run:
        commit = committed(repository, merged, head, template)
        repository.run("update-ref", f"refs/heads/{branch}", commit, _ABSENT)
    state = State.PLANNED if dry_run else State.UPDATED
    return Outcome(folder.name, state, template.version, branch, merged.files, left)


def standing(now: Recorded, template: Template) -> State | None:
    """``CURRENT`` or ``AHEAD`` where there is nothing to do; else ``None``."""
    old = template.resolve(now.version, now.place)
    if old == template.commit:
        return State.CURRENT
    return State.AHEAD if template.is_older(old) else None


def merge(repository: Repository, head: str, now: Recorded, template: Template) -> Merged:
    """Merge what the template changed since the recorded version into the tree of a commit.

    Raises :class:`Refused` if the template cannot be rendered with the recorded answers.
    """
    old = template.resolve(now.version, now.place)
    with tempfile.TemporaryDirectory(prefix="feedstock-update-") as scratch:
        trees = []
        for name, commit in (("old", old), ("new", template.commit)):
            rendered = template.render(commit, now.answers, now.text, now.place)
            trees.append(_tree(repository, rendered, Path(scratch, name), now.text if name == "old" else None))
        tree, conflicts = _merge(repository, trees[0], f"{head}^{{tree}}", trees[1], Path(scratch))
    changed = repository.run("diff-tree", "-r", "-z", "--name-only", "--no-renames", head, tree).split("\0")
    return Merged(tree, now.version, old, tuple(filter(None, changed)), conflicts)


def committed(repository: Repository, merged: Merged, head: str, template: Template) -> str:
    """The commit of an update on top of ``head``; no branch has it yet."""
    return _commit(repository, merged.tree, [head], describe(template, merged))


def describe(template: Template, merged: Merged) -> str:
    """The message of an update's commit: its changelog, its files, and what is left to a person."""
    lines = [f"Update the template from {merged.since} to {template.version}", "", "Changes:"]
    lines += [f"- {subject}" for subject in template.changes(merged.old)] or ["- none in the template itself"]
    lines += ["", "Files:", *(f"- {name}" for name in merged.files)]
    if merged.conflicts:
        lines += ["", "Changed here and in the template, left as they are here:"]
        lines += [f"- {conflict.path}" for conflict in merged.conflicts]
    return "\n".join(lines) + "\n"


def _tree(repository: Repository, rendered: Path, index: Path, answers: str | None) -> str:
    """The rendered files as a tree in the feedstock's own repository, with its own ``answers`` if they are given."""
    environment = {"GIT_INDEX_FILE": str(index), "GIT_WORK_TREE": str(rendered), "GIT_DIR": _git_dir(repository)}
    work = Repository(rendered)
    work.run("add", "--all", "--force", ".", environment=environment)
    if answers is not None:
        blob = work.run("hash-object", "-w", "--stdin", stdin=answers, environment=environment).strip()
        work.run("update-index", "--cacheinfo", f"100644,{blob},{ANSWERS}", environment=environment)
    return work.run("write-tree", environment=environment).strip()


def _merge(
    repository: Repository, base: str, ours: str, theirs: str, scratch: Path
) -> tuple[str, tuple[Conflict, ...]]:
    """Merge three trees: the merged one, in which the feedstock's lines win, and the files where they had to."""
    # Two commits on top of the base, since git before 2.45 takes no trees here, and before 2.40 no base.
    parent = _commit(repository, base, [], "base")
    sides = [_commit(repository, tree, [parent], "side") for tree in (ours, theirs)]
    status, said = repository.attempt("merge-tree", "--write-tree", "-z", "--no-messages", *sides)
    tree, *rows = said.decode("utf-8", "surrogateescape").split("\0")
    if status == 0:
        return tree, ()
    if status != 1:
        raise Refused(FAILED.at(None, f"git merge-tree ended with {status}", "update git to 2.38 or newer"))
    stages: dict[str, dict[int, tuple[str, str]]] = defaultdict(dict)
    for row in filter(None, rows):
        entry, _, path = row.partition("\t")
        mode, blob, stage = entry.split()
        stages[path][int(stage)] = (mode, blob)
    environment = {"GIT_INDEX_FILE": str(scratch / "merged"), "GIT_DIR": _git_dir(repository)}
    repository.run("read-tree", tree, environment=environment)
    entries, conflicts = "", []
    for path, sides_of in sorted(stages.items()):
        settled, text = _settle(repository, sides_of, scratch)
        if set(sides_of) != {1, 3}:  # what a person deleted stays deleted, as after `copier update`
            conflicts.append(Conflict(path, text))
        entries += f"0 {_ABSENT}\t{path}\0"
        if 2 in sides_of:
            entries += f"{sides_of[2][0]} {settled or sides_of[2][1]}\t{path}\0"
    repository.run("update-index", "-z", "--index-info", environment=environment, stdin=entries)
    return repository.run("write-tree", environment=environment).strip(), tuple(conflicts)


def _settle(repository: Repository, stages: dict[int, tuple[str, str]], scratch: Path) -> tuple[str | None, str]:
    """The blob with the feedstock's lines where both changed them, and the text that shows both."""
    if not {2, 3} <= set(stages) or any(not mode.startswith("100") for mode, _ in stages.values()):
        return None, ""
    paths = []
    for stage, label in ((2, "before updating"), (1, "last update"), (3, "after updating")):
        path = scratch / label
        path.write_bytes(repository.blob(stages[stage][1]) if stage in stages else b"")
        paths.append(path)
    labels = [word for path in paths for word in ("-L", path.name)]
    # The status counts the conflicts; 255 says that a file is no text. Without markers there are none to count.
    conflicts, shown = Repository(scratch).attempt("merge-file", "-p", *labels, *map(str, paths))
    status, kept = Repository(scratch).attempt("merge-file", "-p", "--ours", *map(str, paths))
    if status or conflicts > 127:
        return None, ""
    blob = repository.run("hash-object", "-w", "--stdin", stdin=kept.decode("utf-8", "surrogateescape"))
    return blob.strip(), shown.decode("utf-8", "replace") if conflicts else ""


def _commit(repository: Repository, tree: str, parents: list[str], message: str) -> str:
    arguments = [word for parent in parents for word in ("-p", parent)]
    # A person's own name stands on the commit where git knows one.
    known = repository.ask("config", "user.email") or os.environ.get("GIT_AUTHOR_EMAIL")
    environment = {} if known else FORGE
    return repository.run("commit-tree", tree, *arguments, stdin=message, environment=environment).strip()


def _git_dir(repository: Repository) -> str:
    return repository.run("rev-parse", "--absolute-git-dir").strip()
