"""Fixtures that several files share. A real Prefect server is slow to start, so one serves all tests of a process."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from support import actions, faults, feedstocks, openapi, prefect, proxy

ROOT = Path(__file__).parents[1]


@pytest.fixture
def feedstock(tmp_path: Path) -> feedstocks.Feedstock:
    """A small feedstock with one recipe, in a git repository."""
    return feedstocks.make(tmp_path / "server")


@pytest.fixture
def served(ocean: list[Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[faults.Provider]:
    """A provider of the files that the test's module calls its ocean, which is soon given up."""
    monkeypatch.setenv("FEEDSTOCK_PATIENCE", "3")
    with faults.serve(ocean[0].parent) as running:
        yield running


@pytest.fixture(scope="session")
def bakeries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled bakery database, its target moved into a folder beside it (see ``datasets``)."""
    folder = tmp_path_factory.mktemp("forge") / "bakeries"
    shutil.copytree(ROOT / "bakeries", folder)
    described = folder / "local" / "bakery.yaml"
    text = described.read_text(encoding="utf-8")
    moved = text.replace("file://~/feedstock-datasets", (folder.parent / "datasets").as_uri())
    assert moved != text
    described.write_text(moved, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def idle_bakeries(bakeries: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same database with another work pool, ``idle``, to which no worker listens: runs stay scheduled."""
    folder = tmp_path_factory.mktemp("idle") / "bakeries"
    shutil.copytree(bakeries, folder)
    described = folder / "local/bakery.yaml"
    described.write_text(described.read_text(encoding="utf-8").replace("name: local", "name: idle"), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def datasets(bakeries: Path) -> Path:
    """The folder in which the local bakery's datasets appear."""
    return bakeries.parent / "datasets"


@pytest.fixture(scope="session")
def forge(tmp_path_factory: pytest.TempPathFactory, bakeries: Path) -> actions.Forge:
    """The working tree as a commit of the forge on a server, for workflows to call."""
    return actions.publish(tmp_path_factory.mktemp("server"), bakeries)


@pytest.fixture(scope="session")
def prefect_itself(tmp_path_factory: pytest.TempPathFactory) -> Iterator[prefect.Server]:
    """A real Prefect server, as its own worker reaches it."""
    with prefect.serve(tmp_path_factory.mktemp("prefect")) as running:
        yield running


@pytest.fixture(scope="session")
def server(prefect_itself: prefect.Server) -> Iterator[prefect.Server]:
    """The same server as we reach it: what its own OpenAPI does not document, it does not get."""
    contract = openapi.Contract(httpx.get(f"{prefect_itself.url}/openapi.json", timeout=60).json())
    with proxy.between(prefect_itself.url, contract.broken_by) as between:
        yield dataclasses.replace(prefect_itself, url=between.url)


@pytest.fixture(scope="session")
def worker(prefect_itself: prefect.Server, bakeries: Path) -> Iterator[prefect.Worker]:
    """A real worker for the local bakery."""
    with prefect.work(prefect_itself, bakeries) as running:
        yield running


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run the `feedstock` command as a process with exactly the environment that a test names."""

    def run(*arguments: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None, code: int | None = 0):
        done = subprocess.run(
            [sys.executable, "-m", "feedstock_forge", *map(str, arguments)],
            env=prefect.quiet(tmp_path / "home") | {"NO_COLOR": "1"} | (env or {}),
            cwd=cwd or tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        said = f"{done.stdout}\n{done.stderr}"
        assert not re.search("^Traceback", said, re.MULTILINE), said
        assert code is None or done.returncode == code, f"exit {done.returncode}: {said}"
        return done

    return run
