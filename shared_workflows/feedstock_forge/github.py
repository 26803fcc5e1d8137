"""GitHub's REST API, spoken to in one place.

Reading and replacing is repeated when GitHub is busy or away; creating only when GitHub says that it did not even
look (a rate limit), since a second pull request or comment is worse than none. API: https://docs.github.com/en/rest
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from . import __version__, certificates
from .credentials import secret
from .findings import Finding, Refused, Who, rule
from .pace import Pace
from .retries import NEVER_SENT, Busy, attempts, is_rows, reason

API = "https://api.github.com"
PATIENCE = 60.0
"""Seconds of retrying one request before giving up."""
FIRST_PATIENCE = 5.0
"""The same while GitHub has not answered once: without a network, that should not take a minute to tell."""
LIMIT_PAUSE = 60.0
"""Seconds to wait where GitHub limits and does not say for how long; what its manual asks for."""
PAGE = 100
"""GitHub's own limit of rows in an answer."""
MAX_PAGES = 100
MAX_FILES = 3000
"""GitHub's own limit of files of a pull request that it lists."""

UNREACHABLE = rule("github-unreachable", "What GitHub knows cannot be asked, and nothing can be proposed there.")
NO_TOKEN = rule("github-token-missing", "GitHub lets nobody change anything without a token.")
UNAUTHORIZED = rule("github-unauthorized", "GitHub does not accept the token for this.", who=Who.ORGANISATION)
NOT_FOUND = rule("github-not-found", "GitHub answers the same for what is not there and for what a token may not see.")
LIMITED = rule("github-rate-limited", "GitHub has had enough requests for now; nothing was changed by this one.")
REFUSED = rule("github-refused", "GitHub answered with an error that trying again does not mend.")
TOO_LARGE = rule("pull-request-too-large", "What is not seen cannot be said to be harmless.")

_AWAY = frozenset({500, 502, 503, 504})
_REPEATABLE = frozenset({"GET", "PUT", "PATCH", "DELETE"})


def token_of(environment: Mapping[str, str]) -> str | None:
    """The token that the environment holds, if any. Raises :class:`Refused` if it cannot be one."""
    return secret(environment, "GITHUB_TOKEN", "GH_TOKEN", refused=UNAUTHORIZED)


