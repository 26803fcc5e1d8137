"""Consent is enforced at a real Prefect server, by the commands that the workflows run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import Command
from support import feedstocks, prefect
from support.feedstocks import Feedstock, git

COUNT = iter(range(1000))
BAKERY = """
description: A bakery of the tests
operators: [{github: ada}]
work_pool: {name: POOL, type: process}
labels:
  dev: {grants: open, prune: required}
  prod: {grants: on-request, limits: {memory: 4 GiB}}
targets:
  default: {url: "file:///datasets"}
"""
GRANT = """
repository: REPOSITORY
repository_id: 4242
label: prod
recipes: ["*"]
events: [release]
expires: 2099-01-01
"""


@dataclass
class Scene:
    """A feedstock, a bakery of its own, and the Prefect server that both use."""

    feedstock: Feedstock
    bakeries: Path
    bakery: str
    server: prefect.Server
    command: Command

    def ask(self, *wishes: str) -> None:
        """Let meta.yaml ask for labels, as YAML items."""
        path = self.feedstock.folder / "feedstock/meta.yaml"
        kept = path.read_text().split("bakeries:")[0]
        path.write_text(f"{kept}bakeries: [{', '.join(wishes)}]\n")
        self.feedstock.commit("Ask")

    def grant(self, text: str = GRANT, name: str | None = None) -> None:
        path = self.bakeries / self.bakery / "grants" / (name or f"{self.feedstock.folder.name[:-10]}.yaml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("REPOSITORY", self.feedstock.repository))

    def register(self, tag: str, code: int, change: Callable[[dict], None] | None = None) -> str:
        """Plan and register a release; ``change`` is what recipe code did to the plan. Returns what was said."""
        event, output = self.feedstock.release(tag), self.feedstock.server / "plan.json"
        options = ["--event-name", "release", "--event", str(event)]
        env = self.feedstock.environment()
        self.command("plan", "-C", self.feedstock.folder, *options, "-o", output, env=env)
        if change:
            planned = json.loads(output.read_text())
            change(planned)
            output.write_text(json.dumps(planned))
        env |= self.server.environment
        done = self.command("register", output, *options, "--bakeries", self.bakeries, env=env, code=code)
        return done.stdout + done.stderr

    def deployments(self) -> dict[str, dict]:
        """The deployments of the bakery's pool by name."""
        with self.server.client() as client:
            rows = client.all_deployments()
        return {f"{row['flow_name']}/{row['name']}": row for row in rows if row["work_pool_name"] == self.bakery}

    def states(self) -> dict[str, str]:
        """The state of each run of the bakery's pool by name."""
        with self.server.client() as client:
            rows = client.pages("/flow_runs/filter", {"work_pools": {"name": {"any_": [self.bakery]}}})
            return {row["name"]: row["state_type"] for row in rows}

    def audit(self, *options: str, code: int) -> dict:
        arguments = ["label", "audit", self.bakery, "--format", "json", "--bakeries", self.bakeries, *options]
        done = self.command(*arguments, env=self.server.environment, code=code)
        return json.loads(done.stdout)


@pytest.fixture
def scene(tmp_path: Path, server: prefect.Server, command: Command) -> Scene:
    number = next(COUNT)
    feedstock = feedstocks.make(tmp_path / "server", f"labels-{number}")
    bakery = f"bakery-{number}"
    folder = tmp_path / "bakeries" / bakery
    folder.mkdir(parents=True)
    (folder / "bakery.yaml").write_text(BAKERY.replace("POOL", bakery))
    with server.client() as client:
        client.create_work_pool(bakery, "process", "for tests")
        client.create_work_queue(bakery, "dev")
        client.create_work_queue(bakery, "prod")
    return Scene(feedstock, tmp_path / "bakeries", bakery, server, command)


def test_what_is_allowed_is_registered_and_what_is_not_is_said(scene: Scene) -> None:
    scene.ask(f"{{id: {scene.bakery}, label: dev}}", f"{{id: {scene.bakery}, label: prod}}")
    said = scene.register("v1", code=3)
    assert "grant-missing" in said
    assert f"feedstock label request {scene.bakery} prod" in said
    assert [name.split("/")[1] for name in scene.deployments()] == [f"{scene.bakery}.dev"]
    scene.grant()
    scene.register("v2", code=0)
    assert {name.split("/")[1] for name in scene.deployments()} == {f"{scene.bakery}.dev", f"{scene.bakery}.prod"}


