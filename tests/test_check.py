"""`feedstock check` says before a pull request what the pull request would be told."""

from pathlib import Path

import pytest
import yaml

from feedstock_forge.cli.check import STEPS
from feedstock_forge.lint import leftovers

ROOT = Path(__file__).parents[1]
MARKER = "<<<<<<< before updating\nours\n=======\ntheirs\n>>>>>>> after updating\n"


def test_the_steps_are_those_of_the_action():
    action = yaml.safe_load((ROOT / "shared_workflows/check/action.yml").read_text(encoding="utf-8"))
    shown = {step["name"]: step["run"] for step in action["runs"]["steps"] if "feedstock " in step.get("run", "")}
    assert list(shown) == list(STEPS)
    for name, words in STEPS.items():
        assert f"feedstock {' '.join(words)}" in shown[name]


def test_a_feedstock_passes_and_nothing_is_left_in_it(feedstock, command):
    done = command("check", cwd=feedstock.folder)
    assert [line[3:] for line in done.stderr.splitlines() if line.startswith("== ")] == list(STEPS)
    assert "a pull request would pass its check" in done.stderr
    assert [path.name for path in sorted(feedstock.folder.iterdir())] == [".git", "feedstock"]


def test_a_dataset_that_was_baked_here_hides_nothing_behind_its_many_files(feedstock, monkeypatch):
    monkeypatch.setattr(leftovers, "MAX_FILES", 20)
    for number in range(30):
        feedstock.write(f"datasets/sst/v1/sst.zarr/c/{number}", MARKER)
    feedstock.write("feedstock/requirements.txt.rej", "@@ -1 +1 @@\n")
    assert [found.id for found in leftovers.check(feedstock.folder)] == ["rejected-patch"]
    for number in range(30):
        feedstock.write(f"before/{number}", "")
    (found,) = leftovers.check(feedstock.folder)
    assert found.id == "leftovers-unseen"
    assert "more than 20 files" in found.message


def test_a_folder_that_is_no_clone_yet_may_have_another_name(feedstock, command):
    folder = feedstock.folder.rename(feedstock.folder.with_name("my-first-try"))
    command("check", "-C", folder, "--without-run")


@pytest.mark.parametrize(
    ("name", "text", "finding"),
    [
        ("README.md", MARKER, "conflict-marker"),
        (".github/workflows/check.yml", MARKER, "conflict-marker"),
        (".schemas/meta.json", MARKER, "conflict-marker"),
        ("feedstock/requirements.txt", MARKER, "conflict-marker"),
        ("requirements-dev.txt.rej", "@@ -1 +1 @@\n", "rejected-patch"),
        (".github/dependabot.yml.rej", "@@ -1 +1 @@\n", "rejected-patch"),
    ],
)
def test_what_an_update_left_is_refused_before_anything_is_run(feedstock, command, name, text, finding):
    feedstock.write(name, text)
    done = command("check", cwd=feedstock.folder, code=1)
    assert f"[{finding}]" in done.stdout
    assert "would stop here, at: Lint" in done.stderr
