"""The template's life in a feedstock: a newer version becomes a branch, and nobody's edits are lost.

The template is rendered as it was and as it is, with the feedstock's recorded answers, and git merges the difference
into the feedstock's commit. No working tree is touched, and the branch appears at the end and at once: after a kill,
the same command goes on with the feedstocks that have none.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from .findings import Finding, Place, Refused, Who, rule
from .yaml_file import read_yaml

ANSWERS = ".copier-answers.yml"
USERS = ("feedstock", "tests")
"""What is the user's after generation: no update touches it. copier.yml's `_skip_if_exists` says the same to Copier."""

BRANCH = "template/"

NO_ANSWERS = rule("answers-missing", "An update repeats the recorded answers.", who=Who.MAINTAINER)
NO_TEMPLATE = rule("template-unreachable", "An update compares two versions of the template.", who=Who.MAINTAINER)
NO_VERSION = rule("template-version-unknown", "An update compares two versions of the template.", who=Who.MAINTAINER)
NEW_QUESTION = rule("answers-refused", "The template has a new question, or refuses an old answer.", who=Who.MAINTAINER)
NO_REPOSITORY = rule("feedstock-not-committed", "An update is a branch on top of a commit.", who=Who.MAINTAINER)

_GITHUB = re.compile(r"(?:^gh:|github\.com[:/])([\w.-]+/[\w.-]+?)(?:\.git)?/*$", re.ASCII)
_IDENTITY = {
    "GIT_AUTHOR_NAME": "Feedstock Forge",
    "GIT_AUTHOR_EMAIL": "feedstock-forge@users.noreply.github.com",
    "GIT_COMMITTER_NAME": "Feedstock Forge",
    "GIT_COMMITTER_EMAIL": "feedstock-forge@users.noreply.github.com",
}


class State(StrEnum):
    """How it went with one feedstock."""

    CURRENT = "current"
    WAITING = "waiting"  # its branch is there from an earlier run
    PLANNED = "planned"  # what a dry run says
    UPDATED = "updated"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an update did, or would do, to one feedstock."""

    folder: Path
    state: State
    version: str = ""
    branch: str = ""
    files: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    """Files that both sides changed in the same lines: the branch keeps the feedstock's."""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Template:
    """A clone of the template's repository, and the commit to update to."""

    clone: Path
    commit: str
    version: str

    def resolve(self, version: str, place: Place) -> str:
        """The commit of a version. Raises :class:`Refused` if the template's history does not hold it."""
        # `git describe` names a commit after a tag v1.0.0-3-gabc1234; rev-parse reads that as it reads a tag.
        done = _run(self.clone, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{version}^{{commit}}")
        if done.returncode:
            message = f"the template's history does not hold the version {version}"
            raise Refused(NO_VERSION.at(place, message, "run `copier recopy` in the feedstock, which needs no history"))
        return done.stdout.strip()

    def changes(self, since: str) -> list[str]:
        """What changed in the template since a commit: the subjects of its commits, newest first."""
        log = _git(
            self.clone, "log", "--no-merges", "--format=%s", f"{since}..{self.commit}", "--", "template", "copier.yml"
        )
        return log.splitlines()


@contextmanager
def fetched(address: str, version: str | None = None) -> Iterator[Template]:
    """The template at an address, at ``version`` or else its newest release (its head if there is none).

    Raises :class:`Refused` if it cannot be cloned or does not hold the version.
    """
    url = re.sub(r"^gh:", "https://github.com/", address)
    with tempfile.TemporaryDirectory(prefix="feedstock-template-") as scratch:
        clone = Path(scratch, "template")
        done = _run(Path(scratch), "clone", "--quiet", "--", url, str(clone))
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["git says nothing"])[-1]
            raise Refused(NO_TEMPLATE.at(None, f"cannot clone {address}: {reason}", "pass --template ADDRESS"))
        releases = _git(clone, "tag", "--list", "v[0-9]*", "--sort=-version:refname").splitlines()
        wanted = version or next((tag for tag in releases if "-" not in tag), "HEAD")
        commit = Template(clone, "", "").resolve(wanted, Place(address))
        yield Template(clone, commit, _git(clone, "describe", "--tags", "--always", commit))


