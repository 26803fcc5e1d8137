"""The generated repository of staged recipes: what GitHub and the linters say of it, its example, and its updates."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml

from demo import provider
from feedstock_forge import lint
from feedstock_forge.bakery import Bakeries
from support import actions, generated, github_parser, templates
from support.feedstocks import Feedstock
from test_triggers import example

CHECK, CREATE = ".github/workflows/check.yml", ".github/workflows/create-feedstocks.yml"
REPORT, REVIEWED = ".github/workflows/report.yml", ".github/workflows/reviewed.yml"
COMMANDS = ".github/workflows/commands.yml"


@pytest.fixture(scope="module")
def staged(forge: actions.Forge) -> Feedstock:
    return generated.generate_staged(forge, "ocean-forge")


@pytest.fixture(scope="module")
def workflows(forge: actions.Forge, staged: Feedstock) -> list[github_parser.Parsed]:
    return github_parser.parse(forge, staged.folder)[0]


def test_githubs_parser_has_nothing_to_say(workflows: list[github_parser.Parsed]) -> None:
    assert {CHECK, CREATE, COMMANDS, REPORT, REVIEWED} == {file.path for file in workflows}
    assert {file.path: file.errors for file in workflows if file.errors} == {}


def test_actionlint_and_zizmor_find_nothing(staged: Feedstock) -> None:
    zizmor = Path(sys.executable).with_name("zizmor")
    for command in ([actions.tool("actionlint")], [zizmor, "--quiet", "--offline", "--persona", "auditor", ".github"]):
        done = subprocess.run(command, cwd=staged.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_callers_grant_what_the_called_jobs_ask_for_and_no_more(staged: Feedstock) -> None:
    for path in actions.action_files(staged.folder):
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
            if "uses" not in job:
                continue
            called = actions.ROOT / job["uses"].split("@")[0].removeprefix(f"{actions.FORGE}/")
            jobs = yaml.safe_load(called.read_text(encoding="utf-8"))["jobs"].values()
            assert job["permissions"] == {key: value for item in jobs for key, value in item["permissions"].items()}


PUSH = example("push", ref="refs/heads/main")


@pytest.mark.parametrize(
    ("event", "payload", "changed", "expected"),
    [
        ("pull_request", example("pull_request", "opened"), ["recipes/a/meta.yaml"], CHECK),
        ("pull_request", example("pull_request", "synchronize"), ["recipes/a/meta.yaml"], CHECK),
        ("merge_group", example("merge_group", "checks_requested"), [], CHECK),
        ("pull_request_target", example("pull_request", "opened"), [], REPORT),
        ("pull_request_review", example("pull_request_review", "submitted"), [], REVIEWED),
        ("issue_comment", example("issue_comment", "created"), [], REPORT),
        ("push", PUSH, ["recipes/a/meta.yaml"], CREATE),
        ("workflow_dispatch", example("workflow_dispatch"), [], CREATE),
        ("issue_comment", example("issue_comment", "created"), [], COMMANDS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_event_starts_the_workflow_that_is_for_it(
    event: str, payload: dict[str, Any], changed: list[str], expected: str, workflows: list[github_parser.Parsed]
) -> None:
    assert expected in github_parser.started(workflows, event, payload, changed)


@pytest.mark.parametrize(
    ("event", "payload", "changed"),
    [
        ("push", PUSH, ["README.md"]),
        ("push", example("push", ref="refs/heads/mine"), ["recipes/a/meta.yaml"]),
        ("pull_request", example("pull_request", "closed"), ["recipes/a/meta.yaml"]),
    ],
    ids=["README", "branch", "closed"],
)
def test_nothing_is_created_before_a_merge(
    event: str, payload: dict[str, Any], changed: list[str], workflows: list[github_parser.Parsed]
) -> None:
    assert CREATE not in github_parser.started(workflows, event, payload, changed)


def test_everything_of_the_forges_is_pinned_to_the_templates_commit(forge: actions.Forge, staged: Feedstock) -> None:
    for path in (*actions.action_files(staged.folder), staged.folder / "requirements-dev.txt"):
        text = path.read_text(encoding="utf-8")
        # What only prints takes nothing of the forge's.
        takes = "uses:" in text or path.suffix == ".txt"
        assert set(re.findall(r"@([0-9a-f]{40})", text)) == ({forge.commit} if takes else set()), path


def test_the_example_lints_clean_and_belongs_to_who_reviews(staged: Feedstock) -> None:
    found = lint.lint([staged.folder], lint.Options(bakeries=Bakeries.at(actions.ROOT / "bakeries")))
    assert (found.findings, found.feedstocks) == ([], 1)
    assert (staged.folder / ".github/CODEOWNERS").read_text(encoding="utf-8").endswith("\n* @rita @ada\n")


def test_the_example_runs_pruned_where_it_stands(staged: Feedstock, tmp_path: Path) -> None:
    files = provider.write_inputs(tmp_path / "inputs", 3)
    recipe = Path(shutil.copytree(staged.folder / "recipes/example", tmp_path / "example"))
    text = (recipe / "recipe.py").read_text(encoding="utf-8")
    named, count = re.subn(r"(?m)^INPUTS = .*$", lambda _: f"INPUTS = {list(map(str, files))}", text)
    assert count == 1
    (recipe / "recipe.py").write_text(named, encoding="utf-8")
    feedstock = Path(sys.executable).with_name("feedstock")
    done = subprocess.run([feedstock, "run", "-C", recipe, "--prune"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (dataset,) = (tmp_path / "datasets").rglob("*.icechunk")
    assert provider.check(str(dataset), files[:2]) == []


def test_an_update_moves_the_pins_and_keeps_the_recipes(tmp_path: Path) -> None:
    forge = templates.release(tmp_path / "forge")
    staged = tmp_path / "staged-recipes"
    data = {"generates": "staged-recipes", "maintainers": "Rita @rita", "forge": "ocean-forge/forge"}
    copier.run_copy(str(forge), staged, data=data, defaults=True, quiet=True)
    (staged / "recipes/example/recipe.py").write_text("# ours\n", encoding="utf-8")
    templates.begin(staged)
    newer = templates.commit(forge, "v1.1.0")
    copier.run_update(staged, defaults=True, quiet=True, overwrite=True)
    assert f"@{newer} # v1.1.0" in (staged / CHECK).read_text(encoding="utf-8")
    assert (staged / "recipes/example/recipe.py").read_text(encoding="utf-8") == "# ours\n"
    assert not (staged / "feedstock").exists()


@pytest.mark.parametrize(("name", "value"), [("maintainers", "Rita"), ("bakery", "LDEO"), ("forge", "forge")])
def test_a_wrong_answer_is_told_what_to_write(tmp_path: Path, name: str, value: str) -> None:
    forge = templates.release(tmp_path / "forge")
    data = {"generates": "staged-recipes", "maintainers": "Rita @rita", "forge": "ocean-forge/forge"} | {name: value}
    with pytest.raises(ValueError, match=f"question '{name}': Write"):
        copier.run_copy(str(forge), tmp_path / "made", data=data, defaults=True, quiet=True)
    assert not (tmp_path / "made").exists()


def test_nobody_who_generates_a_feedstock_is_asked_what_to_generate(tmp_path: Path) -> None:
    forge = templates.release(tmp_path / "forge")
    copier.run_copy(str(forge), tmp_path / "made", data=templates.ANSWERS, defaults=True, quiet=True)
    recorded = yaml.safe_load((tmp_path / "made/.copier-answers.yml").read_text(encoding="utf-8"))
    assert "generates" not in recorded
    assert (tmp_path / "made/feedstock/recipe.py").exists()
