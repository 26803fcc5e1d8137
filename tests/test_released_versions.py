"""From every version in the ledger an update leads to the template as it is now, whatever a person edited."""

import re
import shutil
from pathlib import Path

import copier
import pytest
from packaging.version import Version

from feedstock_forge import forge_release, lifecycle, lint, template
from feedstock_forge.lifecycle import State
from support import templates
from support.feedstocks import git
from test_template_updates import edit, edited

ROOT = Path(__file__).parents[1]
LEDGER = forge_release.ledger(ROOT)
REGISTER = ".github/workflows/register.yml"
SHALLOW = git(ROOT, "rev-parse", "--is-shallow-repository") == "true"

whole = pytest.mark.skipif(SHALLOW, reason="a shallow clone holds no older version: git fetch --unshallow")
# The newest for every pull request, the older ones every night.
releases = pytest.mark.parametrize(
    "release",
    [pytest.param(found, id=found.version, marks=pytest.mark.slow if found in LEDGER[:-2] else ()) for found in LEDGER],
)


@whole
def test_the_ledger_names_commits_of_this_history_oldest_first():
    versions = [Version(release.version) for release in LEDGER]
    assert versions == sorted(set(versions))
    before = None
    for release in LEDGER:
        git(ROOT, "merge-base", "--is-ancestor", release.commit, "HEAD")
        assert f'version = "{release.version}"' in git(ROOT, "show", f"{release.commit}:pyproject.toml")
        assert before is None or git(ROOT, "merge-base", before, release.commit) == before
        before = release.commit


@whole
def test_the_changelog_of_a_released_version_stays_as_it_was(tmp_path):
    """A line that a merge puts there belongs under Unreleased."""
    for release in LEDGER:
        then = git(ROOT, "show", f"{release.commit}:{forge_release.CHANGELOG}") + "\n"
        (tmp_path / forge_release.CHANGELOG).write_text(then, encoding="utf-8")
        assert forge_release.notes(ROOT, release.version) == forge_release.notes(tmp_path, release.version)


@pytest.fixture(scope="module")
def forge(tmp_path_factory):
    """This repository's history without its tags, and the working tree as the commit after it."""
    folder = tmp_path_factory.mktemp("forge") / "forge"
    git(ROOT, "clone", "--quiet", "--no-local", "--no-tags", str(ROOT), str(folder))
    for name in templates.PARTS:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        templates.put(name, folder)
    templates.commit(folder)
    return folder


@pytest.fixture(scope="module")
def generated(forge, tmp_path_factory):
    made = {}

    def generate(release):
        if release not in made:
            made[release] = tmp_path_factory.mktemp("generated") / "noaa-oisst-feedstock"
            copier.run_copy(
                str(forge), made[release], data=templates.ANSWERS, vcs_ref=release.commit, defaults=True, quiet=True
            )
            templates.begin(made[release])
        return made[release]

    return generate


@pytest.fixture
def both(forge, generated, tmp_path):
    """Update a copy of a generated feedstock in both ways, after ``change``: Copier's folder, and the branch's."""

    def update(release, change):
        folders = [tmp_path / way / "noaa-oisst-feedstock" for way in ("copier", "forge")]
        for folder in folders:
            shutil.copytree(generated(release), folder)
            change(folder)
            templates.commit(folder)
        copier.run_update(folders[0], vcs_ref="HEAD", defaults=True, quiet=True, overwrite=True)
        with template.fetched(str(forge), "HEAD") as fetched:
            (outcome,) = lifecycle.update([folders[1]], fetched)
        assert (outcome.state, outcome.findings) == (State.UPDATED, ())
        git(folders[1], "checkout", "--quiet", outcome.branch)
        assert not [path for folder in folders for path in folder.rglob("*.rej")]
        return (*folders, outcome)

    return update


def markers(folder):
    return [name for name, content in templates.tree(folder).items() if re.search(rb"^<{7} ", content, re.MULTILINE)]


@whole
@releases
def test_an_untouched_feedstock_updates_without_a_conflict(release, both, forge):
    by_copier, by_forge, outcome = both(release, lambda folder: None)
    assert outcome.conflicts == ()
    assert markers(by_copier) == markers(by_forge) == []
    assert templates.tree(by_copier) == templates.tree(by_forge)
    newest = git(forge, "rev-parse", "HEAD")
    assert f"register.yml@{newest} # " in (by_forge / REGISTER).read_text(encoding="utf-8")
    assert lint.lint([by_forge], lint.Options()).findings == []


@whole
@releases
def test_what_a_person_edited_stays_and_conflicts_with_nothing(release, both):
    by_copier, by_forge, outcome = both(release, edited)
    assert outcome.conflicts == ()
    assert templates.tree(by_copier) == templates.tree(by_forge)
    for name, text in (
        ("feedstock/recipe.py", '"time": 7'), ("feedstock/meta.yaml", 'version: "1.1"'), ("README.md", "Cite us."),
        (".github/workflows/mine.yml", "on: push"),
    ):  # fmt: skip
        assert text in (by_forge / name).read_text(encoding="utf-8")
    assert not (by_forge / ".github/pull_request_template.md").exists()


@whole
@releases
def test_where_both_changed_a_line_copier_shows_both_and_a_check_refuses_them(release, both, command):
    def pin_by_hand(folder):
        # The line that every update moves.
        edit(folder / REGISTER, f"@{release.commit} #", f"@{release.commit} # ours,")

    by_copier, by_forge, outcome = both(release, pin_by_hand)
    assert markers(by_copier) == [REGISTER] == [*outcome.conflicts]
    assert "conflict-marker" in command("check", cwd=by_copier, code=1).stdout
    assert markers(by_forge) == []
    assert "# ours," in (by_forge / REGISTER).read_text(encoding="utf-8")