def update(folders: Iterable[Path], template: Template, *, dry_run: bool = False, jobs: int = 1) -> Iterator[Outcome]:
    """Update feedstocks, several at a time; an outcome for each, in their order. Never raises for one feedstock."""
    work = [(folder, template, dry_run) for folder in folders]
    if jobs == 1 or len(work) < 2:
        yield from map(_one, work)
        return
    with ProcessPoolExecutor(min(jobs, len(work))) as pool:
        yield from pool.map(_one, work)


def source(folder: Path) -> str:
    """Where a feedstock's template came from. Raises :class:`Refused` if its answers do not say."""
    return str(_answers(folder)["_src_path"])


def _one(work: tuple[Path, Template, bool]) -> Outcome:
    folder, template, dry_run = work
    try:
        return _update(folder, template, dry_run)
    except Refused as refused:
        return Outcome(folder, State.REFUSED, findings=refused.findings)


def _update(folder: Path, template: Template, dry_run: bool) -> Outcome:
    answers = _answers(folder)
    place = Place(str(folder / ANSWERS))
    old = template.resolve(str(answers["_commit"]), place)
    if old == template.commit:
        return Outcome(folder, State.CURRENT, template.version)
    # A folder inside another repository would get its branch there.
    top = _run(folder, "rev-parse", "--show-cdup")
    if top.returncode or top.stdout.strip() or _run(folder, "cat-file", "-e", f"HEAD:{ANSWERS}").returncode:
        message = f"{folder} is not a repository of its own with {ANSWERS} committed"
        raise Refused(NO_REPOSITORY.at(Place(str(folder)), message, "run `git init`, `git add --all` and `git commit`"))
    branch = f"{BRANCH}{template.version}"
    if not _run(folder, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}").returncode:
        return Outcome(folder, State.WAITING, template.version, branch)
    head = _git(folder, "rev-parse", "HEAD")
    recorded = _git(folder, "show", f"{head}:{ANSWERS}") + "\n"
    with tempfile.TemporaryDirectory(prefix="feedstock-update-") as scratch:
        trees = []
        for name, commit in (("old", old), ("new", template.commit)):
            rendered = Path(scratch, name)
            _render(template.clone, commit, rendered, answers, place)
            text = recorded if name == "old" else _carried(rendered / ANSWERS, answers, recorded)
            (rendered / ANSWERS).write_text(text, encoding="utf-8")
            trees.append(_tree(folder, rendered, Path(scratch, f"{name}.index")))
        merged, conflicts = _merge(folder, trees[0], f"{head}^{{tree}}", trees[1], Path(scratch, "merged.index"))
    files = tuple(_git(folder, "diff-tree", "-r", "--name-only", "--no-renames", head, merged).splitlines())
    if dry_run:
        return Outcome(folder, State.PLANNED, template.version, branch, files, conflicts)
    message = describe(template, old, str(answers["_commit"]), files, conflicts)
    commit = _commit(folder, merged, [head], message)
    _git(folder, "update-ref", f"refs/heads/{branch}", commit, "0" * 40)
    return Outcome(folder, State.UPDATED, template.version, branch, files, conflicts)


def describe(template: Template, old: str, since: str, files: Iterable[str], conflicts: Iterable[str]) -> str:
    """The message of an update's commit: its changelog, its files, and what is left to a person."""
    lines = [f"Update the template from {since} to {template.version}", "", "Changes:"]
    lines += [f"- {subject}" for subject in template.changes(old)] or ["- none in the template itself"]
    lines += ["", "Files:", *(f"- {name}" for name in files)]
    if left := list(conflicts):
        lines += ["", "Changed here and in the template, left as they are here:", *(f"- {name}" for name in left)]
    return "\n".join(lines) + "\n"


def _answers(folder: Path) -> dict[str, Any]:
    document = read_yaml(folder / ANSWERS, within=folder)
    for key in ("_commit", "_src_path"):
        if not isinstance(document.data.get(key), str):
            fix = "run `copier recopy` in the feedstock"
            raise Refused(NO_ANSWERS.at(Place(str(document.path)), f"{ANSWERS} has no `{key}`", fix))
    return dict(document.data)


