"""A version of the forge: two commits and a tag that appear at once or can be taken up again, and a page on GitHub."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from feedstock_forge import forge_release
from feedstock_forge.findings import Refused
from feedstock_forge.github import GitHub
from support import actions, events, github, templates
from support.feedstocks import IDENTITY, Feedstock, git

ROOT = Path(__file__).parents[1]
VERSION = "97.0.0"


@pytest.fixture(autouse=True)
def ada(monkeypatch):
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def checkout(tmp_path):
    """What a release touches of this repository, on the branch main."""
    folder = tmp_path / "checkout"
    for name in (*forge_release.VERSIONED, forge_release.CHANGELOG, forge_release.LEDGER):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    changelog = folder / forge_release.CHANGELOG
    text = changelog.read_text(encoding="utf-8")
    changelog.write_text(text.replace("## Unreleased\n", "## Unreleased\n\n- Something new.\n", 1), encoding="utf-8")
    return templates.begin(folder)


def show(checkout, commit, name):
    return git(checkout, "show", f"{commit}:{name}")


def refused(checkout, version=VERSION):
    with pytest.raises(Refused) as stopped:
        forge_release.cut(checkout, version)
    return [finding.id for finding in stopped.value.findings]


def test_a_release_is_a_commit_with_its_tag_and_one_that_writes_it_into_the_ledger(checkout):
    before = git(checkout, "rev-parse", "HEAD")
    release = forge_release.cut(checkout, VERSION)
    assert git(checkout, "rev-parse", "v97.0.0^{commit}", "HEAD~1").split() == [release.commit] * 2
    assert git(checkout, "rev-parse", "HEAD~2") == before
    for name in forge_release.VERSIONED:
        assert f'"{VERSION}"' in show(checkout, release.commit, name)
    assert re.search(
        r"## 97\.0\.0 \(20\d\d-\d\d-\d\d\)\n\n- Something new\.\n", show(checkout, release.commit, "CHANGELOG.md")
    )
    assert forge_release.ledger(checkout)[-1] == release
    assert "## Unreleased\n\n## 97.0.0 (" in (checkout / "CHANGELOG.md").read_text(encoding="utf-8")
    assert git(checkout, "log", "-2", "--format=%(trailers:key=Signed-off-by,valueonly)").split("\n\n") == [
        "Ada <ada@example.org>",
        "Ada <ada@example.org>",
    ]
    assert "- Something new." in git(checkout, "tag", "--list", "--format=%(contents)", release.tag)
    assert templates.status(checkout) == []


def test_the_lock_file_still_fits(checkout):
    shutil.copy(ROOT / "README.md", checkout)
    forge_release.cut(templates.commit(checkout) and checkout, VERSION)
    done = subprocess.run([actions.uv(), "lock", "--check", "--offline"], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_second_run_has_nothing_to_do(checkout):
    release = forge_release.cut(checkout, VERSION)
    refs = git(checkout, "for-each-ref")
    assert forge_release.cut(checkout, VERSION) == release
    assert git(checkout, "for-each-ref") == refs


KILL = "#!/bin/sh\n{when} || exit 0\nkill -KILL $(ps -o ppid= -p $PPID)\n"
LEDGER_STAGED = "git diff --cached --name-only | grep -q releases.yaml"


@pytest.mark.parametrize(
    ("hook", "when"),
    [("pre-commit", "true"), ("pre-commit", LEDGER_STAGED), ("post-commit", "true"), ("post-merge", "true")],
    ids=["in the first commit", "in the second commit", "after a commit", "before the tag"],
)
def test_a_run_that_was_killed_is_taken_up_again(checkout, hook, when):
    path = checkout / ".git/hooks" / hook
    path.parent.mkdir(exist_ok=True)
    path.write_text(KILL.format(when=when), encoding="utf-8")
    path.chmod(0o755)
    before = git(checkout, "rev-parse", "HEAD")
    command = [sys.executable, "-m", "feedstock_forge.forge_release", "cut", VERSION]
    assert subprocess.run(command, cwd=checkout, capture_output=True, check=False).returncode == -9
    assert git(checkout, "tag") == ""
    path.unlink()
    release = forge_release.cut(checkout, VERSION)
    assert git(checkout, "rev-parse", "HEAD~1", "HEAD~2", "v97.0.0^{commit}").split() == [
        release.commit, before, release.commit,
    ]  # fmt: skip
    assert templates.status(checkout) == []


def test_a_ledger_that_is_not_committed_releases_nothing(checkout):
    """As a kill leaves it while git writes the files of the new commits."""
    release = forge_release.cut(checkout, VERSION)
    git(checkout, "tag", "--delete", release.tag)
    git(checkout, "reset", "--quiet", "--soft", "HEAD~2")
    assert refused(checkout) == ["forge-not-ready", "forge-changes-missing"]
    git(checkout, "restore", "--staged", "--worktree", ".")
    again = forge_release.cut(checkout, VERSION)
    assert git(checkout, "rev-parse", "HEAD~1", f"{again.tag}^{{commit}}").split() == [again.commit] * 2


def test_a_run_that_fails_while_it_commits_leaves_the_branch_as_it_was(checkout):
    hook = checkout / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    # Refuses the second of the two commits.
    hook.write_text("#!/bin/sh\n! git diff --cached --name-only | grep -q releases.yaml\n", encoding="utf-8")
    hook.chmod(0o755)
    refs = git(checkout, "for-each-ref")
    assert refused(checkout) == ["git-failed"]
    assert git(checkout, "for-each-ref") == refs
    assert templates.status(checkout) == []
    assert git(checkout, "worktree", "list").count("\n") == 0
    hook.unlink()
    forge_release.cut(checkout, VERSION)


def test_the_way_back_that_it_prints_leads_back(checkout):
    before = git(checkout, "rev-parse", "HEAD")
    done = subprocess.run(
        [sys.executable, "-m", "feedstock_forge.forge_release", "cut", VERSION],
        cwd=checkout,
        capture_output=True,
        text=True,
    )
    (way,) = re.findall(r"^    (git tag --delete .*)$", done.stdout, re.MULTILINE)
    subprocess.run(["bash", "-c", way], cwd=checkout, check=True, capture_output=True)
    assert git(checkout, "rev-parse", "HEAD") == before
    assert git(checkout, "tag") == ""


@pytest.mark.parametrize("version", ["", "1", "v98.0.0", "98.0", "98.0.0rc1", "098.0.0", "98.0.0\n", "$(id)"])
def test_what_is_no_version_is_refused(checkout, version):
    assert refused(checkout, version) == ["forge-version-invalid"]


def test_everything_that_stands_in_the_way_is_said_at_once(checkout):
    forge_release.cut(checkout, VERSION)
    git(checkout, "switch", "--quiet", "--create", "feature")
    git(checkout, "tag", "v96.0.0")
    (checkout / "stray.txt").write_text("", encoding="utf-8")
    refs = git(checkout, "for-each-ref")
    assert refused(checkout, "96.0.0") == [
        "forge-version-invalid",  # not newer
        "forge-tag-differs",  # a tag that the ledger does not know
        "forge-not-ready",  # not on main
        "forge-not-ready",  # a file that is not committed
        "forge-changes-missing",  # nothing under Unreleased yet
    ]
    assert git(checkout, "for-each-ref") == refs


def test_a_checkout_that_lacks_what_others_pushed_is_refused(checkout):
    git(checkout, "update-ref", "refs/remotes/origin/main", templates.commit(checkout))
    git(checkout, "reset", "--quiet", "--hard", "HEAD~1")
    assert refused(checkout) == ["forge-not-ready"]


def test_a_tag_that_was_moved_is_refused(checkout):
    release = forge_release.cut(checkout, VERSION)
    git(checkout, "tag", "--force", release.tag, "HEAD")
    assert refused(checkout) == ["forge-tag-differs"]


@pytest.fixture
def hub(tmp_path):
    with github.serve(tmp_path) as running:
        running.add(actions.FORGE, 1)
        yield running
        assert running.problems == []


def test_pushing_the_tag_publishes_its_part_of_the_changelog_once(checkout, forge, tmp_path):
    place = Feedstock(tmp_path / "server", actions.FORGE)
    shutil.copytree(forge.rewritten, place.folder)
    for name in (forge_release.CHANGELOG, forge_release.LEDGER):
        shutil.copy(checkout / name, place.folder / name)
    templates.begin(place.folder)
    release = forge_release.cut(place.folder, VERSION)
    git(place.folder, "checkout", "--quiet", release.tag)
    payload = events.write(events.tag(release.tag, release.commit, actions.FORGE), tmp_path / "tag.json")
    with github.serve(tmp_path / "server") as hub:
        hub.add(actions.FORGE, 1)
        job = {"GITHUB_API_URL": hub.url}
        secrets = {"GITHUB_TOKEN": hub.person("github-actions[bot]", 41898282)}
        run = actions.run(forge, place, "release.yml", "push", payload, job=job, secrets=secrets)
        assert run.outcomes == {"Publish": "success"}, run.log
        assert "releases/tag/v97.0.0" in run.said
        client = GitHub(hub.url, token=secrets["GITHUB_TOKEN"])
        assert forge_release.publish(place.folder, release.tag, client, actions.FORGE) in run.said
        assert [asked for asked in hub.requests if asked.startswith("POST")] == [
            f"POST /repos/{actions.FORGE}/releases"
        ]
        (made,) = hub.releases.values()
        assert (made["tag_name"], made["name"]) == ("v97.0.0", "Feedstock Forge 97.0.0")
        assert made["body"].startswith("- Something new.")
        assert hub.problems == []


def test_a_tag_that_is_not_the_version_is_not_published(checkout, hub):
    release = forge_release.cut(checkout, VERSION)
    git(checkout, "checkout", "--quiet", release.tag)
    client = GitHub(hub.url, token=hub.person("ada", 1))
    with pytest.raises(Refused) as stopped:
        forge_release.publish(checkout, "v97.0.1", client, actions.FORGE)
    assert [finding.id for finding in stopped.value.findings] == ["forge-tag-differs"]
    assert hub.requests == []


@pytest.mark.parametrize(("checks", "tested"), [((), True), (("CHECKS=no",), False)])
def test_make_release_lints_and_tests_first_unless_told_otherwise(checks, tested):
    command = ["make", "--dry-run", "release", f"VERSION={VERSION}", *checks]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    begin, end = (shown.index(f"forge_release {step} '{VERSION}'") for step in ("check", "cut"))
    assert ("ruff check" in shown[begin:end], "pytest" in shown[begin:end]) == (tested, tested)
