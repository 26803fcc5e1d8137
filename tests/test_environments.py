"""An environment for each set of requirements: locked, built once, whole or not there, and never the worker's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from feedstock_forge import environments
from feedstock_forge.findings import Refused
from support import wheels


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where environments are kept, with the packages `tiny` 1.0 and 2.0 within uv's reach."""
    for version in ("1.0", "2.0"):
        wheels.make(tmp_path / "wheels", "tiny", version)
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("FEEDSTOCK_ENVIRONMENTS", str(tmp_path / "kept"))
    return tmp_path / "kept"


def checkout(folder: Path, requirements: str) -> Path:
    (folder / "feedstock").mkdir(parents=True)
    (folder / "feedstock/requirements.txt").write_text(requirements)
    return folder


def says(python: Path, code: str) -> str:
    return subprocess.run([python, "-P", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def built(kept: Path) -> list[Path]:
    return [path.parent for path in kept.glob("*/requirements.lock")]


def refusal(folder: Path) -> set[str]:
    with pytest.raises(Refused) as caught:
        environments.python_for(folder, lambda line: None)
    return {finding.id for finding in caught.value.findings}


@pytest.mark.parametrize(
    ("requirements", "met"),
    [
        ("", True),
        ("# nothing\nxarray>=2025.6,<2027  # and no more\n", True),
        ("dask[array]", True),
        ("dask[array,no-such]\nxarray\n", True),
        ('nosuchpackage; python_version < "3"', True),
        ("xarray<2020", False),
        ("nosuchpackage", False),
        ("xarray[viz]", False),
        ("xarray @ https://example.org/xarray.whl", False),
        ("-r other.txt", False),
    ],
)
def test_an_environment_is_made_only_where_the_workers_own_does_not_do(requirements: str, met: bool) -> None:
    assert environments.are_met(requirements) is met


def test_conflicting_requirements_live_side_by_side_and_each_is_built_once(kept: Path, tmp_path: Path) -> None:
    (kept / "old").mkdir(parents=True)
    (kept / "old/used").touch()
    os.utime(kept / "old/used", (0, 0))
    old, new = (checkout(tmp_path / version, f"tiny=={version}\n") for version in ("1.0", "2.0"))
    lines: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda folder: environments.python_for(folder, lines.append), [old, new, old, new]))
    assert [says(python, "import tiny; print(tiny.version)") for python in found] == ["1.0", "2.0", "1.0", "2.0"]
    assert len(built(kept)) == 2
    assert sum(line.startswith("built") for line in lines) == 2
    assert {path for path in kept.iterdir() if path.is_dir()} == set(built(kept)), "what nobody used is removed"
    # It holds the forge itself, and what the worker has in the version that the worker has.
    code = "from importlib.metadata import version; import feedstock_forge.bake as bake; "
    code += "print(bake.__file__, version('xarray'), version('prefect'))"
    where, *versions = says(found[0], code).split()
    assert Path(where).is_relative_to(kept)
    assert versions == says(Path(sys.executable), code).split()[1:]


def test_an_environment_that_lost_its_python_is_built_anew(kept: Path, tmp_path: Path) -> None:
    folder = checkout(tmp_path / "a", "tiny==1.0\n")
    python = environments.python_for(folder, lambda line: None)
    python.unlink()
    lines: list[str] = []
    assert environments.python_for(folder, lines.append) == python
    assert says(python, "import tiny; print(tiny.version)") == "1.0"
    assert lines[0].startswith("building")
    assert [path for path in kept.iterdir() if path.is_dir()] == built(kept), "nothing of the broken one is left"


KILLED_WHILE_REMOVING = """
import os, shutil, signal, sys
from pathlib import Path
from feedstock_forge import environments
shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
environments.python_for(Path(sys.argv[1]), print)
"""


