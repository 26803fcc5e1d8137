"""What GitHub shows of runs is what Prefect knows of them: told once, told again when it was lost, and never twice."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from conftest import Command
from feedstock_forge import plan, register, status, trigger
from feedstock_forge.bakery import Bakeries
from feedstock_forge.findings import Refused
from feedstock_forge.github import GitHub
from feedstock_forge.prefect import Prefect
from support import events, feedstocks, github, prefect
from support.feedstocks import Feedstock

COUNT = iter(range(1000))
NOW = datetime.datetime.now(datetime.UTC)
NOTES = "## What is new\r\n\r\n- more years <!-- of them -->  \r\n"
TWO = '[{id: sst, object: "recipe:sst"}, {id: ice, object: "recipe:sst"}]'
REFUSED = "  - {id: local, label: prod, on: [release, merge]}\n"


@dataclass
class Scene:
    """A feedstock on GitHub whose runs nobody works on: the test moves them from state to state."""

    hub: github.GitHub
    feedstock: Feedstock
    bakeries: Path
    server: prefect.Server
    about: status.Subject | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a job of the feedstock's has, with the key."""
        token = next(token for token, login in self.hub.tokens.items() if login.startswith("github-actions"))
        job = self.feedstock.environment() | self.server.environment
        return job | {"GITHUB_API_URL": self.hub.url, "GITHUB_TOKEN": token}

    def clients(self) -> tuple[GitHub, Prefect]:
        return GitHub.from_environment(self.environment, patience=2), self.server.client()

    def register(self, event: Path, name: str = "release") -> status.Subject:
        """Register an event as `feedstock register --report` does, in this process."""
        found = trigger.read(name, event, self.feedstock.environment())
        assert isinstance(found, trigger.Trigger)
        made = plan.make(found, self.feedstock.folder)
        decided = register.decisions(found, made, Bakeries.at(self.bakeries), NOW.date())
        about = self.about = status.subject(found)
        hub, client = self.clients()
        with hub, client:
            assert status.begin(hub, about, [status.asked(decision) for decision in decided]) == []
            register.register(client, register.deployments(found, made, decided))
            self.report()
        return about

    def release(self, tag: str = "v1.0.0", body: str | None = NOTES) -> status.Subject:
        self.hub.publish(self.feedstock.repository, tag, body)
        return self.register(self.feedstock.release(tag))

    def report(self) -> None:
        assert self.about
        hub, client = self.clients()
        with hub, client:
            assert status.report_on(hub, client, self.about)[1] == []

    def reconcile(self, now: datetime.datetime = NOW) -> list[str]:
        said: list[str] = []
        hub, client = self.clients()
        with hub, client:
            name, number = self.feedstock.repository, self.feedstock.repository_id
            assert status.reconcile(hub, client, name, number, now=now, say=said.append)[1] == []
        return said

    def runs(self, recipe: str = "sst") -> list[str]:
        with self.server.client() as client:
            rows = client.runs_tagged([f"repository:{self.feedstock.repository_id}", f"recipe:{recipe}"])
            return [row["id"] for row in sorted(rows, key=lambda row: row["created"])]

    def becomes(self, state: str, message: str = "", *, recipe: str = "sst", log: str = "") -> str:
        """Let the last run of a recipe be in a state, and say something."""
        run = self.runs(recipe)[-1]
        with self.server.client() as client:
            if log:
                entry = {"name": "recipe", "level": 20, "message": log, "timestamp": NOW.isoformat()}
                client.request("POST", "/logs/", [{**entry, "flow_run_id": run}])
            body = {"state": {"type": state, "message": message}, "force": True}
            client.request("POST", f"/flow_runs/{run}/set_state", body)
        return run

    @property
    def states(self) -> dict[str, list[str]]:
        return self.hub.states(self.feedstock.repository)

    @property
    def notes(self) -> str:
        return str(self.hub.releases[self.feedstock.repository, "v1.0.0"]["body"])


