"""The generated workflows, run: by which jobs and steps, with what outcome, and what stands in the world afterwards."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from demo import provider
from support import actions, events, generated, github, prefect
from support.feedstocks import Feedstock

SETUP = ("astral-sh/setup-uv", "astral-sh/setup-uv / uv --version", "Install the forge")
"""The steps of the setup action, with the stub of another's inside."""


def steps(action: str, *own: str) -> list[str]:
    """The steps of one of our composite actions, all of which set the forge up first."""
    setup = f"shared_workflows/{action} / shared_workflows/setup"
    return [
        f"shared_workflows/{action}",
        setup,
        *(f"{setup} / {step}" for step in SETUP),
        *(f"shared_workflows/{action} / {step}" for step in own),
    ]


def artifact(way: str) -> list[str]:
    """The steps that move the plan from job to job, the stub's own inside."""
    return [f"actions/{way}-artifact", f"actions/{way}-artifact / copy"]


REGISTERED = {
    "Register/Plan": [
        "actions/checkout",
        *steps("plan", "Plan what this event would register"),
        *artifact("upload"),
    ],
    "Register/Register": [
        *artifact("download"),
        *steps("register", "Fetch the bakeries' grants as they stand now", "Register where a bakery has agreed"),
    ],
    "Register/Watch": [
        *artifact("download"),
        *steps("watch", "Watch the runs until they end"),
    ],
}
CHECKED = {
    "Check/Check": [
        "actions/checkout",
        *steps("check", "Lint", "Plan, as if this were merged", "Run each recipe on its first few inputs"),
    ]
}


REPORTED = {
    "Status/Status": steps("status", "Show how the run that has ended went", "Make good what was not shown"),
}
RECONCILED = {"Status/Status": steps("status", "Make good what was not shown")}


def register(
    forge: actions.Forge,
    feedstock: Feedstock,
    event: tuple[str, Path],
    server: prefect.Server,
    hub: github.GitHub | None = None,
    workflow: str = "register.yml",
) -> actions.Run:
    """Run the feedstock's register.yml, with the organisation's variable and one of the two secrets.

    ``hub`` is the GitHub that is shown how it goes; without one, the job has no token for it.
    """
    name, payload = event
    secrets = {"PREFECT_API_AUTH_STRING": "forge:hunter2"}
    if hub:
        hub.repositories[feedstock.repository] = feedstock.repository_id
        secrets["GITHUB_TOKEN"] = hub.person("github-actions[bot]", 41898282)
    return actions.run(
        forge,
        feedstock,
        workflow,
        name,
        payload,
        variables={"PREFECT_API_URL": server.url},
        secrets=secrets,
        job={"GITHUB_API_URL": hub.url} if hub else None,
    )


def ran(run: actions.Run) -> dict[str, list[str]]:
    """Every step that ran, by job."""
    return {name: [step.name for step in job.steps] for name, job in run.jobs.items()}


def choose_inputs(feedstock: Feedstock, urls: list[str]) -> None:
    """Name the inputs in the generated recipe, as its user would."""
    recipe = feedstock.folder / "feedstock/recipe.py"
    text = recipe.read_text(encoding="utf-8")
    inputs = "INPUTS = [\n" + "".join(f"    {url!r},\n" for url in urls) + "]"
    changed = re.sub(r"^INPUTS = \[.*?^\]", inputs, text, flags=re.DOTALL | re.MULTILINE)
    assert changed != text
    recipe.write_text(changed, encoding="utf-8")
    feedstock.commit()