def test_a_revocation_holds_for_the_next_release(scene: Scene) -> None:
    scene.ask(f"{{id: {scene.bakery}, label: prod}}")
    scene.grant()
    scene.register("v1", code=0)
    scene.grant(GRANT + "revoked: true\n")
    assert "grant-revoked" in scene.register("v2", code=1)
    (deployment,) = scene.deployments().values()
    assert deployment["version"] == "v1"


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("label", lambda plan, bakery: plan["bakeries"].append({**plan["bakeries"][0], "label": "prod"})),
        ("target", lambda plan, bakery: plan["bakeries"][0].update(target="../..")),
        ("event", lambda plan, bakery: plan["bakeries"][0].update(on=["merge", "release"])),
        ("recipe", lambda plan, bakery: plan["recipes"].append({"id": "other", "description": ""})),
        ("version", lambda plan, bakery: plan.update(dataset_version="2.0")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nothing_can_be_smuggled_into_a_plan(scene: Scene, part: str, value: Callable[[dict, str], None]) -> None:
    """Recipe code runs where the plan is written; meta.yaml at the commit is what maintainers reviewed."""
    scene.ask(f"{{id: {scene.bakery}, label: dev}}")
    scene.grant()
    said = scene.register("v1", code=1, change=lambda plan: value(plan, scene.bakery))
    assert "plan-other-meta" in said
    assert not scene.deployments()


def test_an_audit_finds_what_is_live_beyond_the_grants_and_pauses_it(scene: Scene) -> None:
    scene.ask(f"{{id: {scene.bakery}, label: prod}}")
    scene.grant()
    scene.register("v1", code=0)
    found = scene.audit(code=0)
    assert [row["state"] for row in found["consents"]] == ["open", "granted"]
    (name,) = scene.deployments()
    scene.grant(GRANT.replace("2099", "2020"))
    with scene.server.client() as client:
        flow = client.create_flow("by-hand")
        body = {"name": "mine", "flow_id": flow, "work_pool_name": scene.bakery, "work_queue_name": "prod"}
        client.create_deployment({**body, "entrypoint": "flow.py:flow", "tags": ["label:dev"]})

    beyond = {row["name"]: row for row in scene.audit(code=1)["deployments"]}
    (run,) = scene.states()
    assert [item["id"] for item in beyond[name]["findings"]] == ["grant-expired"]
    assert [item["id"] for item in beyond["by-hand/mine"]["findings"]] == ["deployment-foreign"]
    # Nobody answers: it says what it would do, and does nothing.
    assert scene.audit("--fix", code=1)["deployments"] == scene.audit(code=1)["deployments"]
    assert beyond[name]["waiting"] == [run]
    assert run.endswith(" v1")
    scene.audit("--fix", "--yes", code=0)
    assert all(row["paused"] for row in scene.deployments().values())
    assert scene.states() == {run: "CANCELLED"}


def test_an_audit_knows_a_repository_that_took_over_a_granted_name(scene: Scene) -> None:
    scene.ask(f"{{id: {scene.bakery}, label: prod}}")
    scene.grant()
    scene.register("v1", code=0)
    scene.grant(GRANT.replace("4242", "4243"))
    (row,) = scene.audit(code=1)["deployments"]
    assert [item["id"] for item in row["findings"]] == ["grant-other-repository"]


def test_a_second_feedstock_of_the_same_name_is_refused_while_the_first_may_run(scene: Scene) -> None:
    scene.ask(f"{{id: {scene.bakery}, label: dev}}")
    scene.register("v1", code=0)
    (first,) = scene.deployments().values()
    other = Feedstock(scene.feedstock.server, f"evil/{scene.feedstock.folder.name}", 666)
    git(scene.feedstock.server, "clone", "--quiet", str(scene.feedstock.folder), str(other.folder))
    git(other.folder, "tag", "--delete", "v1")
    mine, scene.feedstock = scene.feedstock, other
    said = scene.register("v1", code=1)
    assert "[feedstock-name-taken]" in said
    assert mine.repository in said
    arguments = ["label", "explain", other.folder, scene.bakery, "dev", "--bakeries", scene.bakeries]
    explained = scene.command(*arguments, env=other.environment() | scene.server.environment, code=1)
    assert "feedstock-name-taken" in explained.stdout
    assert scene.deployments() == {f"{first['flow_name']}/{first['name']}": first}
    with scene.server.client() as client:
        client.pause_deployment(first["id"])
    scene.register("v2", code=0)
