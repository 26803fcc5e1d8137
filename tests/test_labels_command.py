"""The commands that people type about bakeries and labels, where no server is needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Command
from support.feedstocks import Feedstock, git

OFFLINE = {"GITHUB_API_URL": "http://127.0.0.1:9"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A forge with one bakery, made by the command, which waits a while for a GitHub that is not there."""
    folder = tmp_path_factory.mktemp("made") / "forge"
    (folder / "bakeries").mkdir(parents=True)
    git(folder, "init", "--quiet")
    words = ["bakery", "new", "ldeo.aws", "--operator", "bob", "--target", "s3://ldeo", "--bakeries", "bakeries"]
    subprocess.run([sys.executable, "-m", "feedstock_forge", *words], cwd=folder, env=os.environ | OFFLINE, check=True)
    return folder


@pytest.fixture
def forge(made: Path, tmp_path: Path) -> Path:
    """A copy of that forge, for a test to change."""
    return Path(shutil.copytree(made, tmp_path / "forge"))


def test_a_new_bakery_is_complete_and_its_folder_belongs_to_its_operators(forge: Path, command: Command) -> None:
    assert "/bakeries/ldeo.aws/ @bob\n" in (forge / ".github/CODEOWNERS").read_text()
    command("bakery", "check", "--bakeries", forge / "bakeries")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LDEO.aws", "bakery-id-invalid"),
        ("ld\u0435o.aws", "bakery-id-invalid"),
        ("../ldeo", "bakery-id-invalid"),
        ("1deo.aws", "bakery-id-lookalike"),
        ("ldeo-aws", "bakery-id-lookalike"),
        ("ldeo.aws", "bakery-exists"),
    ],
    ids=ascii,
)
def test_a_bakery_id_that_could_be_mistaken_is_refused(forge: Path, command: Command, name: str, expected: str) -> None:
    options = ["--operator", "mallory", "--target", "s3://x", "--bakeries", forge / "bakeries"]
    done = command("bakery", "new", *options, "--", name, env=OFFLINE, code=1)
    assert f"[{expected}]" in done.stderr
    assert [path.name for path in (forge / "bakeries").iterdir()] == ["ldeo.aws"]


def test_a_check_finds_each_fault_of_a_bakery_database_and_mends_codeowners(forge: Path, command: Command) -> None:
    bakery = (forge / "bakeries/ldeo.aws/bakery.yaml").read_text()
    grants = forge / "bakeries/ldeo.aws/grants"
    grants.mkdir()
    text = "repository: o/sst-feedstock\nrepository_id: 7\nlabel: prod\n"
    (grants / "sst.yaml").write_text(text)
    (grants / "sst.prod.yaml").write_text(text + "limits: {memory: 64 GiB}\n")
    (grants / "other.yaml").write_text(text.replace("sst", "another").replace("prod", "dev"))
    (grants / "note.txt").write_text("sst may run\n")
    for name, owner in (("1deo.aws", "bob"), ("other", "eve")):
        (forge / "bakeries" / name).mkdir()
        (forge / "bakeries" / name / "bakery.yaml").write_text(bakery.replace("bob", owner))
    done = command("bakery", "check", "--bakeries", forge / "bakeries", code=1)
    for expected in (
        "grant-duplicate",
        "grant-over-limit",
        "grant-misnamed",
        "grant-not-needed",
        "bakery-file-stray",
        "bakery-id-lookalike",
        "bakery-pool-shared",
        "codeowners-stale",
    ):
        assert f"[{expected}]" in done.stdout, done.stdout
    owners = forge / ".github/CODEOWNERS"
    owners.write_text("* @org\n" + owners.read_text() + "/bakeries/ @mallory\n")
    assert (
        "codeowners-stale" not in command("bakery", "check", "--fix", "--bakeries", forge / "bakeries", code=1).stdout
    )
    lines = owners.read_text().splitlines()
    assert lines[-2] == "/bakeries/other/ @eve"  # GitHub takes the last line that matches
    assert "* @org" in lines


def test_explaining_ticks_and_crosses_every_condition_and_names_the_command(
    forge: Path, feedstock: Feedstock, command: Command
) -> None:
    arguments = ["label", "explain", feedstock.folder, "ldeo.aws", "prod", "--repository-id", "4242"]
    options = ["--bakeries", forge / "bakeries"]
    done = command(*arguments, *options, env=OFFLINE, code=1)
    assert "✗ meta.yaml asks for it on `release`" in done.stdout
    assert "✓ the label exists" in done.stdout
    assert "fix: feedstock label request ldeo.aws prod\n" in done.stdout
    assert done.stderr == ""  # GitHub is away and was not asked
    mistyped = [*arguments[:4], "prd", *arguments[5:]]
    assert "fix: did you mean `prod`?\n" in command(*mistyped, *options, env=OFFLINE, code=1).stdout
    said = json.loads(command(*arguments, *options, "--format", "json", env=OFFLINE, code=1).stdout)
    assert [row["finding"] for row in said["conditions"] if not row["holds"]] == ["label-not-asked", "grant-missing"]

    meta = feedstock.folder / "feedstock/meta.yaml"
    feedstock.write("feedstock/meta.yaml", meta.read_text() + "  - {id: ldeo.aws, label: prod}\n")
    (forge / "bakeries/ldeo.aws/grants").mkdir()
    grant = f"repository: {feedstock.repository}\nrepository_id: 4242\nlabel: prod\n"
    (forge / "bakeries/ldeo.aws/grants/sst.yaml").write_text(grant)
    env = OFFLINE | feedstock.environment()
    assert ": allowed\n" in command(*arguments, *options, env=env).stdout


def test_an_audit_without_prefect_lists_the_grants_in_each_form(forge: Path, command: Command) -> None:
    options = ["label", "audit", "--bakeries", forge / "bakeries"]
    assert "ldeo.aws  dev    anybody" in command(*options).stdout
    assert "| `ldeo.aws` | `dev` | `anybody` |" in command(*options, "--format", "markdown").stdout
    (row,) = json.loads(command(*options, "--format", "json").stdout)["consents"]
    assert (row["bakery"], row["label"], row["repository"], row["state"]) == ("ldeo.aws", "dev", "anybody", "open")
