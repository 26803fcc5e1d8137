"""The generated workflows of the staged recipes, run: a merge makes a feedstock, whose first check is green."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import provider
from support import actions, events, generated, github
from support.feedstocks import Feedstock, git
from test_triggers import example
from test_workflows import artifact, choose_inputs, ran, steps

STAGED, OISST = "pangeo-forge/staged-recipes", "pangeo-forge/noaa-oisst-feedstock"
APP = {"FORGE_APP_CLIENT_ID": "forge[bot]"}
KEY = {"FORGE_APP_PRIVATE_KEY": "key"}
CREATED = {
    "Create feedstocks/Create": [
        "actions/checkout",
        "actions/create-github-app-token",
        'actions/create-github-app-token / test -n "$KEY" && echo "token=token-of-$CLIENT" >> "$GITHUB_OUTPUT"',
        *steps("create-feedstock", "Create"),
    ]
}


@pytest.fixture(scope="module")
def staged(forge: actions.Forge) -> Feedstock:
    return generated.generate_staged(forge)


@pytest.fixture
def hub(staged: Feedstock) -> Iterator[github.GitHub]:
    with github.serve(staged.server) as hub:
        hub.add(STAGED, 77)
        hub.person("ada", 1)
        hub.person("forge[bot]", 9, {STAGED: "write"})
        yield hub
        assert hub.problems == []


def propose(forge: actions.Forge, staged: Feedstock, hub: github.GitHub, urls: list[str]) -> Path:
    """Merge a pull request with the recipe of a feedstock that Ada tried at home; returns the event of the merge."""
    home = generated.generate(forge, "noaa-oisst")
    choose_inputs(home, urls)
    git(staged.folder, "checkout", "--quiet", "-b", "mine")
    (home.folder / "feedstock").rename(staged.folder / "recipes/noaa-oisst")
    staged.commit("Add a recipe")
    git(staged.folder, "checkout", "--quiet", "main")
    hub.merge(STAGED, hub.open(STAGED, "mine", "ada"))
    git(staged.folder, "reset", "--quiet", "--hard")
    payload = events.push(staged.head, STAGED, repository_id=77, message="Merge pull request #1 from ada/mine")
    return events.write(payload, staged.server / "push-staged.json")


def test_a_merge_makes_a_feedstock_whose_first_check_is_green(
    forge: actions.Forge, staged: Feedstock, hub: github.GitHub, tmp_path: Path
) -> None:
    provider.write_inputs(tmp_path / "inputs")
    with provider.serve(tmp_path / "inputs") as url:
        payload = propose(forge, staged, hub, [f"{url}/{file.name}" for file in (tmp_path / "inputs").iterdir()])
        home = staged.server / OISST
        home.rename(tmp_path / "home")  # what Ada had at home is not on GitHub

        job = {"GITHUB_API_URL": hub.url}
        run = actions.run(forge, staged, "create-feedstocks.yml", "push", payload, job=job)
        assert run.outcomes == {"Create feedstocks/Create": "failure"}
        assert "error[staged-token-missing]" in run.said
        assert [asked for asked in hub.requests if not asked.startswith("GET ")] == []

        run = actions.run(
            forge, staged, "create-feedstocks.yml", "push", payload, job=job, variables=APP, secrets=KEY
        )  # fmt: skip
        assert run.outcomes == {"Create feedstocks/Create": "success"}, run.said[-2000:]
        assert ran(run) == CREATED
        assert f"[{OISST}]" in run.summary
        assert "has a home" in hub.comments[STAGED, 1][0]["body"]
        assert git(staged.folder, "ls-tree", "--name-only", "main", "recipes/") == "recipes/example"

        clone = tmp_path / "server" / OISST
        git(tmp_path, "clone", "--quiet", str(home), str(clone))
        feedstock = Feedstock(tmp_path / "server", OISST, hub.repositories[OISST])
        event = events.write(example("workflow_dispatch"), tmp_path / "dispatch.json")
        checked = actions.run(forge, feedstock, "check.yml", "workflow_dispatch", event)
        assert checked.outcomes == {"Check/Check": "success"}, checked.said[-2000:]


CHECKED = {
    "Check recipes/Check": [
        "actions/checkout",
        *steps("check-recipes", "Lint", "Try what was changed"),
        *artifact("upload"),
    ]
}
TOLD = {"Report recipes/Report": steps("report-recipes", "Report")}


def test_a_proposal_is_tried_without_a_secret_and_told_in_one_comment_whose_turn_it_is(
    forge: actions.Forge, tmp_path: Path
) -> None:
    staged = generated.generate_staged(forge, "proposals")
    number, name = 1, "proposals/staged-recipes"
    with github.serve(staged.server) as hub:
        hub.add(name, 77)
        hub.person("ada", 1)
        hub.person("rita", 2, {name: "maintain"})
        token = hub.person("github-actions[bot]", 9, {name: "write"})
        files = provider.write_inputs(tmp_path / "inputs", 4)
        home = generated.generate(forge, "noaa-sst")
        choose_inputs(home, [str(file) for file in files])
        git(staged.folder, "checkout", "--quiet", "-b", "mine")
        (home.folder / "feedstock").rename(staged.folder / "recipes/noaa-sst")
        staged.commit("Add a recipe")
        head = staged.head
        hub.open(name, "mine", "ada")
        opened = events.pull_request(head, name, repository_id=77)
        opened["pull_request"]["number"] = opened["number"] = number
        payload = events.write(opened, tmp_path / "opened.json")
        job = {"GITHUB_API_URL": hub.url}

        def report(event: str, payload: Path, artifacts: Path | None = None) -> actions.Run:
            git(staged.folder, "checkout", "--quiet", "main")
            run = actions.run(
                forge,
                staged,
                "report.yml",
                event,
                payload,
                job=job,
                secrets={"GITHUB_TOKEN": token},
                artifacts=artifacts,
            )
            assert run.outcomes == dict.fromkeys(TOLD, "success"), run.said[-2000:]
            return run

        assert ran(report("pull_request_target", payload)) == TOLD
        assert hub.labels[name, number] == ["checking"]

        git(staged.folder, "checkout", "--quiet", "mine")
        checked = actions.run(forge, staged, "check.yml", "pull_request", payload)
        assert checked.outcomes == dict.fromkeys(CHECKED, "success"), checked.said[-2000:]
        assert ran(checked) == CHECKED

        ended = events.run_of("Check", name, "proposals:mine", head, repository_id=77)
        report("workflow_run", events.write(ended, tmp_path / "ended.json"), checked.artifacts)
        assert hub.labels[name, number] == ["review-requested"]
        assert hub.statuses[name, head][-1]["state"] == "success"
        (comment,) = hub.comments[name, number]
        for words in (
            "### Ready for review",
            "with 2 of 4 inputs",
            "<xarray.Dataset>",
            ".github/workflows/register.yml",
        ):
            assert words in comment["body"]

        hub.review(name, number, "rita", state="CHANGES_REQUESTED")
        reviewed = events.run_of("Reviewed", name, "proposals:mine", head, repository_id=77)
        report("workflow_run", events.write(reviewed, tmp_path / "reviewed.json"))
        assert hub.labels[name, number] == ["awaiting-contributor"]
    assert hub.problems == []


def test_a_comment_is_answered_whatever_it_holds(
    forge: actions.Forge, staged: Feedstock, hub: github.GitHub, tmp_path: Path
) -> None:
    git(staged.folder, "branch", "odd")
    hub.pulls[STAGED].clear()
    hub.person("mallory", 4)
    hub.open(STAGED, "odd", "mallory")
    body = f"/run-recipe-test {events.POISON}"
    payload = events.comment(STAGED, 1, repository_id=77)
    payload["comment"] |= {"id": 5, "body": body, "user": {"login": "mallory", "id": 4, "type": "User"}}
    secrets = {"GITHUB_TOKEN": "token-of-forge[bot]"}
    event = events.write(events.poisoned(payload) | {"comment": payload["comment"]}, tmp_path / "comment.json")
    run = actions.run(
        forge, staged, "commands.yml", "issue_comment", event, job={"GITHUB_API_URL": hub.url}, secrets=secrets
    )
    assert run.outcomes == {"Answer a comment/Answer": "success"}, run.said[-2000:]
    assert ran(run) == {
        "Answer a comment/Answer": steps("answer-comment", "Fetch the bakeries as they stand now", "Answer")
    }
    (answer,) = hub.comments[STAGED, 1]
    assert "**command-denied**" in answer["body"]
    assert not list(run.artifacts.rglob("pwned"))
