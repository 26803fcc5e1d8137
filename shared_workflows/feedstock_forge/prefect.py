"""Prefect's API, spoken to in one place and over plain HTTP, so that registering never waits for Prefect to import.

Every request made here can be repeated without harm: creating a flow or a deployment is an upsert by name, creating
a run carries an idempotency key, and the rest reads. That is why all of them are retried alike.
API: https://docs.prefect.io/v3/api-ref/rest-api
"""

from __future__ import annotations

import base64
import datetime
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpx

from . import certificates
from .credentials import secret
from .findings import Refused, Who, rule
from .retries import Busy, attempts, is_rows, reason

NO_URL = rule("prefect-url-missing", "There is no telling which Prefect server to speak to.", who=Who.ORGANISATION)
UNREACHABLE = rule("prefect-unreachable", "Nothing can be registered while Prefect does not answer.")
UNAUTHORIZED = rule("prefect-unauthorized", "Prefect does not accept the credentials.", who=Who.ORGANISATION)
UNEXPECTED = rule("prefect-refused", "Prefect answered with an error that trying again does not mend.")

PATIENCE = 120.0
"""Seconds of retrying one request before giving up."""
FIRST_PATIENCE = 20.0
"""The same while the server has not answered once: a mistyped URL should not take minutes to tell."""
PAGE = 200
"""Prefect's own limit of rows in an answer."""
AT_ONCE = 100
"""Runs created by one request: Prefect's own limit."""
_BULK_TRIES = 9
FIRST_PAUSE = 0.05
"""Seconds before a request is tried again, growing: a server on SQLite is locked for some milliseconds at a time."""

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


