"""The workflows of labels, run: a form becomes two pull requests, and each is told who has consented."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import actions, events, generated, github
from support.feedstocks import Feedstock, git
from test_labels_state import BAKERY, BRANCH, GRANT
from test_workflows import ran, steps

FEEDSTOCK = "pangeo-forge/sst-feedstock"
REQUESTED = {
    "Request a label/Request": ["actions/checkout", *steps("label-request", "Make both halves of the request")],
}
TOLD = {"Label state/State": steps("label-state", "Tell who has consented")}


@dataclass
class Scene:
    """A generated feedstock and its forge on GitHub."""

    hub: github.GitHub
    forge: actions.Forge
    feedstock: Feedstock
    scratch: Path

    def run(
        self, workflow: str, event: str, payload: dict[str, Any], token: str = "", repository: Feedstock | None = None
    ) -> actions.Run:
        """Run a workflow for an event, with GitHub's API in reach and the job's own token."""
        secrets = {"GITHUB_TOKEN": "token-of-github-actions[bot]"} | ({"FORGE_TOKEN": token} if token else {})
        file = events.write(payload, self.scratch / f"{event}.json")
        job = {"GITHUB_API_URL": self.hub.url}
        return actions.run(self.forge, repository or self.feedstock, workflow, event, file, secrets=secrets, job=job)

    def verdict(self, repository: str, branch: str) -> tuple[str, str]:
        """The last check that a branch's commit got."""
        commit = git(self.hub.folder / repository, "rev-parse", branch)
        last = self.hub.statuses[repository, commit][-1]
        assert last["context"] == "label consent"
        return last["state"], last["description"]


@pytest.fixture(scope="module")
def granting(tmp_path_factory: pytest.TempPathFactory, bakeries: Path) -> actions.Forge:
    """A forge with a bakery whose label is granted on request."""
    folder = tmp_path_factory.mktemp("granting")
    shutil.copytree(bakeries, folder / "bakeries")
    (folder / "bakeries/ldeo").mkdir()
    (folder / "bakeries/ldeo/bakery.yaml").write_text(BAKERY)
    return actions.publish(folder / "server", folder / "bakeries")


@pytest.fixture
def scene(granting: actions.Forge, tmp_path: Path) -> Iterator[Scene]:
    feedstock = generated.generate(granting, "sst")
    git(feedstock.folder, "remote", "add", "origin", feedstock.folder.as_uri())
    with github.serve(granting.server) as hub:
        hub.add(actions.FORGE, 1)
        hub.add(FEEDSTOCK, 4242)
        hub.person("ada", 1, {FEEDSTOCK: "admin"})
        hub.person("bob", 2, {actions.FORGE: "write"})
        hub.person("eve", 3, {actions.FORGE: "write"})
        hub.person("github-actions[bot]", 9, {actions.FORGE: "write", FEEDSTOCK: "write"})
        yield Scene(hub, granting, feedstock, tmp_path)
        assert hub.problems == []
    shutil.rmtree(feedstock.folder)
    shutil.rmtree(granting.server / "ada", ignore_errors=True)


def form(**inputs: str) -> dict[str, Any]:
    """The form "Request a label", filled in; what is left out is GitHub's to fill."""
    return events.dispatch(
        FEEDSTOCK,
        {"bakery": "ldeo", "label": "prod", "recipes": "", "events": "release", "resources": "", "reason": ""} | inputs,
    )


