"""The generated workflows of the staged recipes, run: a merge makes a feedstock, whose first check is green."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import provider
from support import actions, events, generated, github
from support.feedstocks import Feedstock, git
from test_triggers import example
from test_workflows import choose_inputs, ran, steps

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
