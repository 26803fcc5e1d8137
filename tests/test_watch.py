"""Following runs: whatever happens to a request, the end is the same, and a failed run's own words are shown."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import Command
from feedstock_forge import watch
from feedstock_forge.findings import Finding
from feedstock_forge.prefect import Prefect
from support import prefect, proxy

HOSTILE = "<img src=x> [a](javascript:b)\n::error::forged\n##[error]forged \x1b[2Jgone"
COUNT = iter(range(1000))


@dataclass
class Story:
    """A run of a deployment that nobody works on: the test moves it from state to state."""

    client: Prefect
    key: str
    id: str

    def becomes(self, state: str, message: str = "", name: str | None = None) -> None:
        body = {"state": {"type": state, "message": message, "name": name}, "force": True}
        self.client.request("POST", f"/flow_runs/{self.id}/set_state", body)

    def logs(self, message: str) -> None:
        entry = {"name": "recipe", "level": 20, "message": message, "timestamp": "2026-01-01T00:00:00Z"}
        self.client.request("POST", "/logs/", [{**entry, "flow_run_id": self.id}])


@pytest.fixture
def story(server: prefect.Server) -> Iterator[Story]:
    with server.client() as client:
        yield begin(client)


def begin(client: Prefect) -> Story:
    key = f"watch/{next(COUNT)}"
    flow = client.create_flow("watched.sst")
    deployment = client.create_deployment({"name": "nobody.dev", "flow_id": flow, "entrypoint": "a.b"})
    client.create_runs(deployment, [{"name": "sst v1", "idempotency_key": key}])
    return Story(client, key, next(iter(client.runs([key])))["id"])


def test_the_last_words_of_a_run_are_waited_for(story: Story) -> None:
    story.logs("the run may take 4 GiB")
    story.becomes("FAILED", "no space left")
    (run,) = [watch.watched(row) for row in story.client.runs([story.key])]

    def later() -> None:
        story.logs("the disk is full")
        story.logs("Finished in state Failed('no space left')")

    timer = threading.Timer(1, later)
    timer.start()
    said = watch.last_words(story.client, run)
    timer.join()
    assert sorted(said) == ["Finished in state Failed('no space left')", "the disk is full", "the run may take 4 GiB"]


@pytest.mark.parametrize("fault", proxy.FAULTS)
def test_a_fault_at_any_request_changes_nothing_in_the_end(
    fault: str, server: prefect.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LATE", 0)  # no engine ends this run's log

    def follow(hurt: int | None) -> tuple[list[tuple[str, str, str]], list[str], list[str], int]:
        """Watch a run that starts and fails meanwhile; what was seen, found and said, and the number of requests."""
        with server.client() as other, proxy.between(server.url) as between, Prefect(between.url) as client:
            story = begin(other)
            story.logs("the disk is full")
            between.fault = lambda number: fault if number == hurt else None
            looks = iter(["RUNNING", "FAILED"])

            def look() -> list[watch.Watched]:
                runs = [watch.watched(row) for row in client.runs([story.key])]
                if state := next(looks, None):
                    story.becomes(state, "no space left")
                return runs

            runs = watch.watch(look, timeout=60, say=lambda _: None, poll=0.01)
            found: list[Finding] = watch.findings(client, runs, 60)
            said = [line for run in runs for line in watch.last_words(client, run)]
            seen = [(run.name, run.state, run.message) for run in runs]
            return seen, [finding.message for finding in found], said, len(between.seen)

    *undisturbed, requests = follow(None)
    assert undisturbed[0] == [("sst v1", "FAILED", "no space left")]
    assert undisturbed[2] == ["the disk is full"]
    assert requests >= 4
    for hurt in range(1, requests + 1):
        assert follow(hurt)[:3] == tuple(undisturbed)


def test_a_failed_run_is_shown_with_its_last_lines_and_its_page(
    story: Story, server: prefect.Server, command: Command
) -> None:
    story.logs("opening the first file\nit is not there")
    story.becomes("FAILED", "FileNotFoundError: 2020-01.nc")
    done = command("watch", story.id, env=server.environment, code=1)
    assert "    | opening the first file\n    | it is not there\n" in done.stdout
    assert "[run-failed] sst v1 failed: FileNotFoundError: 2020-01.nc" in done.stderr
    assert f"/runs/flow-run/{story.id}" in done.stderr


def test_what_a_run_says_can_neither_command_the_runner_nor_forge_a_summary(
    story: Story, server: prefect.Server, command: Command, tmp_path: Path
) -> None:
    story.logs(HOSTILE)
    story.becomes("FAILED", HOSTILE, HOSTILE)
    summary = tmp_path / "summary.md"
    job = server.environment | {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    done = command("watch", story.id, env=job, code=1)
    first, *lines = done.stdout.splitlines()
    assert first.startswith("::stop-commands::")
    assert not [line for line in lines if line.lstrip().startswith("::")]
    assert "\x1b" not in done.stdout + done.stderr
    written = summary.read_text(encoding="utf-8")
    assert not re.search(r"(?<!\\)(<img|\]\(javascript)", written)


def test_a_run_without_parameters_is_followed_as_any_other() -> None:
    assert watch.watched({"id": "1", "name": "sst v1", "parameters": None}).target == ""


def test_a_run_that_nobody_picks_up_is_named_with_the_command_that_would(
    story: Story, server: prefect.Server, command: Command
) -> None:
    done = command("watch", story.id, "--timeout", "0", env=server.environment, code=1)
    assert "[run-not-picked-up]" in done.stderr
    assert "feedstock bakery serve" in done.stderr
