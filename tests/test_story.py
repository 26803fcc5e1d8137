"""The whole story: a feedstock is made, gets a label by two consents, is merged, released, updated, released again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import copier
import pytest
import yaml

from conftest import Command
from demo import provider
from support import actions, events, generated, github, prefect
from support.feedstocks import git
from test_workflows import CHECKED, REGISTERED, choose_inputs, ran

FEEDSTOCK = "pangeo-forge/ocean-feedstock"
BAKERY = """
description: The bakery of the story
operators: [{{github: bob, id: 2}}]
work_pool: {{name: ldeo, type: process}}
labels:
  prod: {{grants: on-request, limits: {{memory: 4 GiB, cpu: 2}}}}
targets:
  default: {{url: "{target}"}}
"""
BRANCH = "label/ldeo/ocean.prod"

Run = Callable[..., actions.Run]


@pytest.fixture
def forge(tmp_path: Path, bakeries: Path) -> actions.Forge:
    """A forge with a bakery whose label is granted on request."""
    shutil.copytree(bakeries, tmp_path / "bakeries")
    (tmp_path / "bakeries/ldeo").mkdir()
    described = BAKERY.format(target=(tmp_path / "datasets").as_uri())
    (tmp_path / "bakeries/ldeo/bakery.yaml").write_text(described, encoding="utf-8")
    return actions.publish(tmp_path / "server", tmp_path / "bakeries")


def merge(repository: Path, source: str, branch: str) -> None:
    """Merge a branch, as the button of its pull request does."""
    git(repository, "checkout", "--quiet", "main")
    git(repository, "pull", "--quiet", "--no-ff", "--no-rebase", "--no-edit", source, branch)


@pytest.mark.slow  # each of its parts has its own test by day
@pytest.mark.timeout(900)
def test_from_the_template_to_a_catalog_and_to_the_next_version(
    forge: actions.Forge, server: prefect.Server, prefect_itself: prefect.Server, command: Command, tmp_path: Path
) -> None:
    files = provider.write_inputs(tmp_path / "inputs")
    feedstock = generated.generate(forge, "ocean", bakery="ldeo", label="prod")
    git(feedstock.folder, "remote", "add", "origin", feedstock.folder.as_uri())
    meta = feedstock.folder / "feedstock/meta.yaml"
    asked = yaml.safe_load(meta.read_text(encoding="utf-8"))
    assert [wish["id"] for wish in asked["bakeries"]] == ["ldeo"]
    with (
        github.serve(forge.server) as hub,
        provider.serve(tmp_path / "inputs") as url,
        prefect.work(prefect_itself, tmp_path / "bakeries", "ldeo"),
    ):
        urls = [f"{url}/{file.name}" for file in files]
        hub.add(actions.FORGE, 1)
        hub.add(FEEDSTOCK, 4242)
        ada = hub.person("ada", 1, {FEEDSTOCK: "admin"})
        hub.person("bob", 2, {actions.FORGE: "write"})
        token = hub.person("github-actions[bot]", 41898282, {FEEDSTOCK: "write", actions.FORGE: "write"})

        def run(workflow: str, event: str, payload: Path, at: actions.Forge = forge) -> actions.Run:
            return actions.run(
                at,
                feedstock,
                workflow,
                event,
                payload,
                variables={"PREFECT_API_URL": server.url},
                secrets={"PREFECT_API_AUTH_STRING": "forge:hunter2", "GITHUB_TOKEN": token, "FORGE_TOKEN": ada},
                job={"GITHUB_API_URL": hub.url},
            )

        def event(name: str, payload: dict[str, object]) -> Path:
            return events.write(payload, tmp_path / f"{name}.json")

        # Ada names her inputs and opens a pull request, which is checked where no secret is.
        git(feedstock.folder, "checkout", "--quiet", "-b", "inputs")
        choose_inputs(feedstock, urls[:3])
        checked = run(
            "check.yml", "pull_request", event("pull_request", events.pull_request(feedstock.head, FEEDSTOCK))
        )
        assert checked.outcomes == dict.fromkeys(CHECKED, "success"), checked.said[-2000:]
        merge(feedstock.folder, ".", "inputs")

        # Nothing runs before the bakery has agreed, and who asks is told what is missing.
        refused = run("register.yml", "push", feedstock.merge())
        assert refused.outcomes["Register/Register"] == "failure"
        assert "grant-missing" in refused.said

        # She fills in the form; Bob, who operates the bakery, approves, and his half is merged.
        form = {
            "bakery": "ldeo",
            "label": "prod",
            "recipes": "",
            "events": "release,merge",
            "resources": "",
            "reason": "",
        }
        requested = run("request-label.yml", "workflow_dispatch", event("form", events.dispatch(FEEDSTOCK, form)))
        assert set(requested.outcomes.values()) == {"success"}, requested.said[-2000:]
        (granting,) = hub.pulls[actions.FORGE]
        hub.review(actions.FORGE, granting["number"], "bob")
        merge(forge.folder, str(forge.server / granting["from"]), BRANCH)

        # A merge makes what there is so far.
        dataset = tmp_path / "datasets/ocean/v1/ocean.icechunk"
        merged = run("register.yml", "push", feedstock.merge())
        assert ran(merged) == REGISTERED, merged.said[-2000:]
        assert set(merged.outcomes.values()) == {"success"}, merged.said[-2000:]
        assert provider.check(str(dataset), files[:3]) == []
        assert hub.states(FEEDSTOCK) == {"ldeo.prod": ["pending", "in_progress", "success"]}

        # A release makes all of it, says so where it was published, and the catalog has it.
        choose_inputs(feedstock, urls[:6])
        hub.publish(FEEDSTOCK, "v1.0.0", "The first release\n")
        released = run("register.yml", "release", feedstock.release("v1.0.0"))
        assert set(released.outcomes.values()) == {"success"}, released.said[-2000:]
        assert provider.check(str(dataset), files[:6]) == []
        assert hub.states(FEEDSTOCK)["ldeo.prod"][-1] == "success"
        notes = hub.releases[FEEDSTOCK, "v1.0.0"]["body"]
        assert notes.startswith("The first release\n")
        assert "completed" in notes
        command("catalog", "build", tmp_path / "datasets", "--output", tmp_path / "site")
        page = next(path for path in (tmp_path / "site").rglob("*.html") if "v1.0.0" in path.read_text("utf-8"))
        assert "Sea surface temperature" in page.read_text("utf-8")

        # The forge goes on; the feedstock follows with `copier update`, and is released by the newer workflows.
        readme = forge.folder / "template/README.md"
        readme.write_text(readme.read_text("utf-8") + "\nOne line more.\n", encoding="utf-8")
        newer = actions.renew(forge, "Say one line more")
        copier.run_update(str(feedstock.folder), defaults=True, overwrite=True, quiet=True, vcs_ref="HEAD")
        feedstock.commit("Follow the template")
        assert newer.commit in (feedstock.folder / ".github/workflows/register.yml").read_text("utf-8")
        assert "One line more." in (feedstock.folder / "README.md").read_text("utf-8")
        choose_inputs(feedstock, urls[:9])
        hub.publish(FEEDSTOCK, "v1.1.0")
        again = run("register.yml", "release", feedstock.release("v1.1.0"), newer)
        assert set(again.outcomes.values()) == {"success"}, again.said[-2000:]
        assert provider.check(str(dataset), files[:9]) == []
        assert "completed" in hub.releases[FEEDSTOCK, "v1.1.0"]["body"]
    assert hub.problems == []