@pytest.fixture
def scene(tmp_path: Path, server: prefect.Server, idle_bakeries: Path) -> Iterator[Scene]:
    with server.client() as client:
        client.create_work_pool("idle", "process", "for tests")
        client.create_work_queue("idle", "dev")
    with github.serve(tmp_path / "server") as hub:
        yield scene_of(hub, server, idle_bakeries, '[{id: sst, object: "recipe:sst"}]')
    assert hub.problems == []


def scene_of(hub: github.GitHub, server: prefect.Server, bakeries: Path, recipes: str) -> Scene:
    number = next(COUNT)
    made = feedstocks.make(hub.folder, f"status-{number}", recipes=recipes)
    feedstock = replace(made, repository_id=90_000 + number)
    hub.add(feedstock.repository, feedstock.repository_id)
    hub.person("github-actions[bot]", 41898282)
    return Scene(hub, feedstock, bakeries, server)


def test_a_release_waits_runs_and_completes_before_everybodys_eyes(scene: Scene) -> None:
    scene.release()
    assert scene.states == {"local.dev": ["pending"]}
    (deployment,) = scene.hub.deployments[scene.feedstock.repository]
    assert (deployment["sha"], deployment["task"]) == (scene.feedstock.head, "bake")
    assert (deployment["auto_merge"], deployment["required_contexts"]) == (False, [])
    for state in ("RUNNING", "COMPLETED"):
        run = scene.becomes(state)
        scene.report()
    assert scene.states == {"local.dev": ["pending", "in_progress", "success"]}
    last = deployment["statuses"][-1]
    assert last["description"] == "sst v1.0.0: completed"
    assert last["log_url"].endswith(f"/runs/flow-run/{run}")
    assert scene.notes.startswith(NOTES)
    assert scene.notes.count(status.MARKER) == 1
    assert "✓ sst v1.0.0: completed" in scene.notes


def test_reporting_again_only_reads(scene: Scene) -> None:
    scene.release()
    scene.becomes("COMPLETED")
    scene.report()
    before = len(scene.hub.requests)
    scene.report()
    assert scene.reconcile() == []
    assert {asked.split(" ")[0] for asked in scene.hub.requests[before:]} == {"GET"}


def test_a_failed_run_is_told_with_its_task_its_last_lines_and_what_to_do(scene: Scene) -> None:
    scene.release()
    run = scene.becomes("RUNNING", log="opening the first file\nit is not there")
    with scene.server.client() as client:
        task = {"flow_run_id": run, "task_key": "fetch", "dynamic_key": "0", "name": "fetch-inputs"}
        made = client.request("POST", "/task_runs/", task)
        failed = {"state": {"type": "FAILED"}, "force": True}
        client.request("POST", f"/task_runs/{made['id']}/set_state", failed)
    scene.becomes("FAILED", "FileNotFoundError: 2020-01.nc")
    scene.report()
    assert scene.states == {"local.dev": ["pending", "failure"]}
    said = scene.hub.deployments[scene.feedstock.repository][0]["statuses"][-1]["description"]
    assert said == "sst v1.0.0 failed: FileNotFoundError: 2020-01.nc"
    assert "in the task `fetch-inputs`" in scene.notes
    assert "opening the first file\nit is not there" in scene.notes
    assert "start the workflow *Register* under Actions, with the recipe `sst` and the tag `v1.0.0`" in scene.notes
    assert f"/runs/flow-run/{run})" in scene.notes


@pytest.mark.parametrize(
    ("state", "advice"), [("CRASHED", "tell the operators of `local`"), ("CANCELLED", "Somebody cancelled it")]
)
def test_a_run_that_crashed_or_was_cancelled_is_a_failure_with_advice_of_its_own(
    state: str, advice: str, scene: Scene
) -> None:
    scene.release()
    scene.becomes(state, "lost with its worker")
    scene.report()
    assert scene.states == {"local.dev": ["pending", "failure"]}
    assert advice in scene.notes


