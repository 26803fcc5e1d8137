"""An environment for each set of requirements: locked, built once, whole or not there, and never the worker's own."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import psutil
import pytest

from feedstock_forge import environments
from feedstock_forge.bakery import Limits
from feedstock_forge.findings import Finding, Refused
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


def test_what_requirements_include_is_part_of_them_wherever_it_lies(kept: Path, tmp_path: Path) -> None:
    def asking(name: str, version: str) -> Path:
        folder = checkout(tmp_path / name, "-r more/a.txt  # and no more\n")
        (folder / "feedstock/more").mkdir()
        (folder / "feedstock/more/a.txt").write_text("--requirement=b.txt\n")
        (folder / "feedstock/more/b.txt").write_text(f"-r ../requirements.txt\n-r a.txt\ntiny=={version}\n")
        return folder

    here, there = asking("here", "1.0"), asking("there", "1.0")
    python = environments.python_for(here, lambda line: None)
    assert environments.python_for(there, lambda line: None) == python
    (here / "feedstock/more/b.txt").write_text("tiny==2.0\n")
    assert says(environments.python_for(here, lambda line: None), "import tiny; print(tiny.version)") == "2.0"
    (here / "feedstock/more/b.txt").write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    assert refusal(here) == {"environment-not-built"}
    (here / "feedstock/more/b.txt").write_text("xarray\n")
    assert environments.python_for(here, lambda line: None) == Path(sys.executable)


BREAKING = {
    "python": lambda place: (place / "bin/python").unlink(),
    "leave to execute it": lambda place: replaced(place / "bin/python").touch(0o600),
    "configuration": lambda place: (place / "pyvenv.cfg").unlink(),
    "forge": lambda place: shutil.rmtree(next(place.glob("lib/python*/site-packages/feedstock_forge"))),
}


def replaced(path: Path) -> Path:
    path.unlink()
    return path


@pytest.mark.parametrize(
    "lost", ["python", *(pytest.param(what, marks=pytest.mark.slow) for what in BREAKING if what != "python")]
)
def test_an_environment_that_lost_something_is_built_anew(kept: Path, tmp_path: Path, lost: str) -> None:
    folder = checkout(tmp_path / "a", "tiny==1.0\n")
    python = environments.python_for(folder, lambda line: None)
    BREAKING[lost](python.parents[1])
    lines: list[str] = []
    assert environments.python_for(folder, lines.append) == python
    assert lines[0].startswith("building")
    assert says(python, "import tiny, feedstock_forge; print(tiny.version)") == "1.0"
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


@pytest.mark.parametrize("name", ["requirements.txt", "requirements.lock"])
def test_hashes_are_verified(kept: Path, tmp_path: Path, name: str) -> None:
    right = hashlib.sha256((tmp_path / "wheels/tiny-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    wrong = "0" * 64
    folders = [checkout(tmp_path / digest, "tiny\n") for digest in (right, wrong)]
    for folder in folders:
        (folder / "feedstock" / name).write_text(f"tiny==1.0 \\\n    --hash=sha256:{folder.name}\n")
    python = environments.python_for(folders[0], lambda line: None)
    assert says(python, "import tiny; print(tiny.version)") == "1.0"
    with pytest.raises(Refused, match=r"environment-not-built: .*Hash mismatch for `tiny==1.0`"):
        environments.python_for(folders[1], lambda line: None)


@pytest.mark.parametrize("asked", ["tiny", "tiny<2", "tiny==1.*", "tiny==1.0,<2"])
def test_a_hash_that_could_not_be_verified_is_refused(kept: Path, tmp_path: Path, asked: str) -> None:
    assert refusal(checkout(tmp_path / "a", f"{asked} --hash=sha256:{'0' * 64}\n")) == {"environment-not-built"}


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


@pytest.mark.parametrize("place", ["/proc/none", "a-file/below", "a-file"])
def test_a_folder_that_cannot_hold_environments_is_the_operators_to_correct(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "a-file").touch()
    monkeypatch.setenv("FEEDSTOCK_ENVIRONMENTS", str(tmp_path / place))
    assert refusal(checkout(tmp_path / "a", "tiny==1.0\n")) == {"setting-unusable"}


def test_a_full_disk_is_not_the_fault_of_the_requirements(kept: Path, tmp_path: Path) -> None:
    code = "from pathlib import Path\nPath('/dev/full').write_text('what is built')"
    assert refusal(that_builds(tmp_path / "a", code)) == {"disk-full"}


def that_builds(folder: Path, code: str) -> Path:
    """A checkout that asks for a package of its own, which runs ``code`` when it is built."""
    checkout(folder, "./pkg\n")
    (folder / "pkg").mkdir()
    (folder / "pkg/backend.py").write_text(dedent(code))
    (folder / "pkg/pyproject.toml").write_text(
        """
        build-system = {requires = [], build-backend = "backend", backend-path = ["."]}
        project = {name = "pkg", version = "1"}
        """
    )
    return folder


def stopped(folder: Path, **allowed: str) -> Finding:
    with pytest.raises(Refused) as caught:
        environments.python_for(folder, lambda line: None, (), Limits.model_validate(allowed), "ldeo.aws.dev")
    (found,) = caught.value.findings
    return found


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_limits_of_the_run_hold_while_its_environment_is_built(kept: Path, tmp_path: Path) -> None:
    slow = stopped(that_builds(tmp_path / "slow", "while True: pass"), runtime="2 s")
    assert (slow.id, str(slow.place)) == ("limit-runtime", "feedstock/requirements.txt")
    assert slow.message.startswith("while its environment was built, the run took longer than the 2 s that the label ")
    large = "import time\nheld = bytearray(500 << 20)\ntime.sleep(600)"
    assert stopped(that_builds(tmp_path / "large", large), memory="300 MiB", runtime="5 min").id == "limit-memory"
    assert [path for path in kept.iterdir() if path.is_dir()] == [], "and nothing is left"


def test_a_build_without_limits_does_not_go_on_for_ever(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "LONGEST_BUILD", 2)
    assert refusal(that_builds(tmp_path / "slow", "while True: pass")) == {"limit-runtime"}


DAEMON = """
    import os, subprocess, sys, time
    from pathlib import Path

    code, quiet = "import time; time.sleep(600)", subprocess.DEVNULL
    daemon = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=quiet, stderr=quiet)
    Path(__file__).with_name("daemon").write_text(str(daemon.pid))
    """


def test_what_a_build_starts_ends_with_it(kept: Path, tmp_path: Path) -> None:
    folder = that_builds(tmp_path / "a", DAEMON + "raise SystemExit('no')")
    assert refusal(folder) == {"environment-not-built"}
    assert gone(int((folder / "pkg/daemon").read_text()))


def test_a_build_ends_with_its_run_when_that_is_killed(kept: Path, tmp_path: Path) -> None:
    code = "import os, time\nfrom pathlib import Path\n"
    code += "Path(__file__).with_name('started').write_text(str(os.getpid()) + '.')\ntime.sleep(600)"
    folder = that_builds(tmp_path / "a", code)
    asks = "import sys; from pathlib import Path; from feedstock_forge import environments; "
    asks += "environments.python_for(Path(sys.argv[1]), print)"
    started = folder / "pkg/started"
    with subprocess.Popen([sys.executable, "-c", asks, str(folder)]) as run:
        try:
            wait_until(lambda: started.exists() and started.read_text().endswith("."))
        finally:
            run.kill()
    building = int(started.read_text().rstrip("."))
    wait_until(lambda: gone(building))


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)
