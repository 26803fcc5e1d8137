"""Which event starts which workflow, and whether GitHub's own parser has anything to say about any of them."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import actions, events, generated, github_parser
from support.feedstocks import Feedstock
from support.github_parser import Parsed

CHECK, REGISTER = ".github/workflows/check.yml", ".github/workflows/register.yml"
REQUEST = ".github/workflows/request-label.yml"
STATUS = ".github/workflows/status.yml"
STATE, REVIEW = ".github/workflows/label-state.yml", ".github/workflows/label-review.yml"


@pytest.fixture(scope="module")
def feedstock(forge: actions.Forge) -> Feedstock:
    """A feedstock from the template."""
    return generated.generate(forge, "triggers")


@pytest.fixture(scope="module")
def workflows(forge: actions.Forge, feedstock: Feedstock) -> list[Parsed]:
    """Its workflows as GitHub reads them."""
    return github_parser.parse(forge, feedstock.folder)[0]


def test_githubs_parser_has_nothing_to_say(forge: actions.Forge, feedstock: Feedstock) -> None:
    ours, theirs = github_parser.parse(forge, forge.folder, feedstock.folder)
    assert {file.path for file in ours} == {
        str(path.relative_to(forge.folder)) for path in actions.action_files(forge.folder)
    }
    assert {file.path for file in theirs} == {CHECK, REGISTER, REQUEST, STATE, REVIEW, STATUS}
    assert {file.path: file.errors for file in [*ours, *theirs] if file.errors} == {}


def test_actionlint_and_zizmor_find_nothing_in_a_generated_feedstock(feedstock: Feedstock) -> None:
    zizmor = Path(sys.executable).with_name("zizmor")
    for command in (
        [actions.tool("actionlint")],
        [zizmor, "--quiet", "--offline", "--persona", "auditor", ".github"],
    ):
        done = subprocess.run(command, cwd=feedstock.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


FAULTS = {
    "a required input is missing": ("      prefect-api-url:.*\n", "", "prefect-api-url is required"),
    "an input is not declared": ("    with:\n", "    with:\n      pruned: true\n", "pruned is not defined"),
    "a secret is not declared": ("    secrets:\n", "    secrets:\n      token: x\n", "token is not defined"),
    "a context does not exist": (r"vars\.PREFECT_API_URL", "varz.PREFECT_API_URL", "varz"),
    "a permission does not exist": ("contents: write", "content: write", "content"),
    "an event type does not exist": (r"types: \[published\]", "types: [publish]", "publish"),
    "another forge is called": (
        f"uses: {actions.FORGE}",
        "uses: mallory/feedstock-forge",
        "Unable to find reusable workflow",
    ),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_the_parser_would_notice_that(fault: str, forge: actions.Forge, feedstock: Feedstock, tmp_path: Path) -> None:
    pattern, replacement, says = FAULTS[fault]
    text = (feedstock.folder / REGISTER).read_text(encoding="utf-8")
    changed = re.sub(pattern, replacement, text)
    assert changed != text
    (tmp_path / REGISTER).parent.mkdir(parents=True)
    (tmp_path / REGISTER).write_text(changed, encoding="utf-8")
    [[parsed]] = github_parser.parse(forge, tmp_path)
    assert any(says in error for error in parsed.errors), parsed.errors


def test_every_use_of_our_actions_passes_what_they_declare() -> None:
    """GitHub only warns of an input that an action does not declare, and says nothing of one that is missing."""
    declared = {
        path.parent.name: yaml.safe_load(path.read_text(encoding="utf-8")).get("inputs", {})
        for path in actions.ROOT.glob("shared_workflows/*/action.yml")
    }
    uses = 0
    for path in actions.action_files(actions.ROOT):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        jobs = content.get("jobs", {"": content.get("runs", {})}).values()
        for step in [step for job in jobs for step in job.get("steps", [])]:
            if not str(step.get("uses", "")).startswith("$/"):
                continue
            uses += 1
            inputs = declared[step["uses"].removeprefix("$/shared_workflows/")]
            passed = set(step.get("with", {}))
            assert passed <= set(inputs), f"{path}: {step['uses']} declares no {passed - set(inputs)}"
            required = {name for name, value in inputs.items() if value.get("required")}
            assert required <= passed, f"{path}: {step['uses']} needs {required - passed}"
    assert uses >= 8


def test_callers_grant_what_the_called_jobs_ask_for_and_no_more(feedstock: Feedstock) -> None:
    """GitHub starts no job of a workflow that calls for a permission that its caller does not grant."""
    callers = 0
    for path in actions.action_files(feedstock.folder):
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
            if "uses" not in job:
                assert job["permissions"] == {}
                continue
            called = actions.ROOT / job["uses"].split("@")[0].removeprefix(f"{actions.FORGE}/")
            jobs = yaml.safe_load(called.read_text(encoding="utf-8"))["jobs"].values()
            assert job["permissions"] == {key: value for item in jobs for key, value in item["permissions"].items()}
            callers += 1
    assert callers == 5


def example(name: str, action: str | None = None, **changes: Any) -> dict[str, Any]:
    """GitHub's own example of an event, with parts of it changed: ``a__b=c`` sets ``payload["a"]["b"]``."""
    payload = copy.deepcopy(next(item for item in events.examples()[name] if item.get("action") == action))
    for path, value in changes.items():
        *above, last = path.split("__")
        place = payload
        for key in above:
            place = place[key]
        place[last] = value
    return payload


