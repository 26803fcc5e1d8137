"""Asking and granting: both halves as branches, comments and order kept, and no conflict whoever grants first."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from conftest import Command
from feedstock_forge.findings import Refused
from feedstock_forge.labels.edit import with_request
from feedstock_forge.yaml_file import parse_yaml
from support import feedstocks
from support.feedstocks import Feedstock, git

WISH = {"id": "ldeo", "label": "prod", "on": ["release", "merge"]}
BEGIN = "# mine\nid: sst  # a name\n"

ITEM = "- id: ldeo\n  label: prod\n  on: [release, merge]\n"

FORMS = {
    "no bakeries": (BEGIN, BEGIN + "bakeries:\n  - id: ldeo\n    label: prod\n    on: [release, merge]\n"),
    "no newline at the end": (
        "id: sst",
        "id: sst\nbakeries:\n  - id: ldeo\n    label: prod\n    on: [release, merge]\n",
    ),
    "an empty list": (
        "bakeries: []  # none\nid: sst\n",
        "bakeries: [{id: ldeo, label: prod, on: [release, merge]}]  # none\nid: sst\n",
    ),
    "nothing at all": (
        "bakeries:\nid: sst\n",
        "bakeries:\n  - id: ldeo\n    label: prod\n    on: [release, merge]\nid: sst\n",
    ),
    "a block": (
        "bakeries:\n- id: local  # here\n  label: dev\n\n# next\nid: sst\n",
        "bakeries:\n- id: local  # here\n  label: dev\n" + ITEM + "\n# next\nid: sst\n",
    ),
    "a flow list": (
        "bakeries: [{id: local, label: dev}]\n",
        "bakeries: [{id: local, label: dev}, {id: ldeo, label: prod, on: [release, merge]}]\n",
    ),
    "one that asks for less": (
        "bakeries:\n  - label: prod  # why\n    id: ldeo\n    on: release\nid: sst\n",
        "bakeries:\n  - label: prod  # why\n    id: ldeo\n    on: [release, merge]\nid: sst\n",
    ),
    "one without events": (
        "bakeries:\n  - {id: ldeo, label: prod}\n",
        "bakeries:\n  - {id: ldeo, label: prod, on: [release, merge]}\n",
    ),
    "a block list of events": (
        "bakeries:\n  - id: ldeo\n    label: prod\n    on:\n      - release\n\nid: sst  # kept\n",
        "bakeries:\n  - id: ldeo\n    label: prod\n    on:\n      [release, merge]\n\nid: sst  # kept\n",
    ),
    "windows": (
        "id: sst\r\n",
        "id: sst\r\nbakeries:\r\n  - id: ldeo\r\n    label: prod\r\n    on: [release, merge]\r\n",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_request_is_written_without_touching_anything_else(form: str) -> None:
    before, after = FORMS[form]
    assert with_request(before, WISH) == after
    assert with_request(after, WISH) == after


@pytest.mark.parametrize(
    "text",
    [
        "bakery: {id: old}\n",
        "",
        "- id: sst\n",
        "x: &b\n  - {id: local, label: dev}\nbakeries: *b\n",
        "x: &b\n  - {id: ldeo, label: prod}\nbakeries: *b\n",
        "x: &b {id: ldeo, label: prod}\nbakeries:\n  - *b\n",
        "bakeries:\n  - {id: ldeo, label: prod, on: &e [release]}\n  - {id: local, label: dev, on: *e}\n",
    ],
)
def test_what_a_program_is_not_sure_of_is_left_to_a_person(text: str) -> None:
    with pytest.raises(Refused) as refused:
        with_request(text, WISH)
    assert refused.value.findings[0].id == "meta-not-editable"


BAKERY = """
description: A bakery of the tests
operators: [{github: bob}]
work_pool: {name: ldeo, type: process}
labels:
  dev: {grants: open, prune: required}
  prod: {grants: on-request, limits: {memory: 4 GiB}}
  old: {grants: closed}
targets:
  default: {url: "s3://ldeo"}
