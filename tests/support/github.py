"""A stand-in for GitHub on loopback: real git repositories, everything else in memory.

It takes only requests that GitHub's own OpenAPI documents and gives only answers that are valid by it, each made from
GitHub's own example of that answer. What is wrong with either is in ``problems``, which a test asserts to be empty.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import datetime
import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from . import github_api
from .feedstocks import git

Answer = Callable[..., Any]


class Missing(Exception):  # noqa: N818 - says what it is
    """What GitHub answers with another status than success."""

    def __init__(self, status: int = 404, message: str = "Not Found") -> None:
        super().__init__(message)
        self.status = status


@dataclass
class GitHub:
    """The state of the stand-in, and its address. ``folder`` holds ``<owner>/<name>``, as git's server would."""

    folder: Path
    url: str = ""
    repositories: dict[str, int] = field(default_factory=dict)
    users: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    """The login behind each token."""
    roles: dict[tuple[str, str], str] = field(default_factory=dict)
    """The role of a login in a repository."""
    pulls: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    reviews: dict[tuple[str, int], list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    comments: dict[tuple[str, int], list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    statuses: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    labels: dict[tuple[str, int], list[str]] = field(default_factory=lambda: defaultdict(list))
    deployments: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    """The deployments of a repository, oldest first, each with its ``statuses``."""
    releases: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """The releases by repository and tag."""
    dispatches: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    topics: dict[str, list[str]] = field(default_factory=dict)
    rulesets: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    invited: dict[tuple[str, str], str] = field(default_factory=dict)
    """The permission that a login was invited to a repository with."""
    started: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The workflows of a repository that were started by hand."""
    runs: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    """The runs of a repository's workflows, newest first."""
    rerun: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    timelines: dict[tuple[str, int], list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    """What happened to a pull request, beside what is told elsewhere."""
    former: dict[str, str] = field(default_factory=dict)
    """What a repository is called now, by a name that it had."""
    faults: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)
    """Answers to give instead: a pattern of ``METHOD /path``, a status and headers; each is used once."""
    checks: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    """The check runs of a commit; under the name ``*`` of a repository, those of every commit."""
    archived: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    """What only those with a role may see."""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with every answer."""
    watchers: list[Callable[[str], None]] = field(default_factory=list)
    """Called with ``METHOD /path`` before a request is looked at, and with ``done METHOD /path`` once it has worked."""
    later: tuple[int, int, dict[str, str], bool] | None = None
    """Which request from now on gets another answer, its status and headers, and whether it is carried out before."""
    lock: Any = field(default_factory=threading.RLock)
    clock: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))

    def after(
        self, number: int, status: int = 0, headers: dict[str, str] | None = None, *, carried_out: bool = False
    ) -> None:
        """Answer the ``number``-th request from now with a status; none, if it is 0."""
        self.later = (number, status, headers or {}, carried_out) if number else None

    def add(self, name: str, repository_id: int) -> None:
        """Let a repository that lies in ``folder`` be known, or make an empty bare one."""
        path = self.folder / name
        if not path.exists():
            path.mkdir(parents=True)
            git(path, "init", "--quiet", "--bare")
        self.repositories[name] = repository_id

    def person(self, login: str, user_id: int, roles: dict[str, str] | None = None) -> str:
        """Let a person be known, with roles in repositories (``{"owner/name": "write"}``); returns their token."""
        self.users[login] = user_id
        for name, role in (roles or {}).items():
            self.roles[name, login] = role
        self.tokens[token := f"token-of-{login}"] = login
        return token

    def review(self, repository: str, number: int, login: str, *, state: str = "APPROVED", body: str = "") -> None:
        """Let a person review a pull request as it stands now."""
        head = self.head(repository, self.pulls[repository][number - 1])
        self.reviews[repository, number].append(
            {"user": self._user(login), "state": state, "body": body, "commit_id": head, "submitted_at": self.now()}
        )

    def say(self, repository: str, number: int, login: str, body: str) -> None:
        """Let a person comment on a pull request."""
        count = sum(map(len, self.comments.values())) + 1
        comment = {"id": count, "body": body, "login": login, "created_at": self.now()}
        self.comments[repository, number].append(comment)

    def now(self) -> str:
        """The time here: a second later at each look, so that what happens has an order."""
        self.clock += datetime.timedelta(seconds=1)
        return self.clock.strftime("%Y-%m-%dT%H:%M:%SZ")

    def publish(self, repository: str, tag: str, body: str | None = None) -> None:
        """Let a release be published."""
        number = len(self.releases) + 1
        self.releases[repository, tag] = {"id": number, "tag_name": tag, "body": body}

    def states(self, repository: str) -> dict[str, list[str]]:
        """The states that each environment's newest deployment went through."""
        return {
            row["environment"]: [status["state"] for status in row["statuses"]] for row in self.deployments[repository]
        }

    def open(self, repository: str, branch: str, login: str, title: str = "Change") -> int:
        """Let a person open a pull request from a branch of the same repository."""
        owner = repository.split("/")[0]
        self._create_pull(repository, login, {"title": title, "head": f"{owner}:{branch}", "base": "main"})
        return len(self.pulls[repository])

    def head(self, repository: str, pull: dict[str, Any]) -> str:
        """The commit that a pull request's branch is at."""
        return git(self.folder / pull["from"], "rev-parse", f"refs/heads/{pull['branch']}")

    def _user(self, login: str) -> dict[str, Any]:
        kind = "Bot" if login.endswith("[bot]") else "User"
        return {"login": login, "id": self.users[login], "type": kind}

    def _named(self, owner: str, repo: str) -> str:
        name = f"{owner}/{repo}"
        if name not in self.repositories:
            raise Missing
        return name

    def _sees(self, name: str, login: str | None) -> bool:
        return name not in self.private or (name, login or "") in self.roles

    def _pull(self, name: str, number: str) -> dict[str, Any]:
        pulls = self.pulls[name]
        if not 0 < int(number) <= len(pulls):
            raise Missing
        return pulls[int(number) - 1]

    def _repository(self, name: str, login: str | None) -> dict[str, Any]:
        role = self.roles.get((name, login or ""), "read")
        levels = ["read", "triage", "write", "maintain", "admin"]
        may = {"pull": 0, "triage": 1, "push": 2, "maintain": 3, "admin": 4}
        owner = name.split("/")[0]
        return {
            "id": self.repositories[name],
            "name": name.split("/")[1],
            "full_name": name,
            "owner": {"login": owner},
            "default_branch": "main",
            "private": name in self.private,
            "archived": name in self.archived,
            "permissions": {key: levels.index(role) >= level for key, level in may.items()},
        }

    def _shown(self, name: str, pull: dict[str, Any]) -> dict[str, Any]:
        head = self.head(name, pull)
        base = git(self.folder / name, "rev-parse", "refs/heads/main")
        number = pull["number"]
        return {
            "number": number,
            "state": pull["state"],
            "merged_at": pull.get("merged_at"),
            "title": pull["title"],
            "body": pull["body"],
            "user": self._user(pull["author"]),
            "draft": pull["draft"],
            "created_at": pull["created_at"],
            "labels": [{"name": label} for label in self.labels[name, number]],
            "html_url": f"https://github.com/{name}/pull/{number}",
            "head": {
                "ref": pull["branch"],
                "sha": head,
                "label": f"{pull['from'].split('/')[0]}:{pull['branch']}",
                "repo": self._repository(pull["from"], None),
            },
            "base": {"ref": "main", "sha": base, "repo": self._repository(name, None)},
        }

    def _create_repository(self, name: str, login: str, body: dict[str, Any]) -> dict[str, Any]:
        if name in self.repositories:
            raise Missing(422, "name already exists on this account")
        self.add(name, 10**6 + len(self.repositories))
        git(self.folder / name, "symbolic-ref", "HEAD", "refs/heads/main")
        self.private |= {name} if body.get("private") else set()
        self.roles[name, login] = "admin"
        return {**self._repository(name, login), "description": body.get("description")}

    def merge(self, repository: str, number: int) -> None:
        """Merge a pull request of the same repository into its default branch, with a merge commit."""
        pull, folder = self.pulls[repository][number - 1], self.folder / repository
        tree = git(folder, "merge-tree", "--write-tree", "main", pull["branch"])
        message = f"Merge pull request #{number} from {pull['author']}/{pull['branch']}"
        parents = ["-p", "main", "-p", pull["branch"]]
        pull["commits"] = git(folder, "rev-list", f"main..{pull['branch']}").split()
        git(folder, "update-ref", "refs/heads/main", git(folder, "commit-tree", tree, *parents, "-m", message))
        pull |= {"state": "closed", "merged_at": "2026-11-25T12:00:00Z"}

    def _create_pull(self, name: str, login: str, body: dict[str, Any]) -> dict[str, Any]:
        owner, branch = body["head"].split(":")
        source = f"{owner}/{name.split('/')[1]}"
        if any(
            pull["from"] == source and pull["branch"] == branch and pull["state"] == "open" for pull in self.pulls[name]
        ):
            raise Missing(422, "A pull request already exists")
        pull = {
            "number": len(self.pulls[name]) + 1,
            "state": "open",
            "title": body["title"],
            "body": body.get("body"),
            "author": login,
            "from": source,
            "branch": branch,
            "draft": bool(body.get("draft")),
            "created_at": self.now(),
        }
        self.head(name, pull)
        self.pulls[name].append(pull)
        return pull

    def _comment(self, name: str, number: int, comment: dict[str, Any]) -> dict[str, Any]:
        page = f"https://github.com/{name}/issues/{number}#issuecomment-{comment['id']}"
        return {**comment, "user": self._user(comment["login"]), "html_url": page}

    def answer(
        self, template: str, method: str, at: dict[str, str], query: dict[str, str], body: Any, login: str | None
    ) -> Any:
        """What GitHub would answer, as far as it matters here. Raises :class:`Missing` for another status."""
        if method != "GET" and login is None:
            raise Missing(401, "Requires authentication")
        if "owner" in at and f"{at['owner']}/{at['repo']}" in self.former:
            at["owner"], at["repo"] = self.former[f"{at['owner']}/{at['repo']}"].split("/")
        name = self._named(at["owner"], at["repo"]) if "owner" in at else ""
        if name and not self._sees(name, login):
            raise Missing
        match f"{method} {template.replace('/repos/{owner}/{repo}', '')}":
            case "GET ":
                return self._repository(name, login)
            case "GET /orgs/{org}/repos":
                names = [known for known in sorted(self.repositories) if known.startswith(f"{at['org']}/")]
                if not names or at["org"] in self.users:
                    raise Missing
                return [self._repository(known, login) for known in names if self._sees(known, login)]
            case "GET /users/{username}/repos":
                names = [known for known in sorted(self.repositories) if known.startswith(f"{at['username']}/")]
                return [self._repository(known, login) for known in names if known not in self.private]
            case "GET /user/repos":
                names = [known for known in sorted(self.repositories) if known.startswith(f"{login}/")]
                return [self._repository(known, login) for known in names]
            case "GET /rate_limit":
                core = {"limit": 5000, "remaining": 4990, "reset": 1800000000, "used": 10}
                return {"resources": {"core": core}, "rate": core}
            case "GET /commits/{ref}/check-runs":
                runs = [*self.checks[name, "*"], *self.checks[name, at["ref"]]]
                return {"total_count": len(runs), "check_runs": runs}
            case "GET /commits/{ref}/status":
                given = self.statuses[name, at["ref"]]
                return {"state": "pending", "total_count": len(given), "statuses": given}
            case "POST /forks":
                fork = f"{login}/{at['repo']}"
                if fork not in self.repositories:
                    (self.folder / fork).parent.mkdir(exist_ok=True)
                    git(self.folder, "clone", "--quiet", "--bare", str(self.folder / name), fork)
                    self.repositories[fork] = 10**6 + len(self.repositories)
                    self.roles[fork, str(login)] = "admin"
                return self._repository(fork, login)
            case "GET /releases/tags/{tag}":
                return self._release(name, unquote(at["tag"]))
            case "POST /releases":
                if (name, body["tag_name"]) in self.releases:
                    raise Missing(422, "Validation Failed")
                self.releases[name, body["tag_name"]] = {"id": len(self.releases) + 1, **body}
                return self._release(name, body["tag_name"])
            case "POST /orgs/{org}/repos":
                return self._create_repository(f"{at['org']}/{body['name']}", str(login), body)
            case "GET /topics":
                return {"names": self.topics.get(name, [])}
            case "PUT /topics":
                self.topics[name] = body["names"]
                return {"names": body["names"]}
            case "GET /rulesets":
                return [{"id": n, "name": row["name"]} for n, row in enumerate(self.rulesets[name], 1)]
            case "POST /rulesets":
                self.rulesets[name].append(body)
                return {"id": len(self.rulesets[name]), "name": body["name"], "enforcement": body["enforcement"]}
            case "PUT /collaborators/{username}":
                if at["username"] not in self.users:
                    raise Missing
                self.invited[name, at["username"]] = body["permission"]
                return {"permissions": "write"}
            case "GET /commits/{commit_sha}/pulls":
                pulls = [pull for pull in self.pulls[name] if at["commit_sha"] in pull.get("commits", [])]
                return [self._shown(name, pull) for pull in pulls]
            case "GET /actions/workflows/{workflow_id}/runs":
                asked = query.get("head_sha")
                rows = [run for run in self.runs[name] if asked in (None, run["head_sha"])]
                return {"total_count": self.started[name].count(at["workflow_id"]) + len(rows), "workflow_runs": rows}
            case "POST /actions/runs/{run_id}/rerun":
                self.rerun[name].append(int(at["run_id"]))
                return {}
            case "GET /issues/{issue_number}/timeline":
                return self.timelines[name, int(at["issue_number"])]
            case "POST /actions/workflows/{workflow_id}/dispatches":
                self.started[name].append(at["workflow_id"])
                return {}
            case "GET /user":
                if login is None:
                    raise Missing(401, "Requires authentication")
                return self._user(login)
            case "GET /users/{username}":
                if at["username"] not in self.users:
                    raise Missing
                return self._user(at["username"])
            case "GET /collaborators/{username}/permission":
                if at["username"] not in self.users:
                    raise Missing
                role = self.roles.get((name, at["username"]), "read")
                simple = {"maintain": "write", "triage": "read"}.get(role, role)
                return {"permission": simple, "role_name": role, "user": self._user(at["username"])}
            case "GET /contents/{path}":
                return self._contents(name, unquote(at["path"]), query.get("ref", "refs/heads/main"))
            case "GET /pulls":
                wanted = query.get("head")
                shown = [
                    self._shown(name, pull) for pull in self.pulls[name] if query.get("state") in (pull["state"], "all")
                ]
                return [pull for pull in shown if wanted in (None, pull["head"]["label"])]
            case "POST /pulls":
                return self._shown(name, self._create_pull(name, str(login), body))
            case "GET /pulls/{pull_number}":
                return self._shown(name, self._pull(name, at["pull_number"]))
            case "PATCH /pulls/{pull_number}":
                pull = self._pull(name, at["pull_number"])
                pull |= body
                return self._shown(name, pull)
            case "GET /pulls/{pull_number}/files":
                return self._files(name, self._pull(name, at["pull_number"]))
            case "GET /pulls/{pull_number}/reviews":
                return list(self.reviews[name, int(at["pull_number"])])
            case "POST /pulls/{pull_number}/requested_reviewers":
                pull = self._pull(name, at["pull_number"])
                if any((name, reviewer) not in self.roles for reviewer in body["reviewers"]):
                    raise Missing(422, "Reviews may only be requested from collaborators")
                pull["reviewers"] = body["reviewers"]
                return self._shown(name, pull)
            case "GET /issues/{issue_number}/comments":
                number = int(at["issue_number"])
                return [self._comment(name, number, comment) for comment in self.comments[name, number]]
            case "POST /issues/{issue_number}/comments":
                number = int(at["issue_number"])
                self.say(name, number, str(login), body["body"])
                return self._comment(name, number, self.comments[name, number][-1])
            case "POST /issues/{issue_number}/labels":
                held = self.labels[name, int(at["issue_number"])]
                held += [label for label in body["labels"] if label not in held]
                return [{"name": label} for label in held]
            case "DELETE /issues/{issue_number}/labels/{name}":
                held = self.labels[name, int(at["issue_number"])]
                if unquote(at["name"]) not in held:
                    raise Missing(404, "Label does not exist")
                held.remove(unquote(at["name"]))
                return [{"name": label} for label in held]
            case "PATCH /issues/comments/{comment_id}":
                for (repository, number), comments in self.comments.items():
                    for comment in comments:
                        if repository == name and comment["id"] == int(at["comment_id"]):
                            comment["body"] = body["body"]
                            return self._comment(name, number, comment)
                raise Missing
            case "GET /deployments":
                kept = ("sha", "task", "environment")
                return [
                    self._deployment(name, row)
                    for row in reversed(self.deployments[name])
                    if all(query.get(key, row[key]) == row[key] for key in kept)
                ]
            case "POST /deployments":
                count = sum(map(len, self.deployments.values())) + 1
                made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                row = {"task": "deploy", "environment": "production", "payload": {}, **body}
                row |= {"id": count, "sha": body["ref"], "created_at": made, "login": login, "statuses": []}
                self.deployments[name].append(row)
                return self._deployment(name, row)
            case "GET /deployments/{deployment_id}/statuses":
                row = self._deployed(name, at["deployment_id"])
                return [self._deployment_status(row, status) for status in reversed(row["statuses"])]
            case "POST /deployments/{deployment_id}/statuses":
                row = self._deployed(name, at["deployment_id"])
                if len(body.get("description", "")) > 140:
                    raise Missing(422, "Validation Failed")
                row["statuses"].append({"id": row["id"] * 1000 + len(row["statuses"]), **body})
                return self._deployment_status(row, row["statuses"][-1])
            case "PATCH /releases/{release_id}":
                for (repository, tag), release in self.releases.items():
                    if repository == name and release["id"] == int(at["release_id"]):
                        release |= body
                        return self._release(name, tag)
                raise Missing
            case "POST /dispatches":
                self.dispatches.append((name, body))
                return None
            case "POST /statuses/{sha}":
                self.statuses[name, at["sha"]].append(body | {"created_at": self.now()})
                return body
            case "GET /commits/{ref}/statuses":
                return self.statuses[name, at["ref"]][::-1]
        raise github_api.Undocumented(f"the stand-in does not know {method} {template}")

    def _deployed(self, name: str, number: str) -> dict[str, Any]:
        found = next((row for row in self.deployments[name] if row["id"] == int(number)), None)
        if found is None:
            raise Missing
        return found

    def _deployment(self, name: str, row: dict[str, Any]) -> dict[str, Any]:
        shown = ("id", "sha", "ref", "task", "environment", "description", "payload", "created_at")
        return {key: row[key] for key in shown if key in row} | {"creator": self._user(row["login"])}

    def _deployment_status(self, row: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
        return {**status, "environment": row["environment"]}

    def _release(self, name: str, tag: str) -> dict[str, Any]:
        if (name, tag) not in self.releases:
            raise Missing
        return {**self.releases[name, tag], "html_url": f"https://github.com/{name}/releases/tag/{tag}"}

    def _contents(self, name: str, path: str, ref: str) -> Any:
        folder = self.folder / name
        listed = git(folder, "ls-tree", ref, "--", path)
        if not listed:
            raise Missing
        if " tree " in listed:
            files = git(folder, "ls-tree", "--name-only", ref, "--", f"{path}/").splitlines()
            return [{"type": "file", "name": Path(file).name, "path": file} for file in files]
        content = git(folder, "show", f"{ref}:{path}") + "\n"
        encoded = base64.b64encode(content.encode()).decode()
        return {"type": "file", "encoding": "base64", "name": Path(path).name, "path": path, "content": encoded}

    def _files(self, name: str, pull: dict[str, Any]) -> list[dict[str, Any]]:
        folder, head = self.folder / name, self.head(name, pull)
        if pull["from"] != name:
            git(folder, "fetch", "--quiet", str(self.folder / pull["from"]), head)
        words = {"A": "added", "M": "modified", "D": "removed", "R": "renamed"}
        rows = []
        told = iter(git(folder, "diff", "--name-status", "-z", "--find-renames", f"main...{head}").split("\0")[:-1])
        for kind in told:
            paths = [next(told) for _ in range(2 if kind[0] == "R" else 1)]
            previous = {"previous_filename": paths[0]} if len(paths) > 1 else {}
            rows.append({"filename": paths[-1], "status": words[kind[0]], **previous})
        return rows


def _overlay(base: Any, values: Any) -> Any:
    """GitHub's example with our values in it; a list takes the example's first row for each of ours."""
    if isinstance(base, dict) and isinstance(values, dict):
        return {**base, **{key: _overlay(base.get(key), value) for key, value in values.items()}}
    if isinstance(base, list) and isinstance(values, list) and base and all(isinstance(row, dict) for row in values):
        return [_overlay(copy.deepcopy(base[0]), row) for row in values]
    return values


def _handler(state: GitHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query))
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            body = json.loads(raw) if raw else None
            with state.lock:
                asked = f"{self.command} {parts.path}"
                state.requests.append(asked)
                for watcher in state.watchers:
                    watcher(asked)
                fault = next((fault for fault in state.faults if re.fullmatch(fault[0], asked)), None)
                late = None
                if state.later:
                    number, *rest = state.later
                    state.later = (number - 1, *rest) if number > 1 else None
                    if number == 1 and not rest[2]:
                        return self._send(rest[0], {"message": "a fault of the test's"}, rest[1])
                    late = rest if number == 1 else None
                if fault:
                    state.faults.remove(fault)
                    return self._send(fault[1], {"message": "a fault of the test's"}, fault[2])
                token = self.headers.get("authorization", "").removeprefix("Bearer ")
                if token and token not in state.tokens:
                    return self._send(401, {"message": "Bad credentials"})
                try:
                    template, at = github_api.match(self.command, parts.path, query, body)
                    value = state.answer(template, self.command, at, query, body, state.tokens.get(token))
                    status, base = github_api.example(template, self.command)
                    if isinstance(value, list) and isinstance(base, list):
                        size, page = int(query.get("per_page", 30)), int(query.get("page", 1))
                        value = value[(page - 1) * size : page * size]
                    elif isinstance(value, list):
                        base = [{**base, "type": "file"}]
                    answer = _overlay(base, value)
                    state.problems += [
                        f"answer to {asked}: {wrong}"
                        for wrong in github_api.answer_errors(template, self.command, answer)
                    ]
                    for watcher in state.watchers:
                        watcher(f"done {asked}")
                except Missing as missing:
                    return self._send(missing.status, {"message": str(missing)})
                except Exception as error:
                    state.problems.append(f"{asked}: {error}")
                    return self._send(500, {"message": str(error)})
            if late:
                return self._send(late[0], {"message": "a fault of the test's"}, late[1])
            return self._send(status, answer)

        def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
            content = b"" if status == 204 else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {
                "content-type": "application/json",
                "content-length": str(len(content)),
                **state.headers,
                **(headers or {}),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve  # noqa: N815 - the library's names

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing: what was asked is in ``requests``."""

    return Handler


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[GitHub]:
    """Serve a stand-in for the repositories in a folder, on loopback."""
    state = GitHub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
