"""A bake that was killed while it wrote: the next one goes on from the inputs that were written."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import icechunk
import pytest
import xarray as xr
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from demo import provider
from feedstock_forge.bake import Provenance, bake, coming_from, oven, progress
from feedstock_forge.bake.stores import IcechunkStore
from feedstock_forge.bake.stores import object_storage as icechunk_storage
from support import object_storage
from test_bake import ONE_NOW_AND_ALL_AT_NIGHT, STORES, ids, ocean, urls

__all__ = ["ocean"]

DAYS = 6
"""The length of a chunk."""


class Ending(logging.Handler):
    """Ends a bake once it has kept so many inputs."""

    def __init__(self, inputs: int, end: Callable[[], None]) -> None:
        super().__init__()
        self.inputs = inputs
        self.end = end

    def emit(self, record: logging.LogRecord) -> None:
        kept = re.match(r"kept .*: (\d+) of", record.getMessage())
        if kept and int(kept[1]) >= self.inputs:
            self.end()

    def bake(self, bake: Callable[..., None], *arguments: Any) -> None:
        """A bake that keeps its progress after each part."""
        log = logging.getLogger("feedstock_forge.bake")
        log.setLevel(logging.INFO)
        log.addHandler(self)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(progress, "EVERY", 0)
            patch.setattr(progress, "SHARE", 0)
            patch.setattr(oven, "_MEMORY", 0)  # for one thread: what is kept is then all that is written
            try:
                bake(*arguments)
            finally:
                log.removeHandler(self)


def ocean_bake(target: str, inputs: list[Path], mode: str = "complete", commit: str = "") -> None:
    preprocess = noted if commit else None
    with coming_from(Provenance("ocean", "sst", commit=commit) if commit else None):
        bake(urls(inputs), target, concat_dim="time", chunks={"time": DAYS}, mode=mode, preprocess=preprocess)  # type: ignore[arg-type]


def cluster_bake(target: str, inputs: list[Path]) -> None:
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster, Client(cluster):
        ocean_bake(target, inputs)


def noted(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign_attrs(note="as of the commit")


def killed(bake: Callable[..., None], inputs: int, *arguments: Any) -> None:
    Ending(inputs, lambda: os.kill(os.getpid(), signal.SIGKILL)).bake(bake, *arguments)


def kill(inputs: int, *arguments: Any, bake: Callable[..., None] = ocean_bake) -> None:
    """Bake in a process that is killed once it has kept so many inputs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["feedstock_forge.bake.oven", "netCDF4", "h5netcdf", __name__])
    run = context.Process(target=killed, args=(bake, inputs, *arguments))
    run.start()
    run.join()
    assert run.exitcode == -signal.SIGKILL


class Failed(Exception):  # noqa: N818 - reads as what happens
    """Stands for whatever ends a bake that is not killed."""


def fail(inputs: int, *arguments: Any) -> None:
    """Bake, and fail once so many inputs are kept."""

    def end() -> None:
        raise Failed

    with pytest.raises(Failed):
        Ending(inputs, end).bake(ocean_bake, *arguments)


def contents(target: str) -> dict[str, bytes]:
    """Every key of a published store, and what is stored under it."""

    async def read() -> dict[str, bytes]:
        store: Any = repository(target).readonly_session("main").store if "icechunk" in target else LocalStore(target)
        found = {key: await store.get(key, default_buffer_prototype()) async for key in store.list()}
        return {key: value.to_bytes() for key, value in found.items()}

    return asyncio.run(read()) if Path(target).exists() else {}


def repository(target: str) -> icechunk.Repository:
    return icechunk.Repository.open(icechunk.local_filesystem_storage(target))


def written(target: str, since: Path) -> int:
    """How many chunks were written into the store, or what is published of it, since the file was."""
    chunks = Path(target).glob("chunks/*" if target.endswith("icechunk") else "*/c/**/*")
    return sum(path.is_file() and path.stat().st_mtime_ns >= since.stat().st_mtime_ns for path in chunks)


def gone_on(caplog: pytest.LogCaptureFixture) -> int:
    """After how many inputs the last bake went on."""
    found = re.findall(r"going on after input (\d) of \d", caplog.text)
    caplog.clear()
    return int(found[0]) if found else 0


@pytest.fixture
def stamp(tmp_path: Path) -> Callable[[], Path]:
    """Files as old as the moment."""

    def made() -> Path:
        path = tmp_path / f"stamp-{len(list(tmp_path.iterdir()))}"
        path.touch()
        return path

    return made


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "feedstock_forge.bake")


@pytest.mark.parametrize(
    "before", ["nothing", pytest.param("two inputs", marks=pytest.mark.slow), "two inputs, to which it appends"]
)
@pytest.mark.parametrize("store", STORES)
def test_a_bake_goes_on_after_the_inputs_that_a_killed_one_wrote(
    ocean: list[Path],
    tmp_path: Path,
    stamp: Callable[[], Path],
    caplog: pytest.LogCaptureFixture,
    store: str,
    before: str,
) -> None:
    target, undisturbed = str(tmp_path / "out" / f"ocean.{store}"), str(tmp_path / f"whole.{store}")
    mode, first = ("update" if "appends" in before else "complete"), (0 if before == "nothing" else 2)
    for each in (target, undisturbed) if first else ():
        ocean_bake(each, ocean[:2])
    published, begun = contents(target), stamp()
    ocean_bake(undisturbed, ocean, mode)
    all_chunks = written(undisturbed, begun)

    kill(2, target, ocean, mode)
    assert contents(target) == published, "readers know nothing of it"
    begun = stamp()
    ocean_bake(target, ocean, mode)
    done = gone_on(caplog)
    assert done == 2
    days = sum(provider.month(month).sizes["time"] for month in provider.MONTHS[first : first + done])
    assert 0 < written(target, begun) <= all_chunks - 2 * (days // DAYS), "two variables"
    assert contents(target) == contents(undisturbed)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"ocean.{store}"]