def test_a_merge_has_one_comment_that_is_kept_up_to_date(scene: Scene) -> None:
    about = scene.register(scene.feedstock.merge(), "push")
    assert about.pull_request == 7
    for state in ("RUNNING", "FAILED", "COMPLETED"):
        scene.becomes(state)
        scene.report()
    (comment,) = scene.hub.comments[scene.feedstock.repository, 7]
    assert comment["body"].startswith(status.MARKER)
    assert "completed" in comment["body"]
    assert "failed" not in comment["body"]


def test_of_several_recipes_the_label_fails_if_one_did_and_recovers_when_it_is_run_again(
    server: prefect.Server, idle_bakeries: Path, tmp_path: Path
) -> None:
    with github.serve(tmp_path / "server") as hub:
        scene = scene_of(hub, server, idle_bakeries, TWO)
        scene.release()
        scene.becomes("COMPLETED", recipe="ice")
        scene.report()
        assert scene.states == {"local.dev": ["pending", "in_progress"]}
        scene.becomes("FAILED", "no space", recipe="sst")
        scene.report()
        said = hub.deployments[scene.feedstock.repository][0]["statuses"][-1]["description"]
        assert said == "1 of 2 runs did not complete; sst v1.0.0 failed: no space"

        payload = json.loads((hub.folder / f"release-{scene.feedstock.folder.name}-v1.0.0.json").read_text())
        asked = {"ref": "refs/tags/v1.0.0", "inputs": {"recipe": "sst"}}
        again = {"repository": payload["repository"], "sender": payload["sender"], **asked}
        scene.register(events.write(again, tmp_path / "dispatch.json"), "workflow_dispatch")
        assert len(scene.runs("sst")) == 2
        scene.becomes("COMPLETED", recipe="sst")
        scene.report()
        assert scene.states == {
            "local.dev": ["pending", "in_progress", "failure", "in_progress", "success"],
        }
    assert hub.problems == []


