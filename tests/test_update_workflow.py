"""The workflow that updates an organisation's feedstocks, run in act against the stand-in for GitHub."""

import json
import shutil

import copier
import pytest

from support import actions, generated, github, templates
from support.feedstocks import Feedstock, git

NAME = "pangeo-forge/sst-feedstock"


@pytest.fixture
def organisation(forge, tmp_path):
    """A server with the forge, written as act reads it, and a feedstock of its first release; the second is out."""
    with github.serve(tmp_path / "server") as hub:
        own = Feedstock(hub.folder, actions.FORGE)
        shutil.copytree(forge.rewritten, own.folder, ignore=shutil.ignore_patterns(".venv"))
        git(own.folder, "init", "--quiet")
        templates.commit(own.folder, "v1.0.0")
        feedstock = hub.folder / NAME
        data = generated.ANSWERS | {"id": "sst"}
        copier.run_copy(str(own.folder), feedstock, data=data, defaults=True, quiet=True, vcs_ref="v1.0.0")
        templates.begin(feedstock)
        (own.folder / "template/NEW.md").write_text("New.\n")
        templates.commit(own.folder, "v2.0.0")
        hub.repositories |= {actions.FORGE: 1, NAME: 2}
        hub.person("forge-app", 7, {NAME: "write"})
        yield hub, own
        assert hub.problems == []


def run(forge, organisation, tmp_path, **settings):
    hub, own = organisation
    payload = tmp_path / "dispatch.json"
    payload.write_text(json.dumps({"inputs": {"canaries": "1"}, "repository": {"default_branch": "main"}}))
    job = {"GITHUB_API_URL": hub.url, "GITHUB_REPOSITORY_OWNER": "pangeo-forge"}
    return actions.run(forge, own, "update-feedstocks.yml", "workflow_dispatch", payload, job=job, **settings)


def test_it_opens_the_pull_requests_with_the_apps_token(forge, organisation, tmp_path):
    done = run(
        forge,
        organisation,
        tmp_path,
        variables={"FORGE_APP_CLIENT_ID": "forge-app"},
        secrets={"FORGE_APP_PRIVATE_KEY": "key", "GITHUB_TOKEN": "the-jobs-own"},
    )
    assert done.outcomes == {"Update": "success"}, done.said
    hub, _ = organisation
    (pull,) = hub.pulls[NAME]
    assert (pull["title"], pull["author"]) == ("Update the template to v2.0.0", "forge-app")
    assert f"| updated | https://github.com/{NAME}/pull/1 |" in done.summary
    assert "token-of-forge-app" not in done.said


def test_with_the_jobs_own_token_alone_it_says_what_is_missing_and_changes_nothing(forge, organisation, tmp_path):
    hub, _ = organisation
    secrets = {"GITHUB_TOKEN": "the-jobs-own", "FORGE_TOKEN": "the-jobs-own"}
    done = run(forge, organisation, tmp_path, secrets=secrets)
    assert done.outcomes == {"Update": "failure"}
    assert "error[token-without-workflows]" in done.said
    assert hub.requests == []
    assert git(hub.folder / NAME, "branch", "--format=%(refname:short)") == "main"
