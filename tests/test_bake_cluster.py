"""Baking on a Dask cluster of real processes: who fetches, what is refused, and what is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

from demo import provider
from feedstock_forge.bake import bake
from feedstock_forge.bake.cluster import Look, Workers, parts_of
from feedstock_forge.bake.fetch import fetching
from feedstock_forge.bake.oven import Bake
from feedstock_forge.bake.progress import identity
from feedstock_forge.findings import Refused
from support import faults

COUNT = 6


@pytest.fixture(scope="module")
def ocean(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return provider.write_inputs(tmp_path_factory.mktemp("ocean"), COUNT, "%Y-%m.nc")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the workers put what they fetch, and this process too."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def cluster(scratch: Path) -> Iterator[Client]:
    with (
        # One that dies is enough; and none takes over what is another's, which hangs on how fast each is.
        dask.config.set({"distributed.scheduler.allowed-failures": 0, "distributed.scheduler.work-stealing": False}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as running,
        Client(running) as client,
    ):
        yield client


def ids(inputs: list[str], target: Path, **choices: Any) -> set[str]:
    with pytest.raises(Refused) as caught:
        bake(inputs, str(target), concat_dim="time", **choices)
    return {finding.id for finding in caught.value.findings}


def test_its_workers_fetch_and_each_writes_what_it_has(cluster: Client, scratch: Path, tmp_path: Path) -> None:
    folder = tmp_path / "decades"
    folder.mkdir()
    for number in range(COUNT):
        time = ("time", np.arange(10 * number, 10 * number + 10), {"units": "days since 2000-01-01"})
        part = xr.Dataset({"v": (("time", "x"), np.full((10, 2), number))}, {"time": time})
        part.to_netcdf(folder / f"{number}.nc", engine="h5netcdf")
    target = str(tmp_path / "out/ocean.icechunk")
    with faults.serve(folder) as served:
        inputs = [f"{served.url}/{number}.nc" for number in range(COUNT)]
        bake(inputs, target, concat_dim="time", chunks={"time": 10})
    with provider.open_dataset(target) as baked:
        assert baked.v.values[:, 0].tolist() == [number for number in range(COUNT) for _ in range(10)]
    assert {name: len(requests) for name, requests in served.requests.items()} == {
        f"{number}.nc": 1 for number in range(COUNT)
    }
    assert not list(scratch.rglob("*.nc")), "nothing is left with the workers"
    assert cluster.nthreads(), "which stay"


@pytest.mark.usefixtures("cluster")
def test_what_preprocess_computes_from_is_read_by_the_worker_that_computes(tmp_path: Path) -> None:
    """Even the first of the bounds, which tells how they decode: Dask would ask the cluster for it."""
    for number in range(COUNT):
        days = np.arange(10 * number, 10 * number + 10)
        units = {"units": "days since 2000-01-01"}
        variables = {
            "v": (("time", "x"), np.full((10, 2), number, "float32")),
            "bounds": (("time", "two"), np.stack([days, days + 1], 1), units),
        }
        part = xr.Dataset(variables, {"time": ("time", days, units)})  # type: ignore[arg-type]
        part.to_netcdf(tmp_path / f"{number}.nc", engine="h5netcdf")
    target = tmp_path / "out/mean.icechunk"
    bake(
        [tmp_path / f"{number}.nc" for number in range(COUNT)],
        target,
        concat_dim="time",
        chunks={"time": 2},
        preprocess=lambda ds: ds.assign(mean=ds.v.mean("x")),
    )
    with provider.open_dataset(str(target)) as baked:
        assert baked["mean"].values.tolist() == [number for number in range(COUNT) for _ in range(10)]
        assert baked.sizes["time"] == len(baked.bounds) == 10 * COUNT


@pytest.mark.usefixtures("cluster")
def test_all_that_is_wrong_with_inputs_is_told_at_once(
    ocean: list[Path], served: faults.Provider, tmp_path: Path
) -> None:
    served.always = {ocean[1].name: "html", ocean[2].name: "short", ocean[4].name: "404"}
    target = tmp_path / "out/ocean.icechunk"
    inputs = [f"{served.url}/{path.name}" for path in ocean]
    assert ids(inputs, target) == {"input-not-netcdf", "input-truncated", "input-missing"}
    assert not target.exists()


@pytest.mark.usefixtures("cluster")
def test_workers_that_die_of_an_input_are_told_of(ocean: list[Path], tmp_path: Path) -> None:
    here = os.getpid()

    def deadly(ds: xr.Dataset) -> xr.Dataset:
        if os.getpid() != here:
            os._exit(1)
        return ds

    target = tmp_path / "out/ocean.icechunk"
    assert ids([str(path) for path in ocean], target, preprocess=deadly) == {"engine-worker-lost"}
    assert not target.exists()


def test_an_input_that_is_replaced_on_the_way_is_refused(ocean: list[Path], tmp_path: Path) -> None:
    """As a worker that fetches what another has looked at."""
    shutil.copy(ocean[0], tmp_path / "moving.nc")
    stop = threading.Event()
    with faults.serve(tmp_path) as running, fetching(stop) as fetcher:
        bakes = Bake([f"{running.url}/moving.nc"], "time", None, fetcher, stop)
        bakes.fetch()
        bakes.identities[0] = identity(bakes.urls[0], bakes.paths.pop(0))
        bakes.open(0).close()
        del bakes.paths[0]
        shutil.copy(ocean[1], tmp_path / "moving.nc")
        with pytest.raises(Refused, match="input-replaced"):
            bakes.open(0)


@pytest.mark.usefixtures("cluster")
def test_an_input_on_a_shared_disk_that_is_replaced_on_the_way_is_refused(ocean: list[Path], tmp_path: Path) -> None:
    paths = [Path(shutil.copy(path, tmp_path)) for path in ocean[:2]]
    other = Path(shutil.copy(ocean[2], tmp_path))

    with faults.once_said("writing ", lambda: other.replace(paths[1])):
        assert ids([str(path) for path in paths], tmp_path / "out/ocean.icechunk") == {"input-replaced"}


class Late:
    """A future that is done in the moment in which whoever waits for it gives up."""

    status = "finished"

    def __init__(self, result: Look) -> None:
        self.results: list[Look | None] = [None, result]

    def result(self, timeout: float | None = None) -> Look:
        if (result := self.results.pop(0)) is None:
            raise TimeoutError(f"timed out after {timeout} s")
        return result


def test_an_input_that_is_looked_at_as_the_wait_ends_is_no_failure(ocean: list[Path]) -> None:
    stop = threading.Event()
    with fetching(stop) as fetcher:
        bakes = Bake([str(ocean[0])], "time", None, fetcher, stop)
        description, size = bakes.look(0, bakes.urls[0])
        workers = Workers(None)
        looked = Look(description, size, bakes.known(0), "tcp://127.0.0.1:1")
        workers._looks = [Late(looked)]
        assert workers.look(bakes, 0) is looked


@pytest.mark.parametrize(("boxes", "threads"), [(1, 1), (9, 0), (65, 2), (257, 2), (10_000, 3), (50, 200)])
def test_the_last_parts_are_the_smallest_and_none_is_left_out(boxes: int, threads: int) -> None:
    parts = parts_of(range(7, 7 + boxes), threads)
    assert [box for part in parts for box in part] == list(range(7, 7 + boxes))
    sizes = [len(part) for part in parts]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert sizes[0] <= -(-boxes // 64)
    assert len(parts) >= min(boxes, 32)


FAULTS = """
import resource
from feedstock_forge.bake.cluster import memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        b"." * (16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
with memory_kept():
    within = faults()
print(before, within, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc's allocator that Dask sets")
def test_a_worker_keeps_its_memory_for_as_long_as_it_bakes() -> None:
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}  # as Dask starts its workers
    done = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True)
    before, within, after = map(int, done.stdout.split())
    assert within < before / 5
    assert after > 5 * within