def test_a_refused_label_is_an_error_that_names_its_fix(scene: Scene, command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "bakeries"
    (folder / "local").mkdir(parents=True)
    text = (scene.bakeries / "local/bakery.yaml").read_text(encoding="utf-8")
    (folder / "local/bakery.yaml").write_text(text.replace("grants: open", "grants: on-request"), encoding="utf-8")
    scene.hub.publish(scene.feedstock.repository, "v1.0.0", NOTES)
    options = ["--event-name", "release", "--event", str(scene.feedstock.release("v1.0.0"))]
    output = scene.feedstock.server / "plan.json"
    command("plan", "-C", scene.feedstock.folder, *options, "-o", output, env=scene.feedstock.environment())
    command("register", output, *options, "--bakeries", folder, "--report", env=scene.environment, code=1)
    assert scene.states == {"local.dev": ["error"]}
    assert "**grant\\-missing**" in scene.notes
    assert "**Fix:**" in scene.notes
    assert scene.reconcile(NOW + datetime.timedelta(days=1)) == []


def test_a_registration_that_stops_is_an_error_until_it_goes_on(scene: Scene, command: Command) -> None:
    scene.hub.publish(scene.feedstock.repository, "v1.0.0", None)
    options = ["--event-name", "release", "--event", str(scene.feedstock.release("v1.0.0"))]
    output = scene.feedstock.server / "plan.json"
    command("plan", "-C", scene.feedstock.folder, *options, "-o", output, env=scene.feedstock.environment())
    arguments = ["register", output, *options, "--bakeries", scene.bakeries, "--report", "--patience", "1"]
    away = {"PREFECT_API_URL": f"http://127.0.0.1:{prefect.free_port()}/api"}
    command(*arguments, env=scene.environment | away, code=1)
    assert scene.states == {"local.dev": ["error"]}
    (deployment,) = scene.hub.deployments[scene.feedstock.repository]
    assert "run the job again" in deployment["statuses"][-1]["description"]
    command(*arguments, env=scene.environment)
    assert scene.states == {"local.dev": ["error", "pending"]}
    assert len(scene.runs()) == 1


def test_a_lost_report_is_made_good(scene: Scene) -> None:
    scene.release()
    scene.becomes("COMPLETED")
    said = scene.reconcile()
    assert len(said) == 1
    assert "at local.dev: success" in said[0]
    assert scene.states == {"local.dev": ["pending", "success"]}
    assert "completed" in scene.notes


def test_runs_that_github_never_heard_of_are_shown(scene: Scene) -> None:
    scene.release()
    scene.hub.deployments.clear()
    scene.becomes("RUNNING")
    scene.reconcile()
    assert scene.states == {"local.dev": ["in_progress"]}


def test_a_deployment_for_which_no_run_came_is_ended_after_an_hour(scene: Scene) -> None:
    about = status.Subject(scene.feedstock.repository, scene.feedstock.repository_id, "a" * 40, "v9", "release")
    hub, client = scene.clients()
    with hub, client:
        assert status.begin(hub, about, [status.Label("local.dev")]) == []
    assert scene.reconcile() == []
    assert len(scene.reconcile(NOW + datetime.timedelta(hours=2))) == 1
    assert scene.states == {"local.dev": ["error"]}
    assert scene.reconcile(NOW + datetime.timedelta(hours=3)) == []


def test_what_a_run_says_cannot_forge_the_text(scene: Scene) -> None:
    scene.release(body=None)
    hostile = f"``` {status.END} <img src=x> @everybody\n````\n| x | {status.MARKER}"
    scene.becomes("FAILED", hostile, log=hostile)
    scene.report()
    scene.becomes("COMPLETED")
    scene.report()
    assert scene.notes.count(status.MARKER) == 1
    assert "img" not in scene.notes


@pytest.mark.parametrize("ending", ["", "\n", "\r\n\r\n- a list"])
def test_the_authors_words_stay_as_they_are(ending: str) -> None:
    ours, newer = (f"{status.MARKER}\n{word}\n{status.END}" for word in ("pending", "done"))
    once = status.insert(f"Notes{ending}", ours)
    assert once.startswith(f"Notes{ending}")
    assert status.insert(f"{once}{ending}", newer) == once.replace("pending", "done") + ending
    cut = f"{status.MARKER}\nby mistake{ending} and more"
    assert status.insert(status.insert(cut, ours), newer) == f"{cut}\n\n{newer}"


def dispatch(scene: Scene, run: str, folder: Path) -> dict[str, str]:
    """The environment of the job that a `repository_dispatch` of Prefect's starts."""
    payload = {"action": status.EVENT_TYPE, "branch": "main", "client_payload": {"run": run}}
    event = events.write(payload, folder / "dispatch.json")
    return scene.environment | {"GITHUB_EVENT_NAME": "repository_dispatch", "GITHUB_EVENT_PATH": str(event)}


def test_a_dispatch_of_prefects_is_answered_with_the_truth(scene: Scene, command: Command, tmp_path: Path) -> None:
    scene.release()
    run = scene.becomes("FAILED", "no space left")
    summary = tmp_path / "summary.md"
    job = dispatch(scene, f"prefect.flow-run.{run}", tmp_path) | {"GITHUB_STEP_SUMMARY": str(summary)}
    done = command("status", "report", env=job)
    assert "v1.0.0 at local.dev: failure" in done.stdout
    assert scene.states == {"local.dev": ["pending", "failure"]}
    assert "no space left" in summary.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("run", "finding"),
    [
        ("prefect.flow-run.00000000-0000-4000-8000-000000000000", "status-run-unknown"),
        ("; rm -rf /", "status-run-missing"),
        ("", "status-run-missing"),
    ],
)
def test_a_dispatch_that_names_no_run_is_refused(
    run: str, finding: str, scene: Scene, command: Command, tmp_path: Path
) -> None:
    done = command("status", "report", env=dispatch(scene, run, tmp_path), code=1)
    assert f"[{finding}]" in done.stderr
    assert scene.hub.requests == []