def push(ref: str, default: str = "main") -> dict[str, Any]:
    return example("push", ref=ref, repository__default_branch=default)


RECIPE, README = ["feedstock/recipe.py"], ["README.md"]
MATRIX: list[tuple[str, str, dict[str, Any], list[str], set[str]]] = [
    ("a release is published", "release", example("release", "published"), [], {REGISTER}),
    ("a release is drafted", "release", example("release", "created"), [], set()),
    ("a release is edited", "release", example("release", "edited"), [], set()),
    ("a release is deleted", "release", example("release", "deleted"), [], set()),
    ("a pre-release becomes a release", "release", example("release", "released"), [], set()),
    ("a merge changes the recipe", "push", push("refs/heads/main"), RECIPE, {REGISTER}),
    ("a merge in an older repository", "push", push("refs/heads/master", "master"), RECIPE, {REGISTER}),
    ("a merge to a branch of another name", "push", push("refs/heads/trunk", "trunk"), RECIPE, {REGISTER}),
    ("a push to main where trunk is the default", "push", push("refs/heads/main", "trunk"), RECIPE, set()),
    ("a merge changes many files", "push", push("refs/heads/main"), README + RECIPE, {REGISTER}),
    ("a merge changes the README only", "push", push("refs/heads/main"), README, set()),
    ("a push to a branch", "push", push("refs/heads/feature"), RECIPE, set()),
    ("a push to a branch called like one", "push", push("refs/heads/main/x"), RECIPE, set()),
    ("a tag is pushed", "push", push("refs/tags/v1.0.0"), RECIPE, set()),
    ("a tag called main is pushed", "push", push("refs/tags/main"), RECIPE, set()),
    ("a pull request is opened", "pull_request", example("pull_request", "opened"), RECIPE, {CHECK}),
    ("a pull request gets commits", "pull_request", example("pull_request", "synchronize"), RECIPE, {CHECK}),
    ("a pull request is opened again", "pull_request", example("pull_request", "reopened"), README, {CHECK}),
    ("a pull request is closed or merged", "pull_request", example("pull_request", "closed"), RECIPE, set()),
    ("a pull request is labelled", "pull_request", example("pull_request", "labeled"), RECIPE, set()),
    ("a pull request from a fork", "pull_request_target", example("pull_request", "opened"), RECIPE, {STATE}),
    ("a pull request is reviewed", "pull_request_review", example("pull_request_review", "submitted"), [], {REVIEW}),
    ("a merge queue asks", "merge_group", example("merge_group", "checks_requested"), [], {CHECK}),
    ("a person asks", "workflow_dispatch", example("workflow_dispatch"), [], {CHECK, REGISTER, REQUEST, STATUS}),
    ("a comment is made", "issue_comment", example("issue_comment", "created"), [], set()),
    ("an issue is opened", "issues", example("issues", "opened"), [], set()),
    (
        "the repository is dispatched by somebody else",
        "repository_dispatch",
        example("repository_dispatch", "on-demand-test"),
        [],
        set(),
    ),
    (
        "Prefect says that a run has ended",
        "repository_dispatch",
        example("repository_dispatch", "on-demand-test") | {"action": "feedstock-run-ended"},
        [],
        {STATUS},
    ),
    ("six hours have passed", "schedule", {"schedule": "41 */6 * * *"}, [], {STATUS}),
]


@pytest.mark.parametrize(
    ("event", "payload", "changed", "expected"), [row[1:] for row in MATRIX], ids=[row[0] for row in MATRIX]
)
def test_an_event_starts_exactly_these_workflows(
    event: str,
    payload: dict[str, Any],
    changed: list[str],
    expected: set[str],
    workflows: list[Parsed],
    feedstock: Feedstock,
) -> None:
    """A workflow of which no job runs has not started to anybody but GitHub's list of runs."""
    started = github_parser.started(workflows, event, payload, changed)
    assert {path for path in started if runs(feedstock.folder / path, event, payload)} == expected


def runs(path: Path, event: str, payload: dict[str, Any]) -> bool:
    """Whether any job of a workflow runs for an event that starts it."""
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
    return any("if" not in job or github_parser.holds(job["if"], event, payload) for job in jobs)


def test_no_workflow_runs_a_strangers_code_with_rights(forge: actions.Forge, feedstock: Feedstock) -> None:
    """``pull_request_target`` and ``workflow_run`` carry rights to events that anybody can cause.

    Only the state of labels needs them, to write to pull requests of forks; it checks nothing out and runs our action.
    """
    for files in github_parser.parse(forge, forge.folder, feedstock.folder):
        assert {file.path for file in files if {"pull_request_target", "workflow_run"} & set(file.on)} == {STATE}
    (job,) = yaml.safe_load((actions.ROOT / STATE).read_text(encoding="utf-8"))["jobs"].values()
    assert [step["uses"] for step in job["steps"]] == ["$/shared_workflows/label-state"]
    (called,) = yaml.safe_load((feedstock.folder / STATE).read_text(encoding="utf-8"))["jobs"].values()
    assert called["uses"].startswith(f"{actions.FORGE}/{STATE}@")
    assert "secrets" not in called
