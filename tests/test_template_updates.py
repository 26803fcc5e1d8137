"""Updates: what the template changed arrives, what a person changed stays, and nothing is left half merged."""

import shutil
from pathlib import Path

import copier
import pytest
import yaml

from feedstock_forge import lifecycle, lint
from feedstock_forge.git import Repository
from feedstock_forge.lifecycle import State
from feedstock_forge.template import USERS, fetched
from support import templates
from support.feedstocks import git

ROOT = Path(__file__).parents[1]
REGISTER = ".github/workflows/register.yml"


@pytest.fixture(scope="module")
def forge(tmp_path_factory):
    """A release, and a newer one that changes a workflow and the README, renames a file and adds a question."""
    folder = templates.release(tmp_path_factory.mktemp("forge") / "forge")
    edit(folder / "template/.github/workflows/check.yml", "  merge_group:\n", "  merge_group:\n  watch:\n")
    edit(folder / "template/README.md", "## Release it", "## Publish it")
    git(folder, "mv", "template/.github/ISSUE_TEMPLATE/problem.yml", "template/.github/ISSUE_TEMPLATE/wrong.yml")
    with (folder / "copier.yml").open("a", encoding="utf-8") as questions:
        questions.write("\nregion:\n  type: str\n  help: Where is it?\n  default: eu\n")
    templates.commit(folder, "v2.0.0")
    return folder


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def generated(forge, tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated") / "noaa-oisst-feedstock"
    copier.run_copy(str(forge), folder, data=templates.ANSWERS, vcs_ref="v1.0.0", defaults=True, quiet=True)
    return templates.begin(folder)


@pytest.fixture
def feedstock(generated, tmp_path):
    return Path(shutil.copytree(generated, tmp_path / "noaa-oisst-feedstock"))


def edited(feedstock):
    """A feedstock with what its maintainers typically change."""
    edit(feedstock / "feedstock/recipe.py", '"time": 30', '"time": 7')
    edit(feedstock / "feedstock/meta.yaml", 'version: "1.0"', 'version: "1.1"')
    edit(feedstock / "README.md", "<!-- This part is yours", "Cite us.\n\n<!-- This part is yours")
    (feedstock / ".github/workflows/mine.yml").write_text("on: push\n", encoding="utf-8")
    (feedstock / ".github/pull_request_template.md").unlink()
    templates.commit(feedstock)
    return feedstock


def update(forge, *feedstocks, **options):
    with fetched(str(forge), options.pop("version", None)) as template:
        return list(lifecycle.update(feedstocks, template, **options))


def test_an_untouched_feedstock_becomes_what_copier_makes_of_it(forge, feedstock, tmp_path):
    other = Path(shutil.copytree(feedstock, tmp_path / "other"))
    copier.run_update(other, defaults=True, quiet=True, overwrite=True)
    (outcome,) = update(forge, feedstock)
    assert (outcome.state, outcome.conflicts) == (State.UPDATED, ())
    assert templates.status(feedstock) == []
    git(feedstock, "checkout", "--quiet", outcome.branch)
    assert templates.tree(feedstock) == templates.tree(other)


def test_a_repository_of_staged_recipes_becomes_what_copier_makes_of_it(forge, tmp_path):
    data = templates.ANSWERS | {"generates": "staged-recipes"}
    staged, other = tmp_path / "staged-recipes", tmp_path / "other"
    copier.run_copy(str(forge), staged, data=data, vcs_ref="v1.0.0", defaults=True, quiet=True)
    templates.begin(staged)
    edit(staged / "recipes/example/recipe.py", "import", "# Ours.\nimport")
    templates.commit(staged)
    shutil.copytree(staged, other)
    copier.run_update(other, defaults=True, quiet=True, overwrite=True)
    (outcome,) = update(forge, staged)
    assert (outcome.state, outcome.conflicts) == (State.UPDATED, ())
    git(staged, "checkout", "--quiet", outcome.branch)
    assert templates.tree(staged) == templates.tree(other)


def test_what_an_update_leaves_to_the_user_is_what_copier_does():
    questions = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    assert [f"{name}/**" for name in USERS] == questions["_skip_if_exists"]


def test_both_ways_keep_what_a_person_changed_and_bring_what_the_template_changed(forge, feedstock, tmp_path):
    edited(feedstock)
    before = templates.tree(feedstock)
    other = Path(shutil.copytree(feedstock, tmp_path / "other"))
    copier.run_update(other, defaults=True, quiet=True, overwrite=True)
    (outcome,) = update(forge, feedstock)
    assert outcome.conflicts == ()
    git(feedstock, "checkout", "--quiet", outcome.branch)
    after = templates.tree(feedstock)
    assert after == templates.tree(other)
    assert {name for name in before if before[name] != after.get(name)} == {
        ".copier-answers.yml", ".github/ISSUE_TEMPLATE/problem.yml", ".github/workflows/check.yml",
        ".github/workflows/label-state.yml", ".github/workflows/register.yml", ".github/workflows/request-label.yml",
        ".github/workflows/status.yml", ".pre-commit-config.yaml", ".schemas/meta.json", "README.md",
        "requirements-dev.txt",
    }  # fmt: skip
    assert b"Cite us." in after["README.md"]
    assert b"## Publish it" in after["README.md"]
    assert ".github/pull_request_template.md" not in after
    assert lint.lint([feedstock], lint.Options()).findings == []


def test_what_both_changed_stays_the_persons_and_is_named(forge, feedstock):
    edit(feedstock / "README.md", "## Release it", "## How we release")
    templates.commit(feedstock)
    (outcome,) = update(forge, feedstock)
    assert outcome.conflicts == ("README.md",)
    git(feedstock, "checkout", "--quiet", outcome.branch)
    readme = (feedstock / "README.md").read_text(encoding="utf-8")
    assert "## How we release" in readme
    assert "<<<<<<< " not in readme
    assert "  watch:" in (feedstock / ".github/workflows/check.yml").read_text(encoding="utf-8")
    assert "left as they are here:\n- README.md" in git(feedstock, "log", "-1", "--format=%B")
    assert lint.lint([feedstock], lint.Options()).findings == []


def test_a_conflict_is_shown_as_copier_leaves_it_inline_which_lint_refuses(forge, feedstock):
    edit(feedstock / "README.md", "## Release it", "## How we release")
    templates.commit(feedstock)
    here = Repository(feedstock)
    with fetched(str(forge)) as template:
        merged = lifecycle.merge(here, "HEAD", lifecycle.recorded(here, "HEAD", "answers"), template)
    copier.run_update(feedstock, defaults=True, quiet=True, overwrite=True)
    (conflict,) = merged.conflicts
    assert conflict.text == (feedstock / "README.md").read_text(encoding="utf-8")
    assert not list(feedstock.rglob("*.rej"))
    assert [found.id for found in lint.lint([feedstock], lint.Options()).findings] == ["conflict-marker"]


def test_what_a_person_deleted_stays_deleted_though_the_template_changed_it(forge, feedstock, tmp_path):
    (feedstock / "README.md").unlink()
    templates.commit(feedstock)
    other = Path(shutil.copytree(feedstock, tmp_path / "other"))
    copier.run_update(other, defaults=True, quiet=True, overwrite=True)
    (outcome,) = update(forge, feedstock)
    assert outcome.conflicts == ()
    git(feedstock, "checkout", "--quiet", outcome.branch)
    assert templates.tree(feedstock) == templates.tree(other)
    assert not (feedstock / "README.md").exists()


def test_a_second_update_finds_the_branch_and_a_merged_one_nothing_to_do(forge, feedstock):
    (first,) = update(forge, feedstock)
    assert update(forge, feedstock)[0].state is State.WAITING
    git(feedstock, "merge", "--quiet", first.branch)
    assert update(forge, feedstock)[0].state is State.CURRENT
    assert update(forge, feedstock, version="v1.0.0")[0].state is State.AHEAD


def test_a_dry_run_says_what_would_change_and_makes_no_branch(forge, feedstock):
    refs = git(feedstock, "for-each-ref")
    (outcome,) = update(forge, feedstock, dry_run=True)
    assert (outcome.state, REGISTER in outcome.files) == (State.PLANNED, True)
    assert git(feedstock, "for-each-ref") == refs


def test_one_bad_feedstock_does_not_stop_the_others(forge, feedstock, tmp_path):
    broken = Path(shutil.copytree(feedstock, tmp_path / "broken"))
    edit(broken / ".copier-answers.yml", "v1.0.0", "v0.0.1")
    templates.commit(broken)
    bare = tmp_path / "bare"
    bare.mkdir()
    outcomes = update(forge, broken, bare, feedstock, jobs=2)
    assert [outcome.state for outcome in outcomes] == [State.REFUSED, State.REFUSED, State.UPDATED]
    assert [outcome.findings[0].id for outcome in outcomes[:2]] == [
        "template-version-unknown",
        "feedstock-not-committed",
    ]


def test_a_feedstock_inside_another_repository_is_refused_and_that_one_stays_as_it_was(forge, feedstock, tmp_path):
    outer = tmp_path / "outer"
    shutil.copytree(feedstock, outer / "noaa-oisst-feedstock", ignore=shutil.ignore_patterns(".git"))
    templates.begin(outer)
    refs = git(outer, "for-each-ref")
    (outcome,) = update(forge, outer / "noaa-oisst-feedstock")
    assert [found.id for found in outcome.findings] == ["feedstock-not-committed"]
    assert git(outer, "for-each-ref") == refs


def test_the_changes_between_the_versions_stand_in_the_commit(forge, feedstock):
    (outcome,) = update(forge, feedstock)
    message = git(feedstock, "log", "-1", "--format=%B", outcome.branch)
    assert message.startswith("Update the template from v1.0.0 to v2.0.0\n\nChanges:\n- v2.0.0\n\nFiles:\n")


def test_the_command_updates_where_it_stands_and_ends_with_3_where_a_file_is_left(forge, feedstock, command):
    edit(feedstock / "README.md", "## Release it", "## How we release")
    templates.commit(feedstock)
    done = command("update", "--template", forge, cwd=feedstock, code=3)
    assert "v2.0.0 is on the branch template/v2.0.0" in done.stdout
    assert "left to you: README.md" in done.stdout


def test_a_template_that_is_not_there_is_a_finding(feedstock, command):
    done = command("update", "--template", feedstock / "nowhere", cwd=feedstock, code=1)
    assert "template-unreachable" in done.stderr