@pytest.mark.parametrize("store", STORES)
def test_a_bake_goes_on_after_one_that_failed(
    ocean: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, store: str
) -> None:
    target = str(tmp_path / "out" / f"ocean.{store}")
    fail(2, target, ocean)
    assert not Path(target).exists()
    caplog.clear()
    ocean_bake(target, ocean)
    assert gone_on(caplog) == 2
    assert provider.check(target, ocean) == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"ocean.{store}"]


@pytest.mark.slow
@pytest.mark.parametrize("store", STORES)
def test_a_bake_that_is_killed_again_goes_on_from_there(
    ocean: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, store: str
) -> None:
    target = str(tmp_path / "out" / f"ocean.{store}")
    for inputs in (1, 2):
        kill(inputs, target, ocean, "complete", "abc")
    ocean_bake(target, ocean, "complete", "abc")
    assert gone_on(caplog) == 2
    ocean_bake(str(tmp_path / f"whole.{store}"), ocean, "complete", "abc")
    assert contents(target) == contents(str(tmp_path / f"whole.{store}"))
    if store == "icechunk":
        *messages, _begin = [snapshot.message for snapshot in repository(target).ancestry(branch="main")]
        assert messages[0] == "complete: write 6 inputs (abc)"
        assert all(message.startswith("not whole yet") for message in messages[1:])
        assert repository(target).list_branches() == {"main"}


@pytest.mark.parametrize("store", ONE_NOW_AND_ALL_AT_NIGHT)
def test_a_bake_of_other_work_starts_anew(
    ocean: list[Path], tmp_path: Path, stamp: Callable[[], Path], caplog: pytest.LogCaptureFixture, store: str
) -> None:
    target = str(tmp_path / "out" / f"ocean.{store}")
    inputs = [tmp_path / path.name for path in ocean]
    for path, copy in zip(ocean, inputs, strict=True):
        copy.write_bytes(path.read_bytes())

    fail(1, target, inputs, "complete", "abc")
    ocean_bake(target, inputs, "complete", "def")
    assert gone_on(caplog) == 0, "other code"

    fail(1, target, inputs)
    corrected = Path(shutil.copy(ocean[0], tmp_path / "corrected.nc"))
    with h5py.File(corrected, "r+") as month:
        month["sst"][0] += 1
    corrected.replace(inputs[0])
    ocean_bake(target, inputs)
    assert gone_on(caplog) == 0, "an input that was changed"

    fail(1, target, inputs)
    ocean_bake(target, inputs[:3])
    assert gone_on(caplog) == 0
    ocean_bake(target, inputs)
    assert gone_on(caplog) == 0, "something else is published"
    assert provider.check(target, inputs) == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"ocean.{store}"]


@pytest.mark.slow
@pytest.mark.parametrize("store", STORES)
def test_a_bake_on_a_cluster_goes_on_too(
    ocean: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, store: str
) -> None:
    target = str(tmp_path / f"ocean.{store}")
    kill(2, target, ocean, bake=cluster_bake)
    cluster_bake(target, ocean)
    assert gone_on(caplog) >= 2
    ocean_bake(str(tmp_path / f"whole.{store}"), ocean)
    assert contents(target) == contents(str(tmp_path / f"whole.{store}"))


@pytest.mark.slow
def test_a_bake_in_object_storage_goes_on_without_leave_to_delete(
    ocean: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with object_storage.serve() as server:
        server.empty()
        for name, value in server.environment(*object_storage.WRITE).items():
            monkeypatch.setenv(name, value)
        target = f"s3://{object_storage.BUCKET}/ocean.icechunk"
        ocean_bake(target, ocean[:1])
        for inputs in (1, 2):
            fail(inputs, target, ocean[:4])
        caplog.clear()
        ocean_bake(target, ocean[:4])
        assert gone_on(caplog) == 2
        there = icechunk.Repository.open(icechunk_storage(target)).readonly_session("main").store
        with (
            xr.open_zarr(there, consolidated=False) as found,
            xr.open_mfdataset(ocean[:4], data_vars="all", chunks=None) as whole,  # type: ignore[arg-type]
        ):
            xr.testing.assert_equal(found.load(), whole.load())
        ocean_bake(target, ocean[:5])
        assert gone_on(caplog) == 0


def test_where_two_runs_write_one_repository_the_second_to_publish_is_refused(tmp_path: Path) -> None:
    there = partial(icechunk.local_filesystem_storage, str(tmp_path / "ocean"))

    def begun(*, go_on: bool) -> IcechunkStore:
        store = IcechunkStore("ocean", there)
        zarr.open_group(store.take_up() if go_on else store.begin(keep=False, fork=True)).attrs["going on"] = go_on
        return store

    begun(go_on=False).keep({"boxes": 1}, "not whole yet")
    assert IcechunkStore("ocean", there).kept() == {"boxes": 1}
    ours = begun(go_on=True)
    ours.keep({"boxes": 2}, "not whole yet")
    theirs = begun(go_on=False)
    ours.keep({"boxes": 3}, "not whole yet")
    theirs.publish("theirs", {}, None)
    assert IcechunkStore("ocean", there).kept() is None
    assert ids(lambda: ours.keep({"boxes": 4}, "not whole yet")) == {"target-busy"}
    assert ids(lambda: ours.publish("ours", {}, "v1")) == {"target-busy"}
    repository = icechunk.Repository.open(there())
    assert [snapshot.message for snapshot in repository.ancestry(branch="main")][:-1] == ["theirs"]
    assert not repository.list_tags()
