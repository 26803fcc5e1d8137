"""Services that are spoken to with a secret: it is never quoted, and what they answer is never a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from demo import provider
from feedstock_forge import github
from feedstock_forge.findings import Finding, Refused
from feedstock_forge.github import GitHub
from feedstock_forge.prefect import Prefect

PREFECT = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}


def refusal(call: Any) -> Finding:
    with pytest.raises(Refused) as caught:
        call()
    (finding,) = caught.value.findings
    assert finding.fix
    return finding


def test_the_line_break_that_a_secret_was_pasted_with_is_taken_off() -> None:
    with Prefect.from_environment({**PREFECT, "PREFECT_API_KEY": " pnu_1\n"}) as prefect:
        assert prefect._http.headers["authorization"] == "Bearer pnu_1"
    with GitHub.from_environment({"GITHUB_TOKEN": "\n", "GH_TOKEN": "ghp_1\r\n"}) as hub:
        assert hub.token == "ghp_1"


@pytest.mark.parametrize("secret", ["hun\nter2", "hünter2", "“hunter2”", "hunter\x002"])
def test_what_no_header_can_carry_is_refused_by_the_name_of_its_variable(secret: str) -> None:
    for call, identity, name in (
        (lambda: Prefect.from_environment({**PREFECT, "PREFECT_API_KEY": secret}), "prefect", "PREFECT_API_KEY"),
        (lambda: GitHub.from_environment({"GITHUB_TOKEN": secret}), "github", "GITHUB_TOKEN"),
    ):
        finding = refusal(call)
        assert finding.id == f"{identity}-unauthorized"
        assert finding.message == f"{name} holds characters that no credential has"


@pytest.mark.parametrize("url", ["http://127.0.0.1:port/api", "http://[::1/api", "http://", "ftp://host/api", "no url"])
def test_a_url_that_is_none_is_told(url: str) -> None:
    finding = refusal(lambda: Prefect.from_environment({"PREFECT_API_URL": url}))
    assert finding.id == "prefect-url-missing"
    assert url in finding.message


def test_a_url_of_github_that_is_none_is_told() -> None:
    finding = refusal(lambda: GitHub.from_environment({"GITHUB_API_URL": "http://host:port"}))
    assert finding.id == "github-unreachable"
    assert "http://host:port" in finding.message


@contextlib.contextmanager
def answering(body: bytes, status: int = 200, **headers: str) -> Iterator[str]:
    """A service that answers everything so."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815 - as http.server calls them

        def log_message(self, *arguments: Any) -> None:
            pass

    with provider.running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url:
        yield url


def test_what_cannot_be_sent_is_neither_quoted_nor_tried_again() -> None:
    tries: list[str] = []
    with (
        answering(b"{}") as url,
        Prefect(url, key="hun\nter2", say=tries.append) as prefect,
        GitHub(url, token="hun\nter2", say=tries.append) as hub,
    ):
        assert "ter2" not in refusal(lambda: prefect.work_pool("any")).message
        for method in ("GET", "POST"):
            assert "ter2" not in refusal(lambda method=method: hub.request(method, "/any", {})).message
    assert tries == []


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"hello": "world"}', {}),
        (b"null", {}),
        (b"", {}),
        (b"[1, 2]", {}),
        (b"<html>", {}),
        (b"no gzip", {"Content_Encoding": "gzip"}),
    ],
)
def test_an_answer_that_is_no_list_is_told(body: bytes, headers: dict[str, str]) -> None:
    with answering(body, **headers) as url, Prefect(url) as prefect, GitHub(url) as hub:
        assert refusal(prefect.all_deployments).id == "prefect-refused"
        assert refusal(lambda: hub.pulls("a/b", state="open")).id == "github-refused"


def test_a_service_that_leads_on_without_end_is_told() -> None:
    with answering(b"", 302, Location="/again") as url, GitHub(url) as hub:
        finding = refusal(lambda: hub.repository("a/b"))
    assert finding.id == "github-refused"
    assert "cannot be read" in finding.message


def test_as_many_files_as_github_lists_may_not_be_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(github, "MAX_FILES", 2)
    with answering(b'[{"filename": "a"}, {"filename": "b"}]') as url, GitHub(url) as hub:
        assert refusal(lambda: hub.pull_files("a/b", 5)).id == "pull-request-too-large"