class Prefect:
    """A client of one Prefect API: Cloud's by key, a server's by auth string or open."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        auth: str | None = None,
        patience: float = PATIENCE,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.url = url.rstrip("/")
        self.has_key, self.has_auth = bool(key), bool(auth)
        self.patience = patience
        self.say = say
        self._answered = False
        headers = {"accept": "application/json", "user-agent": "feedstock-forge"}
        # As Prefect's own client decides: a key wins over an auth string.
        if key:
            headers["authorization"] = f"Bearer {key}"
        elif auth:
            headers["authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"
        trusted, timeout = certificates.for_url(self.url), httpx.Timeout(30, connect=10)
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, verify=trusted)

    @classmethod
    def from_environment(
        cls,
        environment: Mapping[str, str],
        *,
        patience: float = PATIENCE,
        say: Callable[[str], None] = lambda _: None,
    ) -> Prefect:
        """The API that ``PREFECT_API_URL`` names, with ``PREFECT_API_KEY`` or ``PREFECT_API_AUTH_STRING``.

        Raises :class:`Refused` if no usable URL is set.
        """
        url = environment.get("PREFECT_API_URL", "").strip()
        parts = _parts(url)
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            said = f"PREFECT_API_URL is `{url}`, not a URL" if url else "PREFECT_API_URL is not set"
            raise Refused(
                NO_URL.at(
                    None,
                    said,
                    "set it, such as `http://127.0.0.1:4200/api` or your Cloud workspace's API URL",
                )
            )
        if parts.username or parts.password:
            # The URL stands in messages, summaries and links.
            raise Refused(
                NO_URL.at(
                    None,
                    f"PREFECT_API_URL holds credentials for {parts.hostname}",
                    "write it without them, and put them into PREFECT_API_AUTH_STRING",
                )
            )
        return cls(
            url,
            key=secret(environment, "PREFECT_API_KEY", refused=UNAUTHORIZED),
            auth=environment.get("PREFECT_API_AUTH_STRING", "").rstrip("\r\n") or None,
            patience=patience,
            say=say,
        )

    def __enter__(self) -> Prefect:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    @property
    def ui(self) -> str:
        """Where people look at this server: the API's URL without its ``/api``; Cloud has a page of its own."""
        if "api.prefect.cloud" in self.url:
            return self.url.replace("api.prefect.cloud/api/accounts/", "app.prefect.cloud/account/").replace(
                "/workspaces/", "/workspace/"
            )
        return self.url.removesuffix("/api")

    def page(self, run: str) -> str:
        """Where people look at a run."""
        return f"{self.ui}/runs/flow-run/{run}"

    def request(
        self, method: str, path: str, body: Any = None, *, missing_ok: bool = False, taken_ok: bool = False
    ) -> Any:
        """Send a request, with patience, and return the parsed answer.

        ``None`` for a 404 that is ``missing_ok`` and a 409 that is ``taken_ok``: somebody else made it meanwhile.

        Raises :class:`Refused` with a ``prefect-*`` finding.
        """
        patience = self.patience if self._answered else min(self.patience, FIRST_PATIENCE)
        try:
            for attempt in attempts(patience, first=FIRST_PAUSE, longest=10.0):
                with attempt:
                    if attempt.num > 1:
                        self.say(f"Prefect is busy or away; try {attempt.num} of {method} {path}")
                    response = self._http.request(method, path, json=body)
                    self._answered = True
                    if response.status_code in _RETRIED:
                        raise Busy(response.status_code, _retry_after(response))
        except Busy as error:
            raise Refused(self._unreachable(f"still answers {error} after {patience:g} s of trying")) from None
        except httpx.TransportError as error:
            raise Refused(self._unreachable(f"does not answer: {reason(error)}")) from None
        except httpx.RequestError as error:
            raise Refused(self._strange(f"{method} {path}", f"what cannot be read: {error}")) from None
        if (response.status_code == 404 and missing_ok) or (response.status_code == 409 and taken_ok):
            return None
        return self._read(response, method, path)

    def _unreachable(self, what: str) -> Any:
        return UNREACHABLE.at(
            None,
            f"{self.url} {what}",
            "check PREFECT_API_URL and that the server runs, then run the same command again",
        )

    def _strange(self, what: str, answer: str) -> Any:
        return UNEXPECTED.at(None, f"{what} answered {answer}", "check PREFECT_API_URL")

    def _read(self, response: httpx.Response, method: str, path: str) -> Any:
        status = response.status_code
        if status in (401, 403):
            used = (
                "PREFECT_API_KEY" if self.has_key else "PREFECT_API_AUTH_STRING" if self.has_auth else "no credentials"
            )
            fix = "set PREFECT_API_KEY (Cloud) or PREFECT_API_AUTH_STRING (a server with basic auth)"
            if self.has_key and self.has_auth:
                fix = "both are set and the key wins: unset PREFECT_API_KEY for a server with basic auth"
            elif self.has_key or self.has_auth:
                fix = f"renew {used}; it is wrong, expired or may not do this"
            raise Refused(UNAUTHORIZED.at(None, f"{self.url} answered {status} to {used}", fix))
        if status >= 300:
            raise Refused(
                UNEXPECTED.at(
                    None,
                    f"{method} {path} answered {status}: {response.text[:300]}",
                    "check that PREFECT_API_URL ends in `/api` and the server is Prefect 3.8 or newer",
                )
            )
        try:
            return response.json() if response.content else None
        except ValueError:
            raise Refused(self._strange(f"{method} {path}", "something that is not JSON")) from None

    def pages(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Every row of a filter request, page by page."""
        offset = 0
        while True:
            rows = self.request("POST", path, {**body, "limit": PAGE, "offset": offset})
            if not is_rows(rows):
                raise Refused(self._strange(f"POST {path}", "something that is no list"))
            yield from rows
            if len(rows) < PAGE:
                return
            offset += PAGE

    def flows(self, names: Sequence[str]) -> dict[str, str]:
        """The ids of the flows of these names that exist."""
        rows = self.pages("/flows/filter", {"flows": {"name": {"any_": list(names)}}})
        return {row["name"]: row["id"] for row in rows}

    def deployments_tagged(self, tag: str) -> Iterator[dict[str, Any]]:
        """The deployments with a tag."""
        return self.pages("/deployments/filter", {"deployments": {"tags": {"all_": [tag]}}})

    def all_deployments(self) -> list[dict[str, Any]]:
        """Every deployment, each with its flow's name as ``flow_name``."""
        rows = list(self.pages("/deployments/filter", {"sort": "NAME_ASC"}))
        names = {row["id"]: row["name"] for row in self.pages("/flows/filter", {})} if rows else {}
        return [{**row, "flow_name": names.get(row["flow_id"], "?")} for row in rows]

    def deployments_of_pool(self, pool: str) -> Iterator[dict[str, Any]]:
        """The deployments of a work pool."""
        return self.pages("/deployments/filter", {"work_pools": {"name": {"any_": [pool]}}})

    def pause_deployment(self, deployment: str) -> None:
        """Pause a deployment: its schedules stop, and runs that they planned are removed."""
        self.request("POST", f"/deployments/{deployment}/pause_deployment")

    def delete_deployment(self, deployment: str) -> None:
        """Delete a deployment; its runs stay."""
        self.request("DELETE", f"/deployments/{deployment}")

    def waiting_runs(self) -> Iterator[dict[str, Any]]:
        """The flow runs that are to begin and have not."""
        states = {"type": {"any_": ["SCHEDULED", "PENDING", "PAUSED"]}}
        return self.pages("/flow_runs/filter", {"flow_runs": {"state": states}, "sort": "ID_DESC"})

    def cancel_run(self, run: str) -> None:
        """Cancel a run. Prefect cancels one without infrastructure at once, and has a worker end any other."""
        self.request("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})

    def runs(self, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The flow runs with these idempotency keys."""
        for start in range(0, len(keys), PAGE):
            some = list(keys[start : start + PAGE])
            yield from self.pages("/flow_runs/filter", {"flow_runs": {"idempotency_key": {"any_": some}}})

    def known_keys(self, keys: Sequence[str]) -> set[str]:
        """Those of these idempotency keys that flow runs have."""
        # That all of many are known, as when nothing has changed, takes a number and not a page for each 200.
        if len(keys) >= PAGE:
            wanted = {"flow_runs": {"idempotency_key": {"any_": list(keys)}}}
            if self.request("POST", "/flow_runs/count", wanted) == len(set(keys)):
                return set(keys)
        return {row["idempotency_key"] for row in self.runs(keys)}

    def runs_by_id(self, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The flow runs of these ids."""
        for start in range(0, len(ids), PAGE):
            yield from self.pages("/flow_runs/filter", {"flow_runs": {"id": {"any_": list(ids[start : start + PAGE])}}})

    def runs_tagged(self, tags: Sequence[str], *, since: datetime.datetime | None = None) -> Iterator[dict[str, Any]]:
        """The flow runs that carry all of these tags; those expected to start after a moment, if one is given."""
        wanted: dict[str, Any] = {"tags": {"all_": list(tags)}}
        if since:
            wanted["expected_start_time"] = {"after_": since.isoformat()}
        return self.pages("/flow_runs/filter", {"flow_runs": wanted})

    def failed_task(self, run: str) -> str:
        """The name of the task that failed last in a run; empty if none did."""
        body = {
            "flow_runs": {"id": {"any_": [run]}},
            "task_runs": {"state": {"type": {"any_": ["FAILED", "CRASHED"]}}},
            "sort": "END_TIME_DESC",
            "limit": 1,
        }
        rows = self.request("POST", "/task_runs/filter", body)
        return str(rows[0]["name"]) if rows else ""

    def last_logs(self, run: str, count: int = 8) -> list[str]:
        """The last lines that a run logged, oldest first."""
        body = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_DESC", "limit": count}
        return [row["message"] for row in reversed(self.request("POST", "/logs/filter", body))]

    def work_pool(self, name: str) -> dict[str, Any] | None:
        """A work pool, or ``None``."""
        found: dict[str, Any] | None = self.request("GET", f"/work_pools/{name}", missing_ok=True)
        return found

    def work_queues(self, pool: str) -> dict[str, dict[str, Any]]:
        """The queues of a pool by name."""
        return {row["name"]: row for row in self.pages(f"/work_pools/{pool}/queues/filter", {})}

    def create_work_pool(self, name: str, kind: str, description: str) -> None:
        """Create a work pool; one that exists stays as it is."""
        if self.work_pool(name) is None:
            body = {"name": name, "type": kind, "description": description}
            self.request("POST", "/work_pools/", body, taken_ok=True)

    def create_work_queue(self, pool: str, name: str) -> None:
        """Create a queue in a pool; one that exists stays as it is."""
        if name not in self.work_queues(pool):
            self.request("POST", f"/work_pools/{pool}/queues", {"name": name}, taken_ok=True)

    def block_type(self, slug: str) -> dict[str, Any] | None:
        """A block type, or ``None``."""
        found: dict[str, Any] | None = self.request("GET", f"/block_types/slug/{slug}", missing_ok=True)
        return found

    def create_block_type(self, name: str, slug: str, description: str) -> None:
        """Create a block type; one that exists stays as it is."""
        body = {"name": name, "slug": slug, "description": description}
        self.request("POST", "/block_types/", body, taken_ok=True)

    def block_schema(self, block_type: str) -> str | None:
        """The id of the newest schema of a block type."""
        body = {"block_schemas": {"block_type_id": {"any_": [block_type]}}, "limit": 1}
        rows = self.request("POST", "/block_schemas/filter", body)
        return str(rows[0]["id"]) if rows else None

    def create_block_schema(self, block_type: str, fields: Mapping[str, Any]) -> str:
        """Create a schema of a block type, or find the same one; returns its id."""
        return str(self.request("POST", "/block_schemas/", {"block_type_id": block_type, "fields": fields})["id"])

    def block(self, slug: str, name: str) -> str | None:
        """The id of a block, by its type's slug and its name; its secrets stay where they are."""
        path = f"/block_types/slug/{slug}/block_documents/name/{name}"
        found = self.request("GET", path, missing_ok=True)
        return str(found["id"]) if found else None

    def write_block(self, slug: str, name: str, schema: str, data: Mapping[str, Any]) -> str:
        """Create a block, or replace its data; returns its id."""
        found = self.block(slug, name)
        if found is None:
            kind = self.block_type(slug)
            body = {"name": name, "block_type_id": kind["id"] if kind else "", "block_schema_id": schema, "data": data}
            made = self.request("POST", "/block_documents/", body, taken_ok=True)
            if made:
                return str(made["id"])
            found = str(self.block(slug, name))
        self.request("PATCH", f"/block_documents/{found}", {"data": data, "merge_existing_data": False})
        return found

    def automations(self, name: str) -> list[dict[str, Any]]:
        """The automations of a name, oldest first: nothing keeps two from having one."""
        rows = self.pages("/automations/filter", {"automations": {"name": {"any_": [name]}}})
        return sorted(rows, key=lambda row: str(row["created"]))

    def create_automation(self, body: Mapping[str, Any]) -> None:
        """Create an automation."""
        self.request("POST", "/automations/", dict(body))

    def update_automation(self, automation: str, body: Mapping[str, Any]) -> None:
        """Replace an automation."""
        self.request("PUT", f"/automations/{automation}", dict(body))

    def delete_automation(self, automation: str) -> None:
        """Delete an automation."""
        self.request("DELETE", f"/automations/{automation}", missing_ok=True)

    def create_flow(self, name: str) -> str:
        """Create a flow, or find it; returns its id."""
        return str(self.request("POST", "/flows/", {"name": name})["id"])

    def create_deployment(self, body: Mapping[str, Any]) -> str:
        """Create or update a deployment by flow and name; returns its id."""
        return str(self.request("POST", "/deployments/", dict(body))["id"])

    def create_runs(self, deployment: str, runs: Sequence[Mapping[str, Any]]) -> None:
        """Create runs of a deployment in bulk; a run whose idempotency key exists is not created again.

        Prefect answers for each run apart: the request may succeed and single runs fail, on a busy SQLite for one.
        Those are sent again. Raises :class:`Refused` if some fail for good.
        """
        path = f"/deployments/{deployment}/create_flow_run/bulk"
        for start in range(0, len(runs), AT_ONCE):
            left = list(runs[start : start + AT_ONCE])
            for attempt in range(_BULK_TRIES):
                if attempt:
                    self.say(f"Prefect did not create {len(left)} of {min(AT_ONCE, len(runs))} runs; try {attempt + 1}")
                    time.sleep(min(FIRST_PAUSE * 2 ** (attempt - 1), 10))
                results = self.request("POST", path, [dict(run) for run in left])["results"]
                failed = [pair for pair in zip(left, results, strict=True) if pair[1]["status"] != "CREATED"]
                left = [run for run, _ in failed]
                if not left:
                    break
            else:
                names = ", ".join(str(run["name"]) for run in left[:5])
                raise Refused(
                    UNEXPECTED.at(
                        None,
                        f"Prefect did not create {len(left)} runs ({names}, …): {str(failed[0][1]['error'])[:300]}",
                        "run the same command again: it goes on from there",
                    )
                )


def wait_until_healthy(url: str, seconds: float, *, poll: float = 0.25) -> bool:
    """Whether a server's ``/health`` answers within so many seconds."""
    end = time.monotonic() + seconds
    with httpx.Client(timeout=2) as http:
        while time.monotonic() < end:
            try:
                if http.get(f"{url.rstrip('/')}/health").is_success:
                    return True
            except httpx.TransportError:
                pass
            time.sleep(poll)
    return False


def _parts(url: str) -> SplitResult | None:
    """The parts of a URL; ``None`` if it is none that can be asked."""
    try:
        httpx.URL(url)
        return urlsplit(url)
    except (ValueError, httpx.InvalidURL):
        return None


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds of a Retry-After header, at most a minute; RFC 9110 allows a date too, which Prefect does not send."""
    value = response.headers.get("retry-after", "")
    return min(float(value), 60.0) if value.isdigit() else None
