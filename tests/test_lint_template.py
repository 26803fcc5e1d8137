"""Generated files, compared with what the real template renders from the feedstock's recorded answers."""

from pathlib import Path

import copier
import pytest

from feedstock_forge import lint
from support.feedstocks import git
from support.templates import ANSWERS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def forge(tmp_path_factory):
    """A clone of this repository with a release, and with a later change of the template."""
    folder = tmp_path_factory.mktemp("forge") / "forge"
    git(ROOT, "clone", "--quiet", "--no-local", str(ROOT), str(folder))
    git(folder, "tag", "--force", "v7.0.0")
    workflow = folder / "template" / ".github" / "workflows" / "check.yml"
    workflow.write_text(f"# of a later version\n{workflow.read_text(encoding='utf-8')}", encoding="utf-8")
    git(folder, "commit", "--quiet", "--all", "--message", "Change the template")
    return folder


@pytest.fixture
def feedstock(forge, tmp_path):
    folder = tmp_path / "noaa-oisst-feedstock"
    copier.run_copy(str(forge), folder, data=ANSWERS, vcs_ref="v7.0.0", defaults=True, quiet=True)
    return folder


def findings(feedstock, forge):
    return lint.lint([feedstock], lint.Options(template=forge)).findings


def test_what_the_template_renders_today_is_without_a_finding(feedstock, forge):
    assert findings(feedstock, forge) == []


def test_an_edited_workflow_is_found_at_its_first_changed_line(feedstock, forge):
    path = feedstock / ".github" / "workflows" / "check.yml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("permissions: {}", "permissions: write-all"), encoding="utf-8")
    (found,) = findings(feedstock, forge)
    assert found.id == "workflow-changed"
    assert found.place.file == str(path)
    assert path.read_text(encoding="utf-8").splitlines()[found.place.line - 1] == "permissions: write-all"
    assert "permissions: {}" in found.message


def test_a_forge_without_that_version_cannot_compare_and_says_so(feedstock, forge):
    answers = feedstock / ".copier-answers.yml"
    answers.write_text(answers.read_text(encoding="utf-8").replace("v7.0.0", "v8.0.0"), encoding="utf-8")
    (found,) = findings(feedstock, forge)
    assert found.id == "template-not-rendered"
    assert "v8.0.0" in found.fix


def test_without_a_template_the_comparison_is_noted_as_left_out(feedstock):
    report = lint.lint([feedstock], lint.Options())
    assert report.findings == []
    assert any("--template" in note for note in report.notes)


def test_a_feedstock_generated_from_github_is_compared_by_any_checkout(feedstock, forge):
    answers = feedstock / ".copier-answers.yml"
    lines = answers.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith(("forge:", "_src_path:"))]
    answers.write_text("\n".join([*kept, "_src_path: gh:ocean-forge/forge", ""]), encoding="utf-8")
    assert findings(feedstock, forge) == []
