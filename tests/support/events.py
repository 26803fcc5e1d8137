"""GitHub's own example payloads, changed only where a test is about it."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

_EXAMPLES = Path(__file__).parents[1] / "npm/node_modules/@octokit/webhooks-examples/api.github.com/index.json"


INJECTION = "cd $ARTIFACTS; touch pwned"
POISON = f"\"; {INJECTION}; echo '$({INJECTION})' `{INJECTION}` \""
"""Text that leaves a file beside the artifacts if any shell takes it for code."""


@cache
def examples() -> dict[str, list[dict[str, Any]]]:
    """Every example payload by event name."""
    return {entry["name"]: entry["examples"] for entry in json.loads(_EXAMPLES.read_text(encoding="utf-8"))}


def release(tag: str, repository: str, *, repository_id: int = 4242, action: str = "published") -> dict[str, Any]:
    """A release event as GitHub sends it, for a tag of a repository."""
    payload = copy.deepcopy(next(item for item in examples()["release"] if item["action"] == "published"))
    payload["action"] = action
    payload["release"]["tag_name"] = tag
    return _of(payload, repository, repository_id)


def push(commit: str, repository: str, *, repository_id: int = 4242, message: str = "Update") -> dict[str, Any]:
    """A push to the default branch as GitHub sends it."""
    payload = copy.deepcopy(next(item for item in examples()["push"] if item["ref"] == "refs/heads/master"))
    branch = payload["repository"]["default_branch"]
    payload |= {"ref": f"refs/heads/{branch}", "after": commit}
    payload["head_commit"] |= {"id": commit, "message": message, "modified": ["feedstock/recipe.py"]}
    payload["commits"] = [payload["head_commit"]]
    return _of(payload, repository, repository_id)


def tag(name: str, commit: str, repository: str, *, repository_id: int = 4242) -> dict[str, Any]:
    """A push of a tag as GitHub sends it."""
    payload = copy.deepcopy(next(item for item in examples()["push"] if item["ref"].startswith("refs/tags/")))
    return _of(payload | {"ref": f"refs/tags/{name}", "after": commit}, repository, repository_id)


def pull_request(commit: str, repository: str, *, repository_id: int = 4242) -> dict[str, Any]:
    """A pull request that somebody opens from a fork, as GitHub sends it."""
    payload = copy.deepcopy(next(item for item in examples()["pull_request"] if item["action"] == "opened"))
    payload["pull_request"]["head"] |= {"sha": commit, "ref": f"more-{POISON}"}
    payload["pull_request"]["head"]["repo"] |= {"full_name": "mallory/fork", "fork": True}
    return _of(payload, repository, repository_id)


def comment(repository: str, number: int, *, repository_id: int = 4242) -> dict[str, Any]:
    """A comment on a pull request, as GitHub sends it."""
    payload = copy.deepcopy(next(item for item in examples()["issue_comment"] if item["action"] == "created"))
    payload["issue"] |= {
        "number": number,
        "pull_request": {"url": f"https://api.github.com/repos/{repository}/pulls/1"},
    }
    return _of(payload, repository, repository_id)


def dispatch(repository: str, inputs: dict[str, str], *, repository_id: int = 4242) -> dict[str, Any]:
    """A form that somebody fills in under Actions, as GitHub sends it."""
    payload = copy.deepcopy(examples()["workflow_dispatch"][0])
    payload |= {"ref": "refs/heads/main", "inputs": inputs}
    return _of(payload, repository, repository_id)


def run_of(workflow: str, repository: str, head: str, commit: str = "", *, repository_id: int = 4242) -> dict[str, Any]:
    """The end of a run of a workflow, for the pull request from ``owner:branch``."""
    payload = copy.deepcopy(next(item for item in examples()["workflow_run"] if item["action"] == "completed"))
    owner, branch = head.split(":")
    run = payload["workflow_run"]
    run |= {"name": workflow, "head_branch": branch} | ({"head_sha": commit} if commit else {})
    run["head_repository"]["owner"]["login"] = owner
    return _of(payload, repository, repository_id)


def review_ended(repository: str, head: str, *, repository_id: int = 4242) -> dict[str, Any]:
    """The end of the workflow that a review started, for the pull request from ``owner:branch``."""
    payload = run_of("Label review", repository, head, repository_id=repository_id)
    payload["workflow_run"]["event"] = "pull_request_review"
    return payload


def review(repository: str, number: int, *, repository_id: int = 4242) -> dict[str, Any]:
    """A review of a pull request, as GitHub sends it."""
    payload = copy.deepcopy(examples()["pull_request_review"][0])
    payload["pull_request"]["number"] = number
    return _of(payload, repository, repository_id)


def run_ended(run: str, repository: str, *, repository_id: int = 4242) -> dict[str, Any]:
    """What Prefect's webhook makes GitHub send when a run has ended."""
    payload = copy.deepcopy(examples()["repository_dispatch"][0])
    payload |= {"action": "feedstock-run-ended", "client_payload": {"run": run}}
    return _of(payload, repository, repository_id)


def _of(payload: dict[str, Any], repository: str, repository_id: int) -> dict[str, Any]:
    owner, name = repository.split("/")
    payload["repository"] |= {"full_name": repository, "name": name, "id": repository_id}
    payload["repository"]["owner"]["login"] = owner
    return payload


def poisoned(payload: Any) -> Any:
    """The same event with poison in every text that a person chooses freely."""
    free = ("name", "body", "target_commitish", "message", "title", "email", "login", "description", "label")
    if isinstance(payload, list):
        return [poisoned(item) for item in payload]
    if not isinstance(payload, dict):
        return payload
    changed = {key: poisoned(value) for key, value in payload.items()}
    return {
        key: f"{value or ''} {POISON}" if key in free and isinstance(value, str | None) else value
        for key, value in changed.items()
    }


def write(payload: dict[str, Any], path: Path) -> Path:
    """Write a payload where a job would find it."""
    path.write_text(json.dumps(payload), encoding="utf-8")
    return path