def test_a_removal_that_is_killed_leaves_no_half_environment(kept: Path, tmp_path: Path) -> None:
    (kept / "old").mkdir(parents=True)
    (kept / "old/used").touch()
    os.utime(kept / "old/used", (0, 0))
    folder = checkout(tmp_path / "a", "tiny==1.0\n")
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_REMOVING, str(folder)])
    assert done.returncode == -signal.SIGKILL
    assert not (kept / "old").exists()
    environments.python_for(folder, lambda line: None)
    assert [path for path in kept.iterdir() if path.is_dir()] == built(kept)


def test_a_lock_is_installed_as_it_stands_unless_the_worker_has_exactly_that(kept: Path, tmp_path: Path) -> None:
    worker = says(Path(sys.executable), "from importlib.metadata import version; print(version('toolz'))")
    same = checkout(tmp_path / "same", "toolz\n")
    lock = same / "feedstock/requirements.lock"
    lock.write_text(f"# as uv pip compile writes it\ntoolz=={worker}\n    # via -r requirements.txt\n")
    assert environments.python_for(same, lambda line: None) == Path(sys.executable)
    wheels.make(tmp_path / "wheels", "toolz", "0.99")
    lock.write_text("toolz==0.99\n")
    lines: list[str] = []
    python = environments.python_for(same, lines.append)
    assert says(python, "import toolz; print(toolz.version)") == "0.99"
    assert lines[0] == "building an environment for feedstock/requirements.txt and feedstock/requirements.lock"
    lock.write_text("toolz==0.98\n")
    assert refusal(same) == {"environment-unsolvable"}


def test_a_recipe_may_ask_for_another_prefect_and_the_worker_keeps_its_own(kept: Path, tmp_path: Path) -> None:
    code = "from importlib.metadata import version; print(version('prefect'))"
    own = says(Path(sys.executable), code)
    wheels.make(tmp_path / "wheels", "prefect", "98.7.6")
    python = environments.python_for(checkout(tmp_path / "new", "prefect==98.7.6\n"), lambda line: None)
    assert (says(python, code), says(Path(sys.executable), code)) == ("98.7.6", own)


def test_requirements_that_exclude_bake_get_an_environment_without_it(kept: Path, tmp_path: Path) -> None:
    wheels.make(tmp_path / "wheels", "old_school", "1.0", needs="zarr<3")
    lines: list[str] = []
    python = environments.python_for(checkout(tmp_path / "old", "old-school==1.0\n"), lines.append)
    assert says(python, "import zarr; print(zarr.__version__)").startswith("2.")
    assert says(python, "import feedstock_forge.recipe_process; print('here')") == "here"
    assert any("feedstock_forge.bake" in line and "zarr" in line for line in lines)


@pytest.mark.parametrize("name", ["requirements.txt", "requirements.lock"])
def test_what_is_not_utf_8_is_named_with_its_line(kept: Path, tmp_path: Path, name: str) -> None:
    folder = checkout(tmp_path / "a", "tiny==1.0\n")
    (folder / "feedstock" / name).write_bytes("tiny==1.0\n# café\n".encode("latin-1"))
    with pytest.raises(Refused) as caught:
        environments.python_for(folder, lambda line: None)
    (found,) = caught.value.findings
    assert (found.id, str(found.place)) == ("file-encoding", f"feedstock/{name}:2:6")


def test_what_cannot_be_installed_is_told_and_leaves_nothing(kept: Path, tmp_path: Path) -> None:
    assert refusal(checkout(tmp_path / "a", "tiny==3.0\n")) == {"environment-unsolvable"}
    assert refusal(checkout(tmp_path / "b", "tiny === ==\n")) == {"environment-not-built"}
    broken = wheels.make(tmp_path / "wheels", "broken", "1.0")
    broken.write_bytes(b"no wheel")
    assert refusal(checkout(tmp_path / "c", f"broken @ {broken.as_uri()}\n")) == {"environment-not-built"}
    assert [path for path in kept.iterdir() if path.is_dir()] == []
