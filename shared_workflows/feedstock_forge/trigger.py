"""A GitHub event becomes a :class:`Trigger`, or "nothing to do, because …".

Who acts on what is decided here and nowhere else. Identity (repository, commit, ref, actor) comes from the job's own
environment, which GitHub sets and no recipe can reach; the payload of the same event fills in what the environment
does not carry. Payloads: https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .findings import Place, Refused, rule
from .git import clone_url
from .meta import FOLDER, Event, slug
from .models import shown
from .yaml_file import read_text

Mode = Literal["complete", "update"]

NO_EVENT = rule("event-missing", "Without an event there is no telling what to register.")
BAD_PAYLOAD = rule("event-unreadable", "The payload is not what GitHub sends for this event.")
OTHER_REPOSITORY = rule("event-other-repository", "A payload of another repository must not act in this one's name.")
NO_COMMIT = rule("event-commit-unknown", "A deployment is pinned to exactly one commit.")
BAD_TAG = rule("event-tag-invalid", "The release tag becomes a version, a tag in the dataset and part of a page.")

UNNAMED = "local"
"""The owner in a preview of a checkout that no remote names."""

MAX_PAYLOAD = 25 << 20  # bytes; GitHub caps webhook payloads at 25 MB

_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# The first line that GitHub writes for a merge commit, or for a squash.
_PULL_REQUEST = re.compile(r"\AMerge pull request #([0-9]{1,10}) |\A[^\n]*\(#([0-9]{1,10})\)[ \t]*(?:\n|\Z)")
# Events that do have an answer, elsewhere.
_ELSEWHERE = {
    "pull_request": "a pull request registers nothing; its merge arrives as a push",
    "issue_comment": "a comment registers nothing; to run a recipe again, start the workflow Register under Actions",
    "repository_dispatch": "a dispatch says that a run has ended; `feedstock status report` answers it",
    "schedule": "the clock registers nothing; `feedstock status reconcile` answers it",
}
# git's own rules for a ref name (git-check-ref-format), less what has a meaning in shells, Markdown and URLs.
_TAG = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._+-]|/(?=[A-Za-z0-9])){0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Trigger:
    """What to register and in whose name."""

    repository: str
    """``owner/name``."""
    repository_id: int
    server: str
    """Where the repository lives, such as ``https://github.com``."""
    commit: str
    """The full SHA that is registered."""
    event: Event
    """What grants and ``meta.yaml`` call the event: ``release`` or ``merge``."""
    mode: Mode
    version: str
    """The release tag or the commit SHA."""
    actor: str
    pull_request: int | None = None
    recipe: str | None = None
    """The only recipe to run, where a person asked for one."""
    attempt: str = ""
    """Sets a run that a person asks for again apart from the first."""
    folder: str = ""
    """The folder of a proposed recipe in a repository of many; nothing for a feedstock's own. Runs pruned only."""

    @property
    def feedstock(self) -> str:
        """The feedstock's id: the repository's name without ``-feedstock``."""
        return slug(self.repository)

    @property
    def clone_url(self) -> str:
        """Where git clones the repository from."""
        return clone_url(self.server, self.repository)


@dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing is to be registered, and why."""

    because: str


class _Payload(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)


class _Repository(_Payload):
    id: int
    full_name: str
    default_branch: str = "main"


class _User(_Payload):
    login: str


class _Common(_Payload):
    repository: _Repository
    sender: _User | None = None


class _Commit(_Payload):
    id: str
    message: str = ""
    added: list[str] | None = None
    removed: list[str] | None = None
    modified: list[str] | None = None


class _Push(_Common):
    ref: str
    after: str
    deleted: bool = False
    head_commit: _Commit | None = None
    commits: list[_Commit] = Field(default_factory=list)


class _Release(_Payload):
    tag_name: str
    draft: bool = False
    prerelease: bool = False


class _ReleaseEvent(_Common):
    action: str
    release: _Release


class _Inputs(_Payload):
    recipe: str = ""


class _Dispatch(_Common):
    ref: str
    inputs: _Inputs | None = None


def from_environment(environment: Mapping[str, str], folder: Path | None = None) -> Trigger | Nothing:
    """The trigger of the GitHub Actions job whose environment this is.

    Reads ``GITHUB_EVENT_NAME`` and ``GITHUB_EVENT_PATH``; raises :class:`Refused` where they are missing or wrong.
    """
    name, path = environment.get("GITHUB_EVENT_NAME"), environment.get("GITHUB_EVENT_PATH")
    if not name or not path:
        raise Refused(
            NO_EVENT.at(
                None,
                "no event was given",
                "run this in GitHub Actions, or pass --event-name and --event FILE",
            )
        )
    return read(name, Path(path), environment, folder)


def read(
    name: str, payload: Path, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> Trigger | Nothing:
    """The trigger for the event ``name`` with the JSON payload in a file.

    ``environment`` holds GitHub's own variables where there are any; ``folder`` is a checkout in which a release's tag
    is looked up where the environment names no commit. Raises :class:`Refused` with an ``event-*`` finding.
    """
    place = Place(str(payload))
    try:
        content = json.loads(read_text(payload, max_bytes=MAX_PAYLOAD))
        if not isinstance(content, dict):
            raise ValueError("it is not an object")
    except (ValueError, RecursionError) as error:
        raise Refused(
            BAD_PAYLOAD.at(place, f"{payload.name} is not JSON: {error}", "pass the payload as GitHub sends it")
        ) from None
    try:
        return decide(name, content, environment or {}, folder)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in detail["loc"])
        raise Refused(
            BAD_PAYLOAD.at(
                place,
                f"not a `{name}` payload: {where}: {detail['msg'].lower()}",
                "pass the payload as GitHub sends it, with the --event-name that belongs to it",
            )
        ) from None


def suppose(event: Event, folder: Path, environment: Mapping[str, str]) -> Trigger:
    """The trigger that a merge or a release of the checkout in ``folder`` would be: for previews, never registered.

    Raises :class:`Refused` if the checkout has no commit yet.
    """
    remote = _git(folder, "remote", "get-url", "origin")
    path = re.search(r"([^/:]+/[^/]+?)(?:\.git)?/?\Z", remote or "")
    named = environment.get("GITHUB_REPOSITORY") or (path[1] if path else f"{UNNAMED}/{folder.resolve().name}")
    commit = environment.get("GITHUB_SHA") or _resolve(folder, "HEAD")
    return Trigger(
        repository=named,
        repository_id=own_id(environment),
        server=environment.get("GITHUB_SERVER_URL") or "https://github.com",
        commit=commit,
        event=event,
        mode="complete" if event == "release" else "update",
        version=commit,
        actor=environment.get("GITHUB_ACTOR", ""),
    )


def decide(
    name: str, payload: Mapping[str, Any], environment: Mapping[str, str], folder: Path | None = None
) -> Trigger | Nothing:
    """Decide for a parsed payload; see :func:`read`. Raises ``ValidationError`` for a payload of another shape."""
    match name:
        case "push":
            return _push(_Push.model_validate(payload), environment)
        case "release":
            return _release(_ReleaseEvent.model_validate(payload), environment, folder)
        case "workflow_dispatch":
            return _dispatch(_Dispatch.model_validate(payload), environment, folder)
        case _:
            return Nothing(_ELSEWHERE.get(name, f"a `{name}` event registers nothing"))


def _push(push: _Push, environment: Mapping[str, str]) -> Trigger | Nothing:
    branch = push.ref.removeprefix("refs/heads/")
    if push.deleted:
        return Nothing(f"{push.ref} was deleted")
    if push.ref.startswith("refs/tags/"):
        return Nothing(f"the tag {push.ref.removeprefix('refs/tags/')} was pushed; publish a release to register it")
    if branch != push.repository.default_branch:
        return Nothing(f"`{branch}` is not the default branch `{push.repository.default_branch}`")
    if _elsewhere(push.commits):
        return Nothing(f"the push touches nothing under {FOLDER}/")
    message = push.head_commit.message if push.head_commit else ""
    numbers = _PULL_REQUEST.search(message)
    number = int(next(group for group in numbers.groups() if group)) if numbers else None
    commit = environment.get("GITHUB_SHA") or push.after
    return _trigger(push, environment, commit, event="merge", version=commit, pull_request=number)


def _elsewhere(commits: list[_Commit]) -> bool:
    """Whether the commits list their files and none is the feedstock's. Payloads inside Actions list no files."""
    files = [(commit.added, commit.removed, commit.modified) for commit in commits]
    if not files or any(part is None for parts in files for part in parts):
        return False
    return not any(file.startswith(f"{FOLDER}/") for parts in files for part in parts if part for file in part)