def test_the_form_opens_both_halves_and_a_maintainers_consent_turns_the_check_green(scene: Scene) -> None:
    reason = f"We need it {events.POISON}"
    token = scene.hub.person("ada", 1)
    run = scene.run("request-label.yml", "workflow_dispatch", form(events="release,merge", reason=reason), token)
    assert run.outcomes == dict.fromkeys(REQUESTED, "success"), run.log[-3000:]
    assert ran(run) == REQUESTED
    (asking,), (granting,) = scene.hub.pulls[FEEDSTOCK], scene.hub.pulls[actions.FORGE]
    assert f"https://github.com/{actions.FORGE}/pull/1" in asking["body"]
    assert f"https://github.com/{FEEDSTOCK}/pull/1" in granting["body"]
    assert granting["reviewers"] == ["bob", "eve"]
    assert "on: [release, merge]" in git(scene.feedstock.folder, "show", f"{BRANCH}:feedstock/meta.yaml")
    assert "repository_id: 4242" in git(scene.hub.folder / "ada/feedstock-forge", "show", f"{BRANCH}:{GRANT}")
    assert f"https://github.com/{FEEDSTOCK}/pull/1" in run.summary
    assert "stop-commands" not in run.summary
    assert token not in run.log
    assert not (run.artifacts / "pwned").exists()

    opened = events.pull_request(git(scene.feedstock.folder, "rev-parse", BRANCH), FEEDSTOCK)
    opened["pull_request"]["number"] = opened["number"] = 1
    run = scene.run("label-state.yml", "pull_request_target", opened)
    assert run.outcomes == dict.fromkeys(TOLD, "success"), run.log[-3000:]
    assert ran(run) == TOLD
    assert scene.verdict(FEEDSTOCK, BRANCH) == ("pending", f"waiting for a maintainer of {FEEDSTOCK}")

    # Ada opened it, so she consents by a comment; the review's own workflow may write nothing, and its end tells.
    scene.hub.review(FEEDSTOCK, 1, "ada", state="COMMENTED", body="/consent")
    run = scene.run("label-review.yml", "pull_request_review", events.review(FEEDSTOCK, 1))
    assert run.outcomes == {"Reviewed": "success"}, run.log[-3000:]
    run = scene.run("label-state.yml", "workflow_run", events.review_ended(FEEDSTOCK, f"pangeo-forge:{BRANCH}"))
    assert run.outcomes == dict.fromkeys(TOLD, "success"), run.log[-3000:]
    assert scene.verdict(FEEDSTOCK, BRANCH) == ("success", "consented: ada")
    (comment,) = scene.hub.comments[FEEDSTOCK, 1]
    assert comment["login"] == "github-actions[bot]"
    assert "asks `ldeo` for `prod` on release and merge" in comment["body"]


def test_the_form_without_a_token_leads_to_githubs_editor_with_both_changes(scene: Scene) -> None:
    run = scene.run("request-label.yml", "workflow_dispatch", form(resources="2 GiB,1"))
    assert run.outcomes == dict.fromkeys(REQUESTED, "success"), run.log[-3000:]
    assert ran(run) == REQUESTED
    server = scene.hub.folder.as_uri()
    assert f"{server}/{FEEDSTOCK}/edit/main/feedstock/meta.yaml" in run.summary
    assert "+    resources: {memory: 2 GiB, cpu: 1.0}" in run.summary
    assert f"{server}/{actions.FORGE}/new/main?filename=bakeries%2Fldeo%2Fgrants%2Fsst.yaml&value=" in run.summary
    assert "+limits: {memory: 2 GiB, cpu: 1.0}" in run.summary
    assert not scene.hub.pulls[FEEDSTOCK]
    assert not scene.hub.pulls[actions.FORGE]


@pytest.mark.slow
def test_the_forge_tells_the_pull_request_of_a_grant_who_has_consented(scene: Scene) -> None:
    """The forge's own workflow, in the words that act understands."""
    forge = Feedstock(scene.forge.server / "rewritten", actions.FORGE, 1)
    shutil.copytree(scene.forge.rewritten, forge.folder)
    git(forge.folder, "init", "--quiet")
    forge.commit("The forge under test")
    there = Feedstock(scene.forge.server, actions.FORGE, 1)
    git(there.folder, "checkout", "--quiet", "-B", BRANCH)
    there.write(GRANT, f"repository: {FEEDSTOCK}\nrepository_id: 4242\nlabel: prod\n")
    there.commit("Grant")
    git(there.folder, "checkout", "--quiet", "main")
    scene.hub.open(actions.FORGE, BRANCH, "ada")
    scene.hub.review(actions.FORGE, 1, "bob")
    opened = events.pull_request(git(there.folder, "rev-parse", BRANCH), actions.FORGE, repository_id=1)
    opened["pull_request"]["number"] = opened["number"] = 1
    run = scene.run("label-state.yml", "pull_request_target", opened, repository=forge)
    told = {"State": TOLD["Label state/State"]}
    assert run.outcomes == dict.fromkeys(told, "success"), run.log[-3000:]
    assert ran(run) == told
    assert scene.verdict(actions.FORGE, BRANCH) == ("success", "consented: bob")