def _render(clone: Path, commit: str, into: Path, answers: dict[str, Any], place: Place) -> None:
    import copier

    data = {key: value for key, value in answers.items() if not key.startswith("_")}
    # The address that the answers record decides, not that of this clone.
    if origin := _GITHUB.search(answers["_src_path"]):
        data["forge"] = origin[1]
    try:
        copier.run_copy(str(clone), into, data=data, vcs_ref=commit, defaults=True, quiet=True)
    except ValueError as error:  # Copier's own: a validator's words, or a question without answer and default
        fix = "run `copier update` in the feedstock, which asks"
        raise Refused(NEW_QUESTION.at(place, str(error), fix)) from error
    for name in USERS:
        for path in sorted((into / name).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


def _carried(path: Path, answers: dict[str, Any], recorded: str) -> str:
    """The new answers, with the address as the feedstock has it."""
    new = yaml.safe_load(path.read_text(encoding="utf-8")) | {"_src_path": answers["_src_path"]}
    if "forge" not in answers and _GITHUB.search(answers["_src_path"]):
        new.pop("forge", None)
    comments = "".join(line for line in recorded.splitlines(keepends=True) if line.startswith("#"))
    return comments + yaml.dump(new, indent=4, allow_unicode=True, default_flow_style=False)


def _tree(folder: Path, rendered: Path, index: Path) -> str:
    """The rendered files as a tree in the feedstock's own repository."""
    environment = {"GIT_INDEX_FILE": str(index), "GIT_WORK_TREE": str(rendered), "GIT_DIR": _git_dir(folder)}
    _git(rendered, "add", "--all", "--force", ".", environment=environment)
    return _git(rendered, "write-tree", environment=environment)


def _merge(folder: Path, base: str, ours: str, theirs: str, index: Path) -> tuple[str, tuple[str, ...]]:
    """Merge three trees: the merged one, and the files in conflict, which are in it as in ``ours``, without markers."""
    # Two commits on top of the base, since git before 2.45 takes no trees here, and before 2.40 no base.
    parent = _commit(folder, base, [], "base")
    sides = [_commit(folder, tree, [parent], "side") for tree in (ours, theirs)]
    done = _run(folder, "merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", *sides)
    if done.returncode not in (0, 1):
        raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
    tree, *names = done.stdout.split("\0")
    conflicts = tuple(sorted({name for name in names if name}))
    if not conflicts:
        return tree, ()
    environment = {"GIT_INDEX_FILE": str(index), "GIT_DIR": _git_dir(folder)}
    _git(folder, "read-tree", tree, environment=environment)
    removed = "".join(f"0 {'0' * 40}\t{name}\0" for name in conflicts)
    kept = _git(folder, "ls-tree", "-r", "-z", "--full-tree", ours, "--", *conflicts)
    _git(folder, "update-index", "-z", "--index-info", environment=environment, given=removed + kept)
    return _git(folder, "write-tree", environment=environment), conflicts


def _commit(folder: Path, tree: str, parents: list[str], message: str) -> str:
    arguments = [word for parent in parents for word in ("-p", parent)]
    # A person's own name stands on the commit where git knows one.
    known = _run(folder, "config", "user.email").returncode == 0
    return _git(folder, "commit-tree", tree, *arguments, given=message, environment={} if known else _IDENTITY)


def _git_dir(folder: Path) -> str:
    return _git(folder, "rev-parse", "--absolute-git-dir")


def _run(
    folder: Path, *arguments: str, environment: dict[str, str] | None = None, given: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=os.environ | {"GIT_TERMINAL_PROMPT": "0"} | (environment or {}),
        input=given if given is not None else "",
        capture_output=True,
        text=True,
        check=False,
    )


def _git(folder: Path, *arguments: str, environment: dict[str, str] | None = None, given: str | None = None) -> str:
    done = _run(folder, *arguments, environment=environment, given=given)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
    return done.stdout.strip()