def _release(event: _ReleaseEvent, environment: Mapping[str, str], folder: Path | None) -> Trigger | Nothing:
    release = event.release
    if release.draft:
        return Nothing(f"the release {release.tag_name} is a draft")
    if event.action != "published":
        return Nothing(f"the release {release.tag_name} was {event.action}; only publishing registers")
    if release.prerelease:
        return Nothing(f"the release {release.tag_name} is a pre-release")
    _check_tag(release.tag_name)
    # Any commit may be released, on the default branch or not: an older major version is mended on a branch of its own.
    commit = environment.get("GITHUB_SHA") or _resolve(folder, f"refs/tags/{release.tag_name}")
    return _trigger(event, environment, commit, event="release", version=release.tag_name)


def _check_tag(tag: str) -> None:
    if not _TAG.fullmatch(tag) or ".." in tag:
        raise Refused(
            BAD_TAG.at(
                None,
                f"the release tag {tag!r} is not usable as a version",
                "name the tag with letters, digits, `.`, `_`, `+`, `-` or `/`, such as `v1.0.0`",
            )
        )


def _dispatch(event: _Dispatch, environment: Mapping[str, str], folder: Path | None) -> Trigger | Nothing:
    if event.ref.startswith("refs/tags/"):
        _check_tag(event.ref.removeprefix("refs/tags/"))
    commit = environment.get("GITHUB_SHA") or _resolve(folder, event.ref)
    recipe = event.inputs.recipe if event.inputs and event.inputs.recipe else None
    # A person asked: each request is a run of its own, and re-running the same job is not.
    attempt = f"dispatch-{environment.get('GITHUB_RUN_ID', 'local')}"
    if event.ref.startswith("refs/tags/"):
        version = event.ref.removeprefix("refs/tags/")
        return _trigger(event, environment, commit, event="release", version=version, recipe=recipe, attempt=attempt)
    if event.ref == f"refs/heads/{event.repository.default_branch}":
        return _trigger(event, environment, commit, event="merge", version=commit, recipe=recipe, attempt=attempt)
    return Nothing(f"{event.ref} is neither a tag nor the default branch `{event.repository.default_branch}`")


def _trigger(
    payload: _Common, environment: Mapping[str, str], commit: str, *, event: Event, version: str, **rest: Any
) -> Trigger:
    repository = environment.get("GITHUB_REPOSITORY") or payload.repository.full_name
    repository_id = own_id(environment) or payload.repository.id
    same_name = repository.lower() == payload.repository.full_name.lower()
    if not same_name or repository_id != payload.repository.id:
        raise Refused(
            OTHER_REPOSITORY.at(
                None,
                f"the payload is of {payload.repository.full_name} ({payload.repository.id}), "
                f"the job of {repository} ({repository_id})",
                "let the job act on the event that started it",
            )
        )
    if not _SHA.fullmatch(commit):
        raise Refused(
            NO_COMMIT.at(None, f"`{commit}` is not a full commit SHA", "set GITHUB_SHA to the commit to register")
        )
    actor = environment.get("GITHUB_ACTOR") or (payload.sender.login if payload.sender else "")
    return Trigger(
        repository=repository,
        repository_id=repository_id,
        server=environment.get("GITHUB_SERVER_URL") or "https://github.com",
        commit=commit,
        event=event,
        mode="complete" if event == "release" else "update",
        version=version,
        actor=actor,
        **rest,
    )


def own_id(environment: Mapping[str, str]) -> int:
    """GitHub's id of the job's repository; 0 where none is named. Raises :class:`Refused` for what is no id."""
    named = environment.get("GITHUB_REPOSITORY_ID") or "0"
    if not re.fullmatch(r"[0-9]{1,18}", named):
        message = f"GITHUB_REPOSITORY_ID is {shown(named)}, which is no repository's id"
        raise Refused(OTHER_REPOSITORY.at(None, message, "leave it as GitHub sets it, or unset it"))
    return int(named)


def _resolve(folder: Path | None, ref: str) -> str:
    """The commit that a ref names in a checkout."""
    commit = _git(folder or Path(), "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if not commit:
        raise Refused(
            NO_COMMIT.at(None, f"no commit is known for {ref}", "set GITHUB_SHA, or run this in a checkout that has it")
        )
    return commit


def _git(folder: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    return None if done.returncode else done.stdout.strip()