def test_a_release_becomes_a_dataset_and_a_merge_appends_to_it(
    forge: actions.Forge, server: prefect.Server, worker: prefect.Worker, datasets: Path, tmp_path: Path
) -> None:
    files = provider.write_inputs(tmp_path / "inputs")
    feedstock = generated.generate(forge, "released")
    with provider.serve(tmp_path / "inputs") as url, github.serve(forge.server) as hub:
        urls = [f"{url}/{file.name}" for file in files]
        choose_inputs(feedstock, urls[:6])
        hub.publish(feedstock.repository, "v1.0.0", "What is new\n")
        run = register(forge, feedstock, ("release", feedstock.release("v1.0.0")), server, hub)
        assert run.outcomes == dict.fromkeys(REGISTERED, "success"), run.said[-2000:]
        assert ran(run) == REGISTERED
        assert {step.outcome for job in run.jobs.values() for step in job.steps} == {"success"}
        plan = json.loads((run.artifacts / "plan/plan.json").read_text())
        assert (plan["repository"], plan["commit"]) == (feedstock.repository, feedstock.head)
        assert "deployments: 1 created; runs: 1 started" in run.said
        assert "### 1 of 1 run completed" in run.summary
        assert provider.check(str(datasets / "released/v1/released.icechunk"), files[:6]) == []
        assert hub.states(feedstock.repository)["local.dev"][-1] == "success"
        notes = hub.releases[feedstock.repository, "v1.0.0"]["body"]
        assert notes.startswith("What is new\n")
        assert "✓ released v1.0.0: completed" in notes

        choose_inputs(feedstock, urls[:9])
        run = register(forge, feedstock, ("push", feedstock.merge()), server, hub)
        assert run.outcomes == dict.fromkeys(REGISTERED, "success"), run.said[-2000:]
        assert ran(run) == REGISTERED
        assert "deployments: 1 updated; runs: 1 started" in run.said
        assert provider.check(str(datasets / "released/v1/released.icechunk"), files[:9]) == []
        (comment,) = hub.comments[feedstock.repository, 7]
        assert "completed" in comment["body"]
        assert len(hub.deployments[feedstock.repository]) == 2
    assert hub.problems == []


def test_a_run_that_nobody_watched_is_shown_when_prefect_says_so_or_when_the_clock_does(
    forge: actions.Forge, server: prefect.Server, idle_bakeries: Path, tmp_path: Path
) -> None:
    feedstock = generated.generate(forge, "unwatched", repository_id=31_001)
    with github.serve(forge.server) as hub, server.client() as client:
        tags = ["bakery:local", "label:dev", "repository:31001", "recipe:unwatched", "version:v1.0.0", "event:release"]
        parameters = {"commit": feedstock.head, "mode": "complete", "target": "file:///datasets/unwatched"}
        body = {"name": "local.dev", "flow_id": client.create_flow("unwatched"), "entrypoint": "a.b"}
        deployment = client.create_deployment(body)
        client.create_runs(deployment, [{"name": "unwatched v1.0.0", "tags": tags, "parameters": parameters}])
        (run,) = client.runs_tagged(["repository:31001"])
        hub.publish(feedstock.repository, "v1.0.0")

        def becomes(state: str) -> None:
            client.request("POST", f"/flow_runs/{run['id']}/set_state", {"state": {"type": state}, "force": True})

        becomes("RUNNING")
        clock = events.write({"schedule": "41 */6 * * *"}, tmp_path / "schedule.json")
        ran_by_clock = register(forge, feedstock, ("schedule", clock), server, hub, "status.yml")
        assert ran_by_clock.outcomes == {"Status/Status": "success"}, ran_by_clock.said[-2000:]
        assert ran(ran_by_clock) == RECONCILED
        assert hub.states(feedstock.repository) == {"local.dev": ["in_progress"]}

        becomes("FAILED")
        payload = events.run_ended(f"prefect.flow-run.{run['id']}", feedstock.repository, repository_id=31_001)
        event = events.write(payload, tmp_path / "dispatch.json")
        told = register(forge, feedstock, ("repository_dispatch", event), server, hub, "status.yml")
        assert told.outcomes == {"Status/Status": "success"}, told.said[-2000:]
        assert ran(told) == REPORTED
        assert hub.states(feedstock.repository) == {"local.dev": ["in_progress", "failure"]}
        assert "failed" in hub.releases[feedstock.repository, "v1.0.0"]["body"]
        assert "failed" in told.summary
    assert hub.problems == []


