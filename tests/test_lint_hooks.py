"""The hooks of .pre-commit-hooks.yaml, installed and run by pre-commit and by prek."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.feedstocks import IDENTITY, git

ROOT = Path(__file__).parents[1]
FORGE = ROOT / "tests" / "data" / "forge"

CONFIGURATION = """\
repos:
  - repo: {forge}
    rev: {commit}
    hooks:
      - id: feedstock-fix
      - id: feedstock-lint
"""


@pytest.fixture(scope="module")
def forge(tmp_path_factory):
    """This repository as it is committed, and its commit."""
    folder = tmp_path_factory.mktemp("forge") / "forge"
    git(ROOT, "clone", "--quiet", "--no-local", str(ROOT), str(folder))
    return folder, git(folder, "rev-parse", "HEAD")


@pytest.fixture
def feedstock(forge, tmp_path):
    folder, commit = forge
    feedstock = tmp_path / "noaa-oisst-feedstock"
    shutil.copytree(FORGE / "noaa-oisst-feedstock", feedstock)
    meta = feedstock / "feedstock" / "meta.yaml"
    text = meta.read_text(encoding="utf-8").replace("CC0-1.0", "CC0").replace("ldeo.aws.us-west-2", "local")
    meta.write_text(text, encoding="utf-8")
    configuration = CONFIGURATION.format(forge=folder, commit=commit)
    (feedstock / ".pre-commit-config.yaml").write_text(configuration, encoding="utf-8")
    git(feedstock, "init", "--quiet")
    git(feedstock, "add", ".")
    git(feedstock, "commit", "--quiet", "--message", "Begin")
    return feedstock


@pytest.mark.timeout(300)
@pytest.mark.parametrize("program", ["pre-commit", "prek"])
def test_the_hooks_fix_what_is_mechanical_and_then_pass(program, feedstock, tmp_path):
    kept = {"PRE_COMMIT_HOME": str(tmp_path / "pre-commit"), "PREK_HOME": str(tmp_path / "prek")}

    def run():
        command = [Path(sys.executable).with_name(program), "run", "--all-files", "--verbose"]
        return subprocess.run(
            command, cwd=feedstock, env=os.environ | IDENTITY | kept, capture_output=True, text=True, check=False
        )

    first = run()
    assert first.returncode == 1, first.stdout + first.stderr
    assert "rewrote feedstock/meta.yaml" in first.stdout
    assert "license: CC0-1.0\n" in (feedstock / "feedstock" / "meta.yaml").read_text(encoding="utf-8")
    git(feedstock, "add", ".")
    second = run()
    assert second.returncode == 0, second.stdout + second.stderr
    assert "Nothing wrong in " in second.stdout
    meta = feedstock / "feedstock" / "meta.yaml"
    meta.write_text(meta.read_text(encoding="utf-8").replace("CC0-1.0", "TBD"), encoding="utf-8")
    git(feedstock, "add", ".")
    third = run()
    assert third.returncode == 1
    assert "licence-unknown" in third.stdout