class GitHub:
    """A client of one GitHub API, with a token or without."""

    def __init__(
        self,
        url: str = API,
        *,
        token: str | None = None,
        patience: float = PATIENCE,
        say: Callable[[str], None] = lambda _: None,
        pace: Pace | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.token = token
        self.patience = patience
        self.say = say
        self.pace = pace
        """The gate of many requests at once; without one, each waits for itself."""
        self.asked = 0
        self.scopes: str | None = None
        """What a person's classic token may do, as GitHub last said; other tokens have none."""
        self._answered = False
        headers = {
            "accept": "application/vnd.github+json",
            "x-github-api-version": "2022-11-28",
            "user-agent": f"feedstock-forge/{__version__}",
        }
        if token:
            headers["authorization"] = f"Bearer {token}"
        # A renamed repository answers with a redirect; httpx drops the token if that leads to another host.
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=httpx.Timeout(30, connect=10), follow_redirects=True,
            verify=certificates.authorities(),
        )  # fmt: skip

    @classmethod
    def from_environment(
        cls,
        environment: Mapping[str, str],
        *,
        patience: float = PATIENCE,
        say: Callable[[str], None] = lambda _: None,
        pace: Pace | None = None,
    ) -> GitHub:
        """The API that ``GITHUB_API_URL`` names, with ``GITHUB_TOKEN`` or ``GH_TOKEN``."""
        url, token = environment.get("GITHUB_API_URL") or API, token_of(environment)
        try:
            return cls(url, token=token, patience=patience, say=say, pace=pace)
        except httpx.InvalidURL as error:
            message = f"GITHUB_API_URL is {url!r}, which is no URL: {error}"
            raise Refused(UNREACHABLE.at(None, message, f"unset it, or write it as {API}")) from None

    def __enter__(self) -> GitHub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str | int] | None = None,
        missing_ok: bool = False,
    ) -> Any:
        """Send a request, with patience, and return the parsed answer; ``None`` for a 404 that is ``missing_ok``.

        Raises :class:`Refused` with a ``github-*`` finding.
        """
        if method != "GET" and not self.token:
            fix = "set GITHUB_TOKEN (`export GITHUB_TOKEN=$(gh auth token)`)"
            raise Refused(NO_TOKEN.at(None, f"there is no token for {method} {path}", fix))
        what = f"{method} {path}"
        patience = self.patience if self._answered else min(self.patience, FIRST_PATIENCE)
        try:
            for attempt in attempts(patience, first=0.25, longest=20.0):
                with attempt:
                    if attempt.num > 1:
                        self.say(f"GitHub is busy or away; try {attempt.num} of {what}")
                    response = self._send(method, path, body, params)
        except Busy as error:
            after = f" for another {error.after:.0f} s" if error.after else ""
            fix = "run the same command again later"
            raise Refused(LIMITED.at(None, f"GitHub limits {what}{after} ({error})", fix)) from None
        except httpx.TransportError as error:
            fix = "check the network and GITHUB_API_URL, then run the same command again"
            raise Refused(UNREACHABLE.at(None, f"{self.url} does not answer {what}: {reason(error)}", fix)) from None
        except httpx.RequestError as error:
            message = f"{what} answered what cannot be read: {error}"
            raise Refused(REFUSED.at(None, message, "check GITHUB_API_URL")) from None
        return self._read(response, what, missing_ok)

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, params: Mapping[str, str | int] | None
    ) -> httpx.Response:
        if self.pace:
            self.pace.before(method)
        try:
            response = self._http.request(method, path, json=body, params=params)
            self._answered = True
        except httpx.ConnectError:
            raise  # GitHub never saw it, whatever it was
        except httpx.TransportError as error:
            if method in _REPEATABLE or isinstance(error, NEVER_SENT):
                raise
            message = f"{self.url} broke off {method} {path}: {reason(error)}"
            fix = "run the same command again: it finds what was done"
            raise Refused(UNREACHABLE.at(None, message, fix)) from None
        self.asked += 1
        self.scopes = response.headers.get("x-oauth-scopes")
        if self.pace:
            self.pace.after(response.headers)
        if _limited(response):
            after = _wait(response)
            if self.pace:
                self.pace.pause(LIMIT_PAUSE if after is None else after)
                raise Busy(response.status_code, 0.0)
            if after is not None and after > self.patience:
                at = time.strftime("%H:%M UTC", time.gmtime(time.time() + after))
                fix = f"run the same command again after {at}"
                raise Refused(LIMITED.at(None, f"GitHub limits {method} {path} for {after:.0f} s", fix))
            raise Busy(response.status_code, after)
        if response.status_code in _AWAY and method in _REPEATABLE:
            raise Busy(response.status_code, None)
        return response

    def _read(self, response: httpx.Response, what: str, missing_ok: bool) -> Any:
        status = response.status_code
        if status < 300:
            try:
                return response.json() if response.content else None
            except ValueError:
                message = f"{what} answered something that is not JSON"
                raise Refused(REFUSED.at(None, message, "check GITHUB_API_URL")) from None
        if status == 404 and missing_ok:
            return None
        raise Refused(self._refusal(response, what))

    def _refusal(self, response: httpx.Response, what: str) -> Finding:
        said = _said(response)
        if response.status_code in (401, 403):
            held = "the token" if self.token else "no token"
            fix = "set GITHUB_TOKEN to one that may (`gh auth token` prints yours)"
            return UNAUTHORIZED.at(None, f"{what} answered {response.status_code} to {held}: {said}", fix)
        if response.status_code == 404:
            return NOT_FOUND.at(None, f"{what} answered 404", "check the spelling, and that the token may see it")
        return REFUSED.at(None, f"{what} answered {response.status_code}: {said}", "mend what GitHub names")

    def pages(self, path: str, params: Mapping[str, str | int] | None = None) -> Iterator[dict[str, Any]]:
        """Every row of a list, page by page."""
        for page in range(1, MAX_PAGES + 1):
            rows = self.request("GET", path, params={**(params or {}), "per_page": PAGE, "page": page})
            if not is_rows(rows):
                message = f"GET {path} answered something that is no list"
                raise Refused(REFUSED.at(None, message, "check GITHUB_API_URL"))
            yield from rows
            if len(rows) < PAGE:
                return

    def repository(self, name: str) -> dict[str, Any] | None:
        """A repository, by its present name or one that it had; ``None`` if there is none."""
        found: dict[str, Any] | None = self.request("GET", f"/repos/{name}", missing_ok=True)
        return found

    def repositories(self, owner: str) -> list[dict[str, Any]]:
        """The repositories of an organisation or a person that the token may see.

        Raises :class:`Refused` if there is neither.
        """
        try:
            return list(self.pages(f"/orgs/{quote(owner, safe='')}/repos"))
        except Refused as refused:
            if refused.findings[0].rule is not NOT_FOUND:
                raise
        person = self.user(owner)
        if person is None:
            message = f"GitHub knows no organisation and no person called {owner}"
            raise Refused(NOT_FOUND.at(None, message, "check the spelling"))
        if self.token and person["id"] == self._viewer():
            return list(self.pages("/user/repos", {"affiliation": "owner"}))
        return list(self.pages(f"/users/{quote(owner, safe='')}/repos"))

    def budget(self) -> dict[str, Any] | None:
        """The hour's requests: ``limit``, ``remaining``, ``reset`` (a Unix time); ``None`` where none are counted."""
        found = self.request("GET", "/rate_limit", missing_ok=True)
        return dict(found["resources"]["core"]) if found else None

    def checks(self, repository: str, commit: str) -> dict[str, str]:
        """Every check and status of a commit by name: ``pending``, ``success`` or ``failure``; the worst where several
        bear one name."""
        path = f"/repos/{repository}/commits/{commit}"
        runs = self.request("GET", f"{path}/check-runs", params={"per_page": PAGE})["check_runs"]
        combined = self.request("GET", f"{path}/status", params={"per_page": PAGE})["statuses"]
        said = [(str(run["name"]), _verdict(run["conclusion"])) for run in runs]
        said += [(str(status["context"]), _verdict(status["state"])) for status in combined]
        return dict(sorted(said, key=lambda check: ("success", "pending", "failure").index(check[1])))

    def fork(self, name: str) -> dict[str, Any]:
        """The token's own fork of a repository, made if it is missing; GitHub answers before it can be pushed to."""
        return dict(self.request("POST", f"/repos/{name}/forks", {"default_branch_only": True}))

    def user(self, login: str) -> dict[str, Any] | None:
        """A person by login; ``None`` if nobody has it."""
        found: dict[str, Any] | None = self.request("GET", f"/users/{quote(login, safe='')}", missing_ok=True)
        return found

    def role(self, repository: str, login: str) -> str:
        """A person's role in a repository: ``admin``, ``maintain``, ``write``, ``triage``, ``read`` or ``none``."""
        path = f"/repos/{repository}/collaborators/{quote(login, safe='')}/permission"
        found = self.request("GET", path, missing_ok=True)
        return str(found["role_name"]) if found else "none"

    def file(self, repository: str, path: str, ref: str | None = None) -> str | None:
        """A text file at a ref (default: the default branch); ``None`` if there is none that is small UTF-8 text."""
        found = self.request(
            "GET", f"/repos/{repository}/contents/{quote(path)}", params={"ref": ref} if ref else None, missing_ok=True
        )
        if not isinstance(found, dict) or found.get("type") != "file" or found.get("encoding") != "base64":
            return None
        try:
            return base64.b64decode(found["content"]).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            return None

    def folder(self, repository: str, path: str, ref: str | None = None) -> list[str]:
        """The names in a folder at a ref; none if it is not there."""
        found = self.request(
            "GET", f"/repos/{repository}/contents/{quote(path)}", params={"ref": ref} if ref else None, missing_ok=True
        )
        return [row["name"] for row in found] if isinstance(found, list) else []

    def pull(self, repository: str, number: int) -> dict[str, Any]:
        """A pull request."""
        return dict(self.request("GET", f"/repos/{repository}/pulls/{number}"))

    def pulls(self, repository: str, *, state: str, head: str | None = None) -> list[dict[str, Any]]:
        """The pull requests that are ``open``, ``closed`` or ``all``, newest first; of ``owner:branch``, if named."""
        return list(self.pages(f"/repos/{repository}/pulls", {"state": state} | ({"head": head} if head else {})))

    def open_pulls(self, repository: str, head: str) -> list[dict[str, Any]]:
        """The open pull requests from ``owner:branch``."""
        return list(self.pages(f"/repos/{repository}/pulls", {"state": "open", "head": head}))

    def pull_files(self, repository: str, number: int) -> list[dict[str, Any]]:
        """The files that a pull request changes.

        Raises :class:`Refused` if they may not be all: https://docs.github.com/en/rest/pulls/pulls#list-pull-requests-files
        """
        files = list(self.pages(f"/repos/{repository}/pulls/{number}/files"))
        if len(files) >= MAX_FILES:
            message = f"#{number} changes {MAX_FILES:,} files or more, and GitHub lists no more of them"
            raise Refused(TOO_LARGE.at(None, message, "split it into smaller pull requests"))
        return files

    def reviews(self, repository: str, number: int) -> list[dict[str, Any]]:
        """The reviews of a pull request, oldest first."""
        return list(self.pages(f"/repos/{repository}/pulls/{number}/reviews"))

    def comments(self, repository: str, number: int) -> list[dict[str, Any]]:
        """The comments of an issue or a pull request, oldest first."""
        return list(self.pages(f"/repos/{repository}/issues/{number}/comments"))

    def add_labels(self, repository: str, number: int, labels: Sequence[str]) -> None:
        """Put labels on an issue or a pull request; GitHub makes those that the repository lacks."""
        self.request("POST", f"/repos/{repository}/issues/{number}/labels", {"labels": list(labels)})

    def remove_label(self, repository: str, number: int, label: str) -> None:
        """Take a label off an issue or a pull request, if it is there."""
        path = f"/repos/{repository}/issues/{number}/labels/{quote(label, safe='')}"
        self.request("DELETE", path, missing_ok=True)

    def create_pull(self, repository: str, *, head: str, base: str, title: str, body: str) -> dict[str, Any]:
        """Open a pull request."""
        return dict(
            self.request(
                "POST", f"/repos/{repository}/pulls", {"head": head, "base": base, "title": title, "body": body}
            )
        )

    def release(self, repository: str, tag: str) -> dict[str, Any] | None:
        """The published release of a tag; ``None`` if there is none."""
        path = f"/repos/{repository}/releases/tags/{quote(tag, safe='')}"
        found: dict[str, Any] | None = self.request("GET", path, missing_ok=True)
        return found

    def create_release(self, repository: str, *, tag: str, name: str, body: str) -> dict[str, Any]:
        """Publish a release of a tag that is there."""
        wanted = {"tag_name": tag, "name": name, "body": body}
        return dict(self.request("POST", f"/repos/{repository}/releases", wanted))

    def update_pull(self, repository: str, number: int, *, body: str, title: str | None = None) -> None:
        """Replace a pull request's body, and its title if one is given."""
        changed = {"body": body} | ({"title": title} if title else {})
        self.request("PATCH", f"/repos/{repository}/pulls/{number}", changed)

    def request_reviewers(self, repository: str, number: int, logins: Sequence[str]) -> None:
        """Ask people for a review. Raises :class:`Refused` if GitHub does not know one as a collaborator."""
        path = f"/repos/{repository}/pulls/{number}/requested_reviewers"
        self.request("POST", path, {"reviewers": list(logins)})

    def comment(self, repository: str, number: int, marker: str, body: str) -> str:
        """Write the one comment of a pull request that starts with ``marker``, or update it; returns its page.

        Only a comment of an app or of the token's own owner counts: anybody could start one with the marker.
        """
        mine = self._mine(repository, number, marker)
        if mine is None:
            made = self.request("POST", f"/repos/{repository}/issues/{number}/comments", {"body": body})
        elif mine["body"] != body:
            made = self.request("PATCH", f"/repos/{repository}/issues/comments/{mine['id']}", {"body": body})
        else:
            made = mine
        return str(made["html_url"])

    def _mine(self, repository: str, number: int, marker: str) -> dict[str, Any] | None:
        for row in self.comments(repository, number):
            if not (row.get("body") or "").startswith(marker):
                continue
            author = row.get("user") or {}
            if author.get("type") == "Bot" or author.get("id") == self._viewer():
                return row
        return None

    def _viewer(self) -> int | None:
        """The id of the person whose token this is; an app's is nobody's."""
        try:
            return int(self.request("GET", "/user")["id"])
        except Refused:
            return None

    def role_of(self, repository: str, login: str) -> tuple[str, int] | None:
        """A person's role in a repository, and the number of whoever has that login now."""
        path = f"/repos/{repository}/collaborators/{quote(login, safe='')}/permission"
        found = self.request("GET", path, missing_ok=True)
        return (str(found["role_name"]), int(found["user"]["id"])) if found and found.get("user") else None

    def timeline(self, repository: str, number: int) -> list[dict[str, Any]]:
        """What happened to a pull request, oldest first."""
        return list(self.pages(f"/repos/{repository}/issues/{number}/timeline"))

    def newest_run(self, repository: str, workflow: str, commit: str) -> dict[str, Any] | None:
        """The newest run of a workflow for a commit."""
        path = f"/repos/{repository}/actions/workflows/{workflow}/runs"
        found = self.request("GET", path, params={"head_sha": commit, "per_page": 1}, missing_ok=True)
        return dict(found["workflow_runs"][0]) if found and found["workflow_runs"] else None

    def rerun(self, repository: str, run: int) -> None:
        """Run all of a workflow's run again."""
        self.request("POST", f"/repos/{repository}/actions/runs/{run}/rerun")

    def create_repository(self, name: str, *, description: str, private: bool) -> dict[str, Any]:
        """Create an empty repository, of an organisation or of the token's own owner."""
        owner, repository = name.split("/")
        path = "/user/repos" if (self.user(owner) or {}).get("type") == "User" else f"/orgs/{owner}/repos"
        body = {"name": repository, "description": description, "private": private, "has_wiki": False}
        return dict(self.request("POST", path, body | {"has_projects": False, "delete_branch_on_merge": True}))

    def topics(self, repository: str) -> list[str]:
        """The topics of a repository."""
        return list(self.request("GET", f"/repos/{repository}/topics")["names"])

    def set_topics(self, repository: str, names: Sequence[str]) -> None:
        """Replace the topics of a repository."""
        self.request("PUT", f"/repos/{repository}/topics", {"names": list(names)})

    def rulesets(self, repository: str) -> list[dict[str, Any]]:
        """The rulesets of a repository, its organisation's aside."""
        return list(self.pages(f"/repos/{repository}/rulesets", {"includes_parents": "false"}))

    def create_ruleset(self, repository: str, ruleset: Mapping[str, Any]) -> None:
        """Create a ruleset."""
        self.request("POST", f"/repos/{repository}/rulesets", ruleset)

    def invite(self, repository: str, login: str, permission: str) -> None:
        """Give a person a permission in a repository; who is not in the organisation gets an invitation."""
        path = f"/repos/{repository}/collaborators/{quote(login, safe='')}"
        self.request("PUT", path, {"permission": permission})

    def pulls_of(self, repository: str, commit: str) -> list[dict[str, Any]]:
        """The pull requests that a commit came with."""
        return list(self.pages(f"/repos/{repository}/commits/{commit}/pulls"))

    def has_run(self, repository: str, workflow: str) -> bool:
        """Whether a workflow, by its file's name, was ever started."""
        path = f"/repos/{repository}/actions/workflows/{workflow}/runs"
        found = self.request("GET", path, params={"per_page": 1}, missing_ok=True)
        return bool(found and found["total_count"])

    def start(self, repository: str, workflow: str, ref: str) -> None:
        """Start a workflow that has a ``workflow_dispatch``."""
        self.request("POST", f"/repos/{repository}/actions/workflows/{workflow}/dispatches", {"ref": ref})

    def status(self, repository: str, commit: str, *, context: str, state: str, description: str, url: str) -> None:
        """Set a commit's status: ``pending``, ``success``, ``failure`` or ``error``."""
        body = {"state": state, "context": context, "description": description[:140]}
        self.request("POST", f"/repos/{repository}/statuses/{commit}", body | ({"target_url": url} if url else {}))

    def statuses(self, repository: str, commit: str) -> list[dict[str, Any]]:
        """Every status that a commit was given, newest first."""
        return list(self.pages(f"/repos/{repository}/commits/{quote(commit, safe='')}/statuses"))

    def deployments(self, repository: str, *, task: str, commit: str | None = None) -> Iterator[dict[str, Any]]:
        """The deployments of a repository for a task, newest first; of one commit, if it is named."""
        return self.pages(f"/repos/{repository}/deployments", {"task": task} | ({"sha": commit} if commit else {}))

    def create_deployment(self, repository: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create a deployment."""
        return dict(self.request("POST", f"/repos/{repository}/deployments", body))

    def deployment_status(self, repository: str, deployment: int) -> dict[str, Any] | None:
        """The status that a deployment has now."""
        rows = self.pages(f"/repos/{repository}/deployments/{deployment}/statuses")
        return max(rows, key=lambda row: int(row["id"]), default=None)

    def set_deployment_status(self, repository: str, deployment: int, body: Mapping[str, Any]) -> dict[str, Any]:
        """Give a deployment a status."""
        return dict(self.request("POST", f"/repos/{repository}/deployments/{deployment}/statuses", body))

    def update_release(self, repository: str, release: int, *, body: str) -> None:
        """Replace the text of a release."""
        self.request("PATCH", f"/repos/{repository}/releases/{release}", {"body": body})


def _verdict(conclusion: str | None) -> str:
    """A check run's conclusion or a status's state in one of three words."""
    if conclusion in (None, "pending"):
        return "pending"
    return "success" if conclusion in ("success", "neutral", "skipped") else "failure"


def _limited(response: httpx.Response) -> bool:
    """Whether GitHub refused for having had too many requests.

    https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
    """
    if response.status_code == 429:
        return True
    headers = response.headers
    if response.status_code != 403:
        return False
    told = "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0"
    return told or "rate limit" in response.text[:1000].lower()


def _wait(response: httpx.Response) -> float | None:
    """Seconds that GitHub asks to wait."""
    after, reset = response.headers.get("retry-after", ""), response.headers.get("x-ratelimit-reset", "")
    if after.isdigit():
        return float(after)
    return max(float(reset) - time.time(), 0.0) + 1 if reset.isdigit() else None


def _said(response: httpx.Response) -> str:
    """What GitHub says is wrong, its list of errors included."""
    try:
        answer = response.json()
    except ValueError:
        return response.text[:200]
    if not isinstance(answer, dict):
        return str(answer)[:200]
    errors = [
        str(error.get("message") or f"{error.get('field')} {error.get('code')}")
        if isinstance(error, dict)
        else str(error)
        for error in answer.get("errors") or []
    ]
    return "; ".join([str(answer.get("message", "")), *errors])[:300]