def test_an_event_with_nothing_to_register_ends_well_and_says_so(forge: actions.Forge, server: prefect.Server) -> None:
    feedstock = generated.generate(forge, "quiet")
    payload = json.loads(feedstock.release("v1.0.0rc1").read_text())
    payload["release"]["prerelease"] = True
    event = events.write(payload, feedstock.server / "pre-release.json")
    run = register(forge, feedstock, ("release", event), server)
    assert run.outcomes == dict.fromkeys(REGISTERED, "success"), run.said[-2000:]
    assert ran(run) == REGISTERED
    assert run.said.count("the release v1.0.0rc1 is a pre-release") == 3
    with server.client() as client:
        assert client.flows(["quiet.quiet"]) == {}


def test_no_job_runs_for_a_push_to_another_branch_than_the_default_one(
    forge: actions.Forge, server: prefect.Server
) -> None:
    feedstock = generated.generate(forge, "branched")
    payload = json.loads(feedstock.merge().read_text())
    payload["repository"]["default_branch"] = "trunk"
    event = events.write(payload, feedstock.server / "push-elsewhere.json")
    run = register(forge, feedstock, ("push", event), server)
    assert (run.status, run.outcomes) == (0, {}), run.log


def test_a_pull_request_from_a_fork_is_checked_with_nothing_in_reach(forge: actions.Forge, tmp_path: Path) -> None:
    files = provider.write_inputs(tmp_path / "inputs")
    feedstock = generated.generate(forge, "checked")
    payload = events.pull_request(feedstock.head, feedstock.repository, repository_id=feedstock.repository_id)
    payload["pull_request"] = events.poisoned(payload["pull_request"])
    with provider.serve(tmp_path / "inputs") as url:
        choose_inputs(feedstock, [f"{url}/{file.name}" for file in files])
        run = actions.run(
            forge, feedstock, "check.yml", "pull_request", events.write(payload, tmp_path / "pull_request.json")
        )
    assert run.outcomes == {"Check/Check": "success"}, run.said[-2000:]
    assert ran(run) == CHECKED
    assert "asks for local.dev" in run.said
    assert not (run.artifacts / "pwned").exists()
    for path in (feedstock.folder / ".github/workflows/check.yml", forge.folder / ".github/workflows/check.yml"):
        assert "secrets" not in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]["check"]
        assert "${{ secrets" not in path.read_text(encoding="utf-8")


def test_a_pull_request_with_a_mistake_is_told_where_it_is(forge: actions.Forge, tmp_path: Path) -> None:
    feedstock = generated.generate(forge, "mistaken")
    meta = feedstock.folder / "feedstock/meta.yaml"
    meta.write_text(meta.read_text(encoding="utf-8").replace("label: dev", "label: dve"), encoding="utf-8")
    # And what an update left half merged.
    feedstock.write("LICENSE", "<<<<<<< before updating\nours\n=======\ntheirs\n>>>>>>> after updating\n")
    feedstock.write("README.md.rej", "@@ -1 +1 @@\n")
    feedstock.commit()
    payload = events.pull_request(feedstock.head, feedstock.repository, repository_id=feedstock.repository_id)
    run = actions.run(
        forge, feedstock, "check.yml", "pull_request", events.write(payload, tmp_path / "pull_request.json")
    )
    assert run.outcomes == {"Check/Check": "failure"}
    outcomes = run.jobs["Check/Check"].outcomes
    assert outcomes["shared_workflows/check / Lint"] == "failure"
    assert "shared_workflows/check / Plan, as if this were merged" not in outcomes
    annotations = [entry for entry in map(json.loads, run.log.splitlines()[:-2]) if entry.get("command") == "error"]
    said = {entry["kvPairs"]["file"]: entry["arg"] for entry in annotations}
    assert set(said) == {"feedstock/meta.yaml", "LICENSE", "README.md.rej"}
    assert "did you mean `dev`?" in said["feedstock/meta.yaml"]
