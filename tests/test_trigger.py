"""A GitHub event becomes a trigger, or a reason why not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from feedstock_forge import trigger
from feedstock_forge.findings import Refused
from feedstock_forge.trigger import Nothing, Trigger
from support import events
from support.feedstocks import Feedstock, git

SHA = "a" * 40
REPOSITORY = "pangeo-forge/sst-feedstock"


@pytest.mark.parametrize("name", sorted(events.examples()))
def test_every_example_of_github_is_decided(name: str) -> None:
    for payload in events.examples()[name]:
        repository = payload.get("repository") or {}
        environment = {"GITHUB_SHA": SHA, "GITHUB_REPOSITORY": repository.get("full_name", "")}
        decided = trigger.decide(name, payload, environment)
        if isinstance(decided, Nothing):
            assert decided.because
        else:
            assert decided.repository == repository["full_name"]
            assert decided.commit == SHA
            assert name in ("push", "release", "workflow_dispatch")


def test_a_published_release_is_a_complete_run_of_its_tag() -> None:
    decided = trigger.decide("release", events.release("v1.2.0", REPOSITORY), {"GITHUB_SHA": SHA})
    assert isinstance(decided, Trigger)
    assert (decided.event, decided.mode, decided.version) == ("release", "complete", "v1.2.0")
    assert (decided.feedstock, decided.repository_id) == ("sst", 4242)


def test_a_merged_pull_request_is_an_update_of_its_commit_and_carries_its_number() -> None:
    for message in ("Merge pull request #12 from ada/x\n\nTitle", "Add a year (#12)", "Add a year (#12)\n\nWhy"):
        decided = trigger.decide("push", events.push(SHA, REPOSITORY, message=message), {})
        assert isinstance(decided, Trigger)
        assert (decided.event, decided.mode, decided.version) == ("merge", "update", SHA)
        assert decided.pull_request == 12


def test_a_push_with_no_pull_request_carries_no_number() -> None:
    for message in ("Fix #12 by hand", f"Add a year (#{'9' * 5000})", "Add a year (#\u0661\u0662)"):
        decided = trigger.decide("push", events.push(SHA, REPOSITORY, message=message), {})
        assert isinstance(decided, Trigger)
        assert decided.pull_request is None


def changed(payload: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    payload = copy.deepcopy(payload)
    *parents, last = path.split(".")
    inner = payload
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return payload


RELEASE = events.release("v1.0.0", REPOSITORY)
PUSH = events.push(SHA, REPOSITORY)
ELSEWHERE = [{"id": SHA, "message": "", "added": ["README.md"], "removed": [], "modified": []}]


@pytest.mark.parametrize(
    ("name", "payload", "because"),
    [
        ("release", changed(RELEASE, "release.draft", True), "draft"),
        ("release", changed(RELEASE, "release.prerelease", True), "pre-release"),
        ("release", changed(RELEASE, "action", "edited"), "edited"),
        ("push", changed(PUSH, "ref", "refs/heads/topic"), "not the default branch"),
        ("push", changed(PUSH, "ref", "refs/tags/v1"), "publish a release"),
        ("push", changed(PUSH, "deleted", True), "deleted"),
        ("push", changed(PUSH, "commits", ELSEWHERE), "touches nothing under feedstock/"),
        ("pull_request", {"anything": 1}, "its merge arrives as a push"),
        ("issue_comment", {"anything": 1}, "start the workflow Register"),
        ("repository_dispatch", {"anything": 1}, "feedstock status report"),
        ("schedule", {"schedule": "41 */6 * * *"}, "feedstock status reconcile"),
        ("nobody_knows", {}, "a `nobody_knows` event registers nothing"),
    ],
)
def test_an_event_that_registers_nothing_says_why(name: str, payload: dict[str, Any], because: str) -> None:
    decided = trigger.decide(name, payload, {"GITHUB_SHA": SHA})
    assert isinstance(decided, Nothing)
    assert because in decided.because


def refusal(name: str, path: Path, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(Refused) as caught:
        trigger.read(name, path, environment)
    return caught.value.findings[0].id


def test_a_payload_of_another_repository_is_refused(tmp_path: Path) -> None:
    path = events.write(RELEASE, tmp_path / "event.json")
    environment = {"GITHUB_SHA": SHA, "GITHUB_REPOSITORY": "somebody/else"}
    assert refusal("release", path, environment) == "event-other-repository"
    for number in ("1", "x", "9" * 5000, "\u0664\u0662\u0664\u0662"):
        environment = {"GITHUB_SHA": SHA, "GITHUB_REPOSITORY": REPOSITORY, "GITHUB_REPOSITORY_ID": number}
        assert refusal("release", path, environment) == "event-other-repository"


@pytest.mark.parametrize("tag", ["v1;id", "$(id)", "v1 2", "-v1", "v..1", "a/../b", "v1\n", "\uff56" + "1", "x" * 101])
def test_a_tag_that_is_not_a_version_is_refused(tag: str, tmp_path: Path) -> None:
    path = events.write(events.release(tag, REPOSITORY), tmp_path / "event.json")
    assert refusal("release", path, {"GITHUB_SHA": SHA}) == "event-tag-invalid"
    asked = copy.deepcopy(events.examples()["workflow_dispatch"][0]) | {"ref": f"refs/tags/{tag}"}
    path = events.write(asked, tmp_path / "dispatch.json")
    assert refusal("workflow_dispatch", path, {"GITHUB_SHA": SHA}) == "event-tag-invalid"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"repository": 1}', "[" * 100_000, "\xff"])
def test_a_payload_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "event.json"
    path.write_bytes(content.encode("latin-1"))
    assert refusal("release", path) in ("event-unreadable", "file-encoding")


def test_outside_of_actions_the_tag_is_looked_up_in_the_checkout(feedstock: Feedstock) -> None:
    decided = trigger.read("release", feedstock.release("v1.0.0"), {}, feedstock.folder)
    assert isinstance(decided, Trigger)
    assert decided.commit == feedstock.head


def test_a_tag_beside_the_default_branch_is_released_as_the_commit_that_it_names(feedstock: Feedstock) -> None:
    main = feedstock.head
    git(feedstock.folder, "checkout", "--quiet", "-b", "v1")
    older = feedstock.commit("Mend the older version")
    event = feedstock.release("v1.0.1")
    git(feedstock.folder, "checkout", "--quiet", "main")
    decided = trigger.read("release", event, {}, feedstock.folder)
    assert isinstance(decided, Trigger)
    assert (decided.commit, decided.version) == (older, "v1.0.1")
    assert older != main


def test_the_same_job_run_again_is_the_same_trigger() -> None:
    for name, payload in (("release", RELEASE), ("push", PUSH)):
        first, again = (
            trigger.decide(name, payload, {"GITHUB_SHA": SHA, "GITHUB_RUN_ID": "1", "GITHUB_RUN_ATTEMPT": attempt})
            for attempt in ("1", "2")
        )
        assert first == again


def test_an_unknown_tag_has_no_commit(feedstock: Feedstock, tmp_path: Path) -> None:
    path = events.write(events.release("v9", feedstock.repository), tmp_path / "event.json")
    with pytest.raises(Refused) as caught:
        trigger.read("release", path, {}, feedstock.folder)
    assert caught.value.findings[0].id == "event-commit-unknown"


def test_a_person_who_asks_again_gets_another_run(tmp_path: Path) -> None:
    payload = copy.deepcopy(events.examples()["workflow_dispatch"][0])
    branch = payload["repository"]["default_branch"]
    payload |= {"ref": f"refs/heads/{branch}", "inputs": {"recipe": "sst"}}
    payload["repository"]["full_name"] = REPOSITORY
    attempts = set()
    for run in ("1", "1", "2"):
        decided = trigger.decide("workflow_dispatch", payload, {"GITHUB_SHA": SHA, "GITHUB_RUN_ID": run})
        assert isinstance(decided, Trigger)
        assert decided.recipe == "sst"
        attempts.add(decided.attempt)
    assert len(attempts) == 2