"""


@pytest.fixture
def forge(tmp_path: Path) -> Feedstock:
    made = Feedstock(tmp_path / "server", "pangeo-forge/feedstock-forge", 1)
    made.folder.mkdir(parents=True)
    git(made.folder, "init", "--quiet")
    made.write("bakeries/ldeo/bakery.yaml", BAKERY)
    made.commit("Begin")
    return made


@pytest.fixture
def clones(tmp_path: Path, feedstock: Feedstock, forge: Feedstock) -> tuple[Path, Path]:
    """A maintainer's clone of the feedstock and one of the forge."""
    for repository in (feedstock, forge):
        git(tmp_path, "clone", "--quiet", repository.folder.as_uri(), repository.folder.name)
    return tmp_path / feedstock.folder.name, tmp_path / forge.folder.name


def away(server: Path) -> dict[str, str]:
    """An environment with git's server in a folder and no GitHub."""
    return feedstocks.IDENTITY | {"GITHUB_SERVER_URL": server.as_uri(), "GITHUB_API_URL": "http://127.0.0.1:9"}


def test_without_network_both_branches_are_ready_and_what_to_push_is_said(
    command: Command, clones: tuple[Path, Path], forge: Feedstock
) -> None:
    feedstock, granting = clones
    head, dirty = git(feedstock, "rev-parse", "HEAD"), feedstock / "feedstock/meta.yaml"
    dirty.write_text(dirty.read_text() + "# not committed\n")
    options = ["--forge", granting, "--on", "merge", "--resources", "2 GiB,1", "--repository-id", "4242"]
    done = command("label", "request", "-C", feedstock, "ldeo", "prod", *options, env=away(forge.server))
    branch = "label/ldeo/sst.prod"
    assert f"git -C {feedstock} push origin {branch}" in done.stdout
    assert f"git -C {granting} push origin {branch}" in done.stdout
    assert "/new/main?filename=bakeries%2Fldeo%2Fgrants%2Fsst.yaml&value=" in done.stdout

    assert git(feedstock, "rev-parse", "HEAD") == head
    assert dirty.read_text().endswith("# not committed\n")
    assert git(feedstock, "diff", "--stat", head, branch, "--").count("|") == 1
    asked = parse_yaml(git(feedstock, "show", f"{branch}:feedstock/meta.yaml"), Path("meta.yaml")).data["bakeries"]
    assert asked[-1] == {"id": "ldeo", "label": "prod", "on": ["merge"], "resources": {"memory": "2 GiB", "cpu": 1.0}}
    grant = parse_yaml(git(granting, "show", f"{branch}:bakeries/ldeo/grants/sst.yaml"), Path("sst.yaml")).data
    assert grant["repository"] == "pangeo-forge/sst-feedstock"
    assert (grant["repository_id"], grant["label"], grant["events"]) == (4242, "prod", ["merge"])

    # Asking again changes nothing; an operator's offer comes to the same.
    commits = [git(clone, "rev-parse", branch) for clone in clones]
    command("label", "request", "-C", feedstock, "ldeo", "prod", *options, env=away(forge.server))
    command("label", "offer", "ldeo", "prod", feedstock, "--forge", granting, *options[2:], env=away(forge.server))
    assert [git(clone, "rev-parse", branch) for clone in clones] == commits