def test_a_run_of_another_repository_is_not_reported_here(scene: Scene, command: Command, tmp_path: Path) -> None:
    scene.release()
    job = dispatch(scene, scene.runs()[0], tmp_path) | {"GITHUB_REPOSITORY_ID": "1"}
    done = command("status", "report", env=job, code=1)
    assert "[status-other-repository]" in done.stderr


def limited() -> tuple[int, dict[str, str]]:
    return 403, {"retry-after": "600"}


FAULTS = {"403": limited(), "404": (404, {}), "422": (422, {}), "502": (502, {}), "503": (503, {})}


@pytest.mark.parametrize(
    "fault", ["502", *(pytest.param(name, marks=pytest.mark.slow) for name in ("403", "404", "422", "503"))]
)
def test_whatever_request_github_fails_the_truth_is_shown_in_the_end(fault: str, scene: Scene) -> None:
    """One fault at each request in turn: it is a finding at most, and what it left undone the reconcile makes good."""
    scene.release()
    hub, client = scene.clients()
    with hub, client:
        for number in range(1, 30):
            state = "RUNNING" if number % 2 else "COMPLETED"
            scene.becomes(state)
            asked = len(scene.hub.requests)
            scene.hub.after(number, *FAULTS[fault])
            _, wrong = status.report_on(hub, client, scene.about)
            scene.hub.after(0)
            assert all(finding.id.startswith("github-") and finding.fix for finding in wrong)
            if len(scene.hub.requests) - asked < number:
                break
            scene.reconcile()
            shown = scene.states["local.dev"][-1]
            assert shown == {"RUNNING": "in_progress", "COMPLETED": "success"}[state]
    assert number > 4
    assert list(scene.states) == ["local.dev"]
    assert len(scene.hub.deployments[scene.feedstock.repository]) == 1
    assert scene.notes.count(status.MARKER) == 1
    assert len(scene.runs()) == 1


@pytest.mark.parametrize("carried_out", [False, True], ids=["before it acts", "after it has acted"])
@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_whatever_request_github_fails_a_label_has_one_deployment_in_the_end(
    fault: str, carried_out: bool, scene: Scene
) -> None:
    why = (status.Refusal("grant-missing", "there is no grant", "ask for one", "bakery operator"),)
    asked = [status.Label("local.dev"), status.Label("local.prod", refusals=why, granted=False)]
    hub, client = scene.clients()
    with hub, client:
        for number in range(1, 20):
            about = status.Subject(scene.feedstock.repository, 1, f"{number:040}", f"v{number}", "merge", 7)
            before = len(scene.hub.requests)
            scene.hub.after(number, *FAULTS[fault], carried_out=carried_out)
            wrong = status.begin(hub, about, asked)
            scene.hub.after(0)
            assert all(finding.id.startswith("github-") and finding.fix for finding in wrong)
            done = len(scene.hub.requests) - before < number
            assert status.begin(hub, about, asked) == []
            mine = [row for row in scene.hub.deployments[about.repository] if row["sha"] == about.commit]
            assert [row["environment"] for row in mine] == ["local.dev", "local.prod"]
            assert {status["state"] for status in mine[1]["statuses"]} == {"error"}
            if done:
                break
    assert number > 3


def test_without_prefect_nothing_is_claimed(scene: Scene, command: Command) -> None:
    scene.release()
    away = {"PREFECT_API_URL": f"http://127.0.0.1:{prefect.free_port()}/api"}
    hub, _ = scene.clients()
    with hub, Prefect(away["PREFECT_API_URL"], patience=0.5) as client, pytest.raises(Refused) as caught:
        status.report_on(hub, client, scene.about)
    assert caught.value.findings[0].id == "prefect-unreachable"
    assert scene.states == {"local.dev": ["pending"]}
