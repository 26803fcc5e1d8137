"""Proposed recipes are tried: in an environment of their own, within limits; what they do is said and contained."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import psutil
import pytest

from conftest import Command
from demo import provider
from feedstock_forge.staged import trial
from support import feedstocks
from support.feedstocks import META, Feedstock, git


@pytest.fixture
def staged(tmp_path: Path) -> Feedstock:
    """The staged recipes, with a branch that is out."""
    repository = feedstocks.stage(tmp_path / "server")
    git(repository.folder, "checkout", "--quiet", "-b", "proposal")
    return repository


def propose(staged: Feedstock, code: str, name: str = "sst", requirements: str = "xarray\n") -> None:
    listed = '[{id: sst, object: "recipe:sst"}]'
    staged.write(f"recipes/{name}/meta.yaml", META.format(id=name, recipes=listed))
    staged.write(f"recipes/{name}/recipe.py", code)
    staged.write(f"recipes/{name}/requirements.txt", requirements)
    staged.commit()


def check(command: Command, staged: Feedstock, *options: object, code: int = 0) -> tuple[trial.Trial, str]:
    output = staged.server / "trial.json"
    done = command("staged", "check", "-C", staged.folder, "--base", "main", "-o", output, *options, code=code)
    return trial.read(output, staged.head), done.stdout + done.stderr


def test_what_a_sound_recipe_makes_is_shown_and_what_all_of_it_would_take(
    command: Command, staged: Feedstock, tmp_path: Path
) -> None:
    files = provider.write_inputs(tmp_path / "inputs", 6)
    propose(
        staged,
        f"""
        from feedstock_forge.bake import bake

        def sst(target, mode="complete", prune=False):
            bake({[str(file) for file in files]!r}, target, mode=mode, prune=prune, concat_dim="time")
        """,
    )
    found, said = check(command, staged)
    (folder,) = found.folders
    (tried,) = folder.tried
    assert folder.passed
    assert (tried.inputs, tried.of) == (2, 6)
    assert tried.repr.startswith("<xarray.Dataset>")
    assert "feedstock_" not in tried.repr
    assert tried.stored > 1000
    assert tried.memory > 50 << 20
    assert "sst: passed" in said


FILL = """
    import pathlib, tempfile, time
    with pathlib.Path(tempfile.mkdtemp(), "x").open("wb") as file:
        while True:
            file.write(bytes(1 << 20))
            time.sleep(0.005)
"""
FORK = """
    import os, time
    for _ in range(3000):
        if os.fork() == 0:
            os.setsid()
            time.sleep(300)
    time.sleep(300)
"""
HOSTILE = {
    "forks": (FORK, (), "limit-processes"),
    "loops": ("while True: pass", ("--time", "3 s"), "limit-runtime"),
    "eats memory": ("held = [bytearray(1 << 26) for _ in range(200)]", ("--memory", "600 MiB"), "limit-memory"),
    "fills the disk": (FILL, ("--disk", "100 MiB"), "limit-disk"),
    "leaves": ("__import__('os')._exit(7)", (), "recipe-died"),
}


@pytest.mark.parametrize("name", [pytest.param("forks", marks=pytest.mark.slow), *list(HOSTILE)[1:]])
def test_a_recipe_that_takes_more_than_its_share_is_ended_and_told(
    command: Command, staged: Feedstock, name: str
) -> None:
    body, options, finding = HOSTILE[name]
    propose(staged, f"def sst(target, mode='complete', prune=False):\n    {body}\n")
    found, said = check(command, staged, *options, code=1)
    (tried,) = found.folders[0].tried
    assert [item.id for item in tried.findings] == [finding], said
    assert tried.outcome == ("failed" if finding == "recipe-died" else "stopped")


def test_a_daemon_that_a_recipe_leaves_is_ended_with_it(command: Command, staged: Feedstock, tmp_path: Path) -> None:
    marker = f"import time; time.sleep(600) #{tmp_path.name}"
    propose(
        staged,
        f"""
        import subprocess, sys

        def sst(target, mode="complete", prune=False):
            starter = "import os, subprocess, sys\\nif os.fork() == 0:\\n    os.setsid()\\n"
            starter += "    subprocess.Popen([sys.executable, '-c', sys.argv[1]], start_new_session=True)\\n"
            subprocess.run([sys.executable, "-c", starter, {marker!r}], check=True)
            raise ValueError("done")
        """,
    )
    check(command, staged, code=1)
    time.sleep(0.5)
    assert not [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(tmp_path.name in part and "sleep(600)" in part for part in process.info["cmdline"] or [])
    ]


def test_what_a_recipe_prints_commands_nobody(command: Command, staged: Feedstock) -> None:
    propose(
        staged,
        """
        def sst(target, mode="complete", prune=False):
            print("::add-mask::everything\\n::set-output name=x::y\\n" + "x" * 5_000_000)
            raise ValueError("::error::<!-- feedstock-forge -->\\x1b[2J")
        """,
    )
    found, said = check(command, staged, code=1)
    (tried,) = found.folders[0].tried
    assert [item.id for item in tried.findings] == ["recipe-failed"]
    assert "\x1b" not in tried.findings[0].message
    assert tried.findings[0].file == "recipes/sst/recipe.py"
    assert len(said) < 100_000


def test_a_recipe_folder_that_was_mistyped_or_taken_away_is_told(command: Command, staged: Feedstock) -> None:
    propose(staged, "def sst(target, mode='complete', prune=False): pass\n")
    done = command("staged", "check", "st", "-C", staged.folder, code=1)
    assert "staged-recipe-missing" in done.stderr
    assert "did you mean `sst`?" in done.stderr
    git(staged.folder, "checkout", "--quiet", "-B", "main")
    git(staged.folder, "rm", "-r", "--quiet", "recipes/sst")
    staged.commit()
    subprocess.run(["git", "-C", staged.folder, "branch", "-f", "base", "HEAD~1"], check=True)
    found, _ = check(command, staged, "--base", "base")
    assert found.folders == []