def test_a_grant_to_a_repository_of_any_name_is_found(
    command: Command, tmp_path: Path, clones: tuple[Path, Path], forge: Feedstock
) -> None:
    name = "pangeo-forge/NOAA_OISST.v2-feedstock"
    made = feedstocks.make(tmp_path / "server", "noaa-oisst-v2")
    made.folder.rename(tmp_path / "server" / name)
    feedstock, granting = tmp_path / "mine", clones[1]
    git(tmp_path, "clone", "--quiet", (tmp_path / "server" / name).as_uri(), str(feedstock))
    options = ["--forge", granting, "--repository-id", "4242"]
    command("label", "request", "-C", feedstock, "ldeo", "prod", *options, env=away(forge.server))
    git(granting, "checkout", "--quiet", "label/ldeo/noaa-oisst-v2.prod")
    bakeries = ["--bakeries", granting / "bakeries"]
    assert "grant-misnamed" not in command("bakery", "check", *bakeries, code=1).stdout, "which wants CODEOWNERS"
    git(feedstock, "checkout", "--quiet", "label/ldeo/noaa-oisst-v2.prod")
    explained = ["label", "explain", feedstock, "ldeo", "prod", "--repository-id", "4242", *bakeries]
    assert "grant-missing" not in command(*explained, env=away(forge.server)).stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["LDEO", "prod"], "bakery-unknown"),
        (["../ldeo", "prod"], "bakery-unknown"),
        (["ldeo", "prd"], "label-unknown"),
        (["ldeo", "old"], "label-closed"),
        (["ldeo", "prod", "--resources", "8 GiB"], "resources-over-limit"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_asking_in_vain_is_refused_before_anything_is_made(
    command: Command, clones: tuple[Path, Path], forge: Feedstock, arguments: list[str], expected: str
) -> None:
    feedstock, granting = clones
    options = ["--forge", granting, "--repository-id", "4242"]
    done = command("label", "request", "-C", feedstock, *arguments, *options, env=away(forge.server), code=1)
    assert f"[{expected}]" in done.stderr
    assert git(feedstock, "branch", "--list", "label/*") == git(granting, "branch", "--list", "label/*") == ""


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ("8 gigs", "memory: `8 gigs` is not an amount; write a number and one of B, KiB"),
        ("8 GiB,two", "`two` is no number of cores"),
        ("8 GiB,0", "cpu: Input should be greater than 0"),
        ("8 GiB,nan", "cpu: Input should be a finite number"),
    ],
)
def test_resources_that_are_none_are_a_mistake_of_usage(command: Command, resources: str, expected: str) -> None:
    done = command("label", "request", "ldeo", "prod", "--resources", resources, code=2)
    assert expected in done.stderr


def test_a_clone_of_the_forge_stands_for_its_default_branch_of_now(
    command: Command, clones: tuple[Path, Path], forge: Feedstock
) -> None:
    feedstock, granting = clones
    options = ["prod", "-C", feedstock, "--forge", granting, "--repository-id", "4242"]
    forge.write("bakeries/new/bakery.yaml", BAKERY.replace("name: ldeo", "name: new"))
    forge.commit("A new bakery, which the clone has not seen")
    command("label", "request", "new", *options, env=away(forge.server))
    (granting / "bakeries/mine").mkdir()
    (granting / "bakeries/mine/bakery.yaml").write_text(BAKERY.replace("name: ldeo", "name: mine"))
    git(granting, "add", "--all")
    git(granting, "commit", "--quiet", "--message", "A bakery that nobody else has seen")
    done = command("label", "request", "mine", *options, env=away(forge.server), code=1)
    assert "origin/main of pangeo-forge/feedstock-forge has no bakery `mine`" in done.stderr
    assert "fix: let the commit that adds it into origin/main first" in done.stderr


def test_where_the_forge_cannot_be_cloned_a_clone_can_be_named(
    command: Command, clones: tuple[Path, Path], forge: Feedstock
) -> None:
    options = ["-C", clones[0], "--forge", "nobody/forge", "--repository-id", "4242"]
    done = command("label", "request", "ldeo", "prod", *options, env=away(forge.server), code=1)
    assert "[git-failed]" in done.stderr
    assert "or name a clone of it with --forge CLONE" in done.stderr
    assert not (clones[0] / ".git/feedstock-forge/nobody/forge").exists()


def test_two_hundred_grants_merge_in_any_order_without_conflict(forge: Feedstock) -> None:
    """Each grant starts from the same commit, as pull requests do."""
    base, folder = forge.head, "bakeries/ldeo/grants"
    stream = "".join(
        f"commit refs/heads/grant-{number}\ncommitter Ada <ada@example.org> 0 +0000\ndata 0\nfrom {base}\n"
        f"M 100644 inline {folder}/f-{number}.yaml\ndata 3\n{number:03}\n"
        for number in range(200)
    )
    subprocess.run(["git", "fast-import", "--quiet"], cwd=forge.folder, input=stream.encode(), check=True)
    commits = [f"grant-{number}" for number in range(200)]
    random.Random(5).shuffle(commits)  # noqa: S311 - any order
    head = base
    for commit in commits:
        tree = git(forge.folder, "merge-tree", "--write-tree", head, commit)
        head = git(forge.folder, "commit-tree", tree, "-p", head, "-p", commit, "-m", "Merge")
    assert len(git(forge.folder, "ls-tree", "--name-only", head, f"{folder}/").splitlines()) == 200
