"""Pull requests on GitHub: both halves opened and linked, and told who has consented, by a stand-in for GitHub."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import Command
from feedstock_forge import github as github_module
from feedstock_forge.github import GitHub
from feedstock_forge.labels import state
from support import feedstocks, github
from support.feedstocks import Feedstock, git

FORGE, FEEDSTOCK = "pangeo-forge/feedstock-forge", "pangeo-forge/sst-feedstock"
BAKERY = """
description: A bakery of the tests
operators: [{github: bob, id: 2}, {github: eve}]
work_pool: {name: ldeo, type: process}
labels:
  prod: {grants: on-request, limits: {memory: 4 GiB}}
targets:
  default: {url: "s3://ldeo"}
"""
BRANCH = "label/ldeo/sst.prod"
GRANT = "bakeries/ldeo/grants/sst.yaml"


@dataclass
class Scene:
    """A forge and a feedstock on GitHub, and Ada, who maintains the feedstock."""

    hub: github.GitHub
    forge: Feedstock
    feedstock: Feedstock
    clone: Path
    command: Command
    token: str

    def request(self, *options: str, code: int = 0, bakery: str = "ldeo") -> str:
        done = self.command(
            "label",
            "request",
            "-C",
            self.clone,
            bakery,
            "prod",
            "--forge",
            FORGE,
            *options,
            env=self.environment,
            code=code,
        )
        return done.stdout + done.stderr

    @property
    def environment(self) -> dict[str, str]:
        server = {"GITHUB_SERVER_URL": self.hub.folder.as_uri(), "GITHUB_API_URL": self.hub.url}
        return feedstocks.IDENTITY | server | {"GITHUB_TOKEN": self.token}

    def change(self, repository: Feedstock, files: dict[str, str], branch: str = BRANCH) -> None:
        """Commit to a branch of a repository on the server."""
        git(repository.folder, "checkout", "--quiet", "-B", branch, "main")
        for name, text in files.items():
            repository.write(name, text)
        repository.commit()
        git(repository.folder, "checkout", "--quiet", "main")

    def state(self, repository: str, number: int = 1) -> state.State:
        with GitHub(self.hub.url, token=self.hub_token) as client:
            found = state.read(client, repository, number)
            state.publish(client, found)
        return found

    @property
    def hub_token(self) -> str:
        return next(token for token, login in self.hub.tokens.items() if login == "forge[bot]")


@pytest.fixture
def scene(tmp_path: Path, feedstock: Feedstock, command: Command) -> Iterator[Scene]:
    folder = feedstock.server
    forge = Feedstock(folder, FORGE, 1)
    forge.folder.mkdir(parents=True)
    git(forge.folder, "init", "--quiet")
    forge.write("bakeries/ldeo/bakery.yaml", BAKERY)
    forge.commit("Begin")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", feedstock.folder.as_uri(), str(clone))
    with github.serve(folder) as hub:
        hub.add(FORGE, 1)
        hub.add(FEEDSTOCK, 4242)
        token = hub.person("ada", 1, {FEEDSTOCK: "admin"})
        hub.person("bob", 2, {FORGE: "write"})
        hub.person("eve", 3, {FORGE: "write"})
        hub.person("mallory", 4)
        hub.person("forge[bot]", 9, {FORGE: "write", FEEDSTOCK: "write"})
        yield Scene(hub, forge, feedstock, clone, command, token)
        assert hub.problems == []


def test_a_request_opens_both_halves_linked_and_asks_the_operators(scene: Scene) -> None:
    scene.request("--reason", "We [need](https://evil.example) it")
    (asking,), (granting,) = scene.hub.pulls[FEEDSTOCK], scene.hub.pulls[FORGE]
    assert f"https://github.com/{FORGE}/pull/1" in asking["body"]
    assert f"https://github.com/{FEEDSTOCK}/pull/1" in granting["body"]
    assert granting["from"] == "ada/feedstock-forge"  # Ada cannot push to the forge
    assert granting["reviewers"] == ["bob", "eve"]
    for words in ("4 GiB", "at whose cost", "work pool `ldeo`", "consent", "- [ ] ", r"\[need\]"):
        assert words in asking["body"]
    grant = git(scene.hub.folder / "ada/feedstock-forge", "show", f"{BRANCH}:{GRANT}")
    assert "repository_id: 4242\n" in grant


def test_asking_twice_finds_the_open_request(scene: Scene) -> None:
    scene.request()
    before = [git(scene.feedstock.folder, "rev-parse", BRANCH), list(scene.hub.pulls[FORGE])]
    said = scene.request()
    assert "the request is open already" in said
    assert [git(scene.feedstock.folder, "rev-parse", BRANCH), list(scene.hub.pulls[FORGE])] == before
    assert len(scene.hub.pulls[FEEDSTOCK]) == 1


def test_asking_for_more_goes_on_with_the_open_request(scene: Scene) -> None:
    scene.request()
    scene.request("--on", "merge")
    assert "on: [release, merge]" in git(scene.feedstock.folder, "show", f"{BRANCH}:feedstock/meta.yaml")
    assert git(scene.feedstock.folder, "rev-list", "--count", f"main..{BRANCH}") == "2"
    assert "events: [release, merge]" in git(scene.hub.folder / "ada/feedstock-forge", "show", f"{BRANCH}:{GRANT}")
    assert len(scene.hub.pulls[FEEDSTOCK]) == len(scene.hub.pulls[FORGE]) == 1


STANDING = """\
# Agreed with Ada in June.
repository: pangeo-forge/sst-feedstock
repository_id: 4242  # the second of this name
label: prod
recipes: [a]  # b is too large for us
events: [release]
limits: {memory: 2 GiB}
expires: 2020-01-01
"""


def test_more_is_added_to_what_stands_and_the_operators_comments_stay(scene: Scene) -> None:
    scene.forge.write(GRANT, STANDING)
    scene.forge.commit("Grant")
    scene.request("--recipes", "b,c", "--on", "merge", "--resources", "3 GiB", "--expires", "2099-01-01")
    grant = git(scene.hub.folder / "ada/feedstock-forge", "show", f"{BRANCH}:{GRANT}")
    expected = STANDING.replace("[a]", "[a, b, c]").replace("[release]", "[release, merge]")
    assert grant + "\n" == expected.replace("2 GiB", "3 GiB").replace("2020-01-01", "2099-01-01")
    assert "runs | `a`, `b`, `c`, on each merge" in scene.hub.pulls[FORGE][0]["body"]


def test_a_grant_that_ends_soon_is_renewed_by_asking_again(scene: Scene) -> None:
    tomorrow = datetime.date.today() + datetime.timedelta(days=1)
    scene.forge.write(GRANT, STANDING.replace("2020-01-01", str(tomorrow)))
    scene.forge.commit("Grant")
    scene.request()
    grant = git(scene.hub.folder / "ada/feedstock-forge", "show", f"{BRANCH}:{GRANT}")
    changed = [old for old, new in zip(STANDING.splitlines(), grant.splitlines(), strict=True) if old != new]
    assert changed == ["expires: 2020-01-01"]
    assert str(tomorrow) not in grant


def test_a_mistyped_bakery_is_told_without_a_clone(scene: Scene) -> None:
    said = scene.request(code=1, bakery="lddo")
    assert "did you mean `ldeo`?" in said
    assert not (scene.clone / ".git/feedstock-forge").exists()


def test_a_rate_limit_and_an_outage_leave_no_second_request(scene: Scene) -> None:
    limited = (rf"POST /repos/{FORGE}/pulls", 403, {"retry-after": "900"})
    scene.hub.faults += [("GET .*", 502, {}), limited]
    assert "github-rate-limited" in scene.request(code=1)
    scene.request()
    assert len(scene.hub.pulls[FEEDSTOCK]) == len(scene.hub.pulls[FORGE]) == 1
    assert f"{FORGE}/pull/1" in scene.hub.pulls[FEEDSTOCK][0]["body"]


def grant(repository_id: int = 4242, extra: str = "") -> dict[str, str]:
    return {GRANT: f"repository: {FEEDSTOCK}\nrepository_id: {repository_id}\nlabel: prod\n{extra}"}


def test_a_grant_waits_for_an_operator_and_a_later_commit_voids_the_approval(scene: Scene) -> None:
    scene.change(scene.forge, grant())
    scene.hub.open(FORGE, BRANCH, "ada")
    assert scene.state(FORGE).check == ("pending", "waiting for an operator of ldeo")
    scene.hub.review(FORGE, 1, "bob")
    found = scene.state(FORGE)
    assert found.check == ("success", "consented: bob")
    assert "the feedstock does not ask for it yet" in found.on_merge[0]
    scene.change(scene.forge, grant(extra="recipes: [other]\n"))
    found = scene.state(FORGE)
    assert found.check[0] == "pending"
    assert "came later" in found.notes[0].message

    # One comment, and a check on each commit.
    assert len(scene.hub.comments[FORGE, 1]) == 1
    assert "Not counted" in scene.hub.comments[FORGE, 1][0]["body"]
    assert [status["state"] for status in scene.hub.statuses[FORGE, found.commit]] == ["pending"]


def test_only_an_operator_of_this_moment_counts_by_number(scene: Scene) -> None:
    scene.change(scene.forge, grant())
    scene.hub.open(FORGE, BRANCH, "ada")
    scene.hub.review(FORGE, 1, "mallory")
    scene.hub.review(FORGE, 1, "eve")
    assert scene.state(FORGE).check == ("success", "consented: eve")
    scene.forge.write("bakeries/ldeo/bakery.yaml", BAKERY.replace(", {github: eve}", ""))
    scene.forge.commit("Eve leaves")
    found = scene.state(FORGE)
    assert found.check[0] == "pending"
    assert {note.id for note in found.notes} == {"approval-not-counted"}
    # Somebody else has taken Bob's name, not his number.
    scene.hub.users["bob"] = 22
    scene.hub.review(FORGE, 1, "bob")
    assert scene.state(FORGE).check[0] == "pending"


def test_a_pull_request_cannot_make_its_own_operator(scene: Scene) -> None:
    scene.change(scene.forge, {"bakeries/ldeo/bakery.yaml": BAKERY.replace("eve", "mallory"), **grant()})
    scene.hub.open(FORGE, BRANCH, "ada")
    scene.hub.review(FORGE, 1, "mallory")
    assert scene.state(FORGE).check[0] == "pending"


def test_an_operator_who_opened_it_consents_by_a_comment_in_a_review(scene: Scene) -> None:
    scene.change(scene.forge, grant())
    scene.hub.open(FORGE, BRANCH, "bob")
    scene.hub.review(FORGE, 1, "bob", state="COMMENTED", body="I wonder: /consent?")
    assert scene.state(FORGE).check[0] == "pending"
    scene.hub.review(FORGE, 1, "bob", state="COMMENTED", body="/consent")
    assert scene.state(FORGE).check[0] == "success"


def test_changes_requested_take_an_approval_back(scene: Scene) -> None:
    scene.change(scene.forge, grant())
    scene.hub.open(FORGE, BRANCH, "ada")
    scene.hub.review(FORGE, 1, "bob")
    scene.hub.review(FORGE, 1, "bob", state="CHANGES_REQUESTED")
    assert scene.state(FORGE).check[0] == "pending"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (grant(repository_id=77), "grant-repository-id-wrong"),
        ({GRANT: grant()[GRANT].replace("sst-feedstock", "..")}, "value-invalid"),
        ({"bakeries/ldeo/grants/other.yaml": grant()[GRANT]}, "grant-misnamed"),
        (grant(extra="limits: {memory: 64 GiB}\n"), "grant-over-limit"),
        ({GRANT: "label: prod\n"}, "key-missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_grant_that_is_wrong_fails_before_it_is_merged(scene: Scene, files: dict[str, str], expected: str) -> None:
    scene.change(scene.forge, files)
    scene.hub.open(FORGE, BRANCH, "ada")
    scene.hub.review(FORGE, 1, "bob")
    found = scene.state(FORGE)
    assert found.check[0] == "failure"
    assert expected in {finding.id for finding in found.findings}


def test_a_new_bakery_is_let_in_by_who_maintains_the_forge(scene: Scene) -> None:
    scene.change(scene.forge, {"bakeries/new/bakery.yaml": BAKERY.replace("ldeo", "new")})
    scene.hub.open(FORGE, BRANCH, "bob")
    scene.hub.review(FORGE, 1, "eve")
    assert scene.state(FORGE).check[0] == "pending"
    scene.hub.person("grace", 5, {FORGE: "maintain"})
    scene.hub.review(FORGE, 1, "grace")
    assert scene.state(FORGE).check == ("success", "consented: grace")


def test_a_feedstocks_request_waits_for_a_maintainer_of_the_default_branch(scene: Scene) -> None:
    scene.request()
    scene.hub.review(FEEDSTOCK, 1, "mallory")
    found = scene.state(FEEDSTOCK)
    assert found.check == ("pending", f"waiting for a maintainer of {FEEDSTOCK}")
    assert found.on_merge == ("asks `ldeo` for `prod` on release",)
    scene.hub.review(FEEDSTOCK, 1, "ada", state="COMMENTED", body="/consent")
    assert scene.state(FEEDSTOCK).check == ("success", "consented: ada")


def test_a_maintainer_with_a_number_is_that_person_whoever_has_the_name(scene: Scene) -> None:
    text = (scene.feedstock.folder / "feedstock/meta.yaml").read_text()
    scene.feedstock.write("feedstock/meta.yaml", text.replace("github: ada", "github: ada, id: 77"))
    scene.feedstock.commit("Ada is 77")
    scene.request()
    scene.hub.review(FEEDSTOCK, 1, "ada", state="COMMENTED", body="/consent")
    assert scene.state(FEEDSTOCK).check[0] == "pending"
    scene.hub.users["ada"] = 77
    scene.hub.reviews[FEEDSTOCK, 1].clear()
    scene.hub.review(FEEDSTOCK, 1, "ada", state="COMMENTED", body="/consent")
    assert scene.state(FEEDSTOCK).check == ("success", "consented: ada")


def test_a_broken_meta_yaml_is_mended_by_who_maintains_the_repository(scene: Scene) -> None:
    whole = (scene.feedstock.folder / "feedstock/meta.yaml").read_text()
    scene.feedstock.write("feedstock/meta.yaml", "id: [\n")
    scene.feedstock.commit("Break")
    scene.change(scene.feedstock, {"feedstock/meta.yaml": whole}, branch="mend")
    scene.hub.open(FEEDSTOCK, "mend", "mallory")
    scene.hub.review(FEEDSTOCK, 1, "eve")
    assert scene.state(FEEDSTOCK).check[0] == "pending"
    scene.hub.review(FEEDSTOCK, 1, "ada")
    assert scene.state(FEEDSTOCK).check == ("success", "consented: ada")


def test_a_feedstock_that_breaks_its_meta_yaml_keeps_no_grant_from_being_looked_at(scene: Scene) -> None:
    scene.feedstock.write("feedstock/meta.yaml", "id: [\n")
    scene.feedstock.commit("Break")
    scene.change(scene.forge, grant())
    scene.hub.open(FORGE, BRANCH, "ada")
    found = scene.state(FORGE)
    assert found.check == ("pending", "waiting for an operator of ldeo")
    assert "meta.yaml cannot be read" in found.on_merge[0]


def test_a_pull_request_of_more_files_than_github_lists_does_not_pass(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(github_module, "MAX_FILES", 3)
    scene.change(scene.forge, {f".a/{number}": "" for number in range(3)} | grant())
    scene.hub.open(FORGE, BRANCH, "mallory")
    assert scene.state(FORGE).check == ("failure", "to be mended: pull-request-too-large")


def test_a_pull_request_that_touches_no_label_passes_without_a_comment(scene: Scene) -> None:
    scene.change(scene.feedstock, {"feedstock/recipe.py": "# more\n"}, branch="more")
    scene.hub.open(FEEDSTOCK, "more", "mallory")
    assert scene.state(FEEDSTOCK).check == ("success", "this pull request touches no label")
    assert not scene.hub.comments[FEEDSTOCK, 1]


def test_a_comment_that_somebody_else_began_with_the_marker_is_not_ours(scene: Scene) -> None:
    scene.change(scene.forge, grant())
    scene.hub.open(FORGE, BRANCH, "ada")
    forged = {"id": 1, "body": f"{state.MARKER}\nconsented", "login": "mallory"}
    scene.hub.comments[FORGE, 1].append(forged)
    scene.state(FORGE)
    assert scene.hub.comments[FORGE, 1][0] == forged
    assert len(scene.hub.comments[FORGE, 1]) == 2
