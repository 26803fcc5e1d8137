"""Baking: held against a plain `open_mfdataset(…).to_zarr` and the disk's own copying; its memory; and two workers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
import xarray as xr

import bench
from bench import Figure, Series, say, scaled, timed

TURNS = 5
STEPS, LAT, LON = 32, 512, 512
"""Of one input: 32 MiB of float32."""
CHUNK = "16 MiB"

_OURS = """
from feedstock_forge.bake import bake
bake(inputs, target, concat_dim="time", chunk_size="{chunk}")
"""
_PLAIN = """
import xarray as xr
with xr.open_mfdataset(inputs, combine="nested", concat_dim="time", data_vars="minimal", coords="minimal",
                       compat="override") as ds:
    ds.to_zarr(target, consolidated=False)
"""
_COPY = """
import os, shutil
os.mkdir(target)
for path in inputs:
    shutil.copy(path, target)
"""
# Takes memory and gives it back before the clock runs: a virtual machine gets its memory from the host at the first
# touch, which can take as long as the work and would be counted for whoever comes first.
_TOUCH = "import numpy; numpy.ones(3 << 27)"
# Runs one of them on a store that is on the disk at the end, and says how long that took and how much memory.
_MEASURED = """
import json, os, resource, subprocess, sys, time
target, touch, *inputs = sys.argv[1:]
subprocess.run([sys.executable, "-c", touch], check=True)
began = time.perf_counter()
{work}
for folder, _, names in os.walk(target):
    for name in names:
        with open(os.path.join(folder, name), "rb") as file:
            os.fsync(file.fileno())
print(json.dumps([time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


def run() -> list[Figure | Series]:
    """Up to a GiB that compresses well, and that does not; then eight GiB, and two Dask workers against one."""
    with tempfile.TemporaryDirectory(prefix="bench-bake-") as scratch:
        folder = Path(scratch)
        found = [*_speed(folder, "compressible"), *_speed(folder, "incompressible")]
        found += _memory(folder)
        found += _workers(folder)
    return found


def _speed(folder: Path, kind: str) -> list[Figure | Series]:
    """Four sizes in turns; the figures are those of the largest, 1 GiB."""
    counts = scaled([4, 8, 16, 32], [2, 4])
    inputs = _inputs(folder, kind, counts[-1])
    ways = {"ours": _OURS.format(chunk=CHUNK), "plain": _PLAIN, "copy": _COPY}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for count in counts:
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(scaled(TURNS, 1)):
            for name, work in ways.items():
                taken[name].append(_measured(work, folder, inputs[:count])[0])
            said = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in taken.items())
            say(f"{kind}, {_size(count)}: {said} ({turn + 1}/{scaled(TURNS, 1)})")
        for name, values in taken.items():
            seconds[name].append(median(values))
    shutil.rmtree(inputs[0].parent)
    ours, plain, copy = (seconds[name][-1] for name in ("ours", "plain", "copy"))
    size, detail = _size(counts[-1]), f"medians of {scaled(TURNS, 1)}, in turns, on the disk at the end"
    gibibytes = [count / 32 for count in counts]
    return [
        Figure(
            f"baking {size}, {kind}", plain / ours, "times as fast", "≥ 1.5",
            "`open_mfdataset(…).to_zarr(…)`", f"{ours:.2f} s to {plain:.2f} s, {detail}",
        ),
        Figure(
            f"baking {size}, {kind}", copy / ours, "times as fast", "",
            "copying the files", f"{ours:.2f} s to {copy:.2f} s",
        ),
        Series(f"bake, {kind}", "GiB", gibibytes, seconds["ours"]),
        Series(f"to_zarr, {kind}", "GiB", gibibytes, seconds["plain"]),
    ]  # fmt: skip


def _memory(folder: Path) -> list[Figure | Series]:
    found: list[Figure | Series] = []
    for count in scaled([32, 256], [2, 4]):
        inputs = _inputs(folder, "incompressible", count)
        say(f"memory for {_size(count)}")
        seconds, peak = _measured(_OURS.format(chunk=CHUNK), folder, inputs)
        shutil.rmtree(inputs[0].parent)
        found.append(
            Figure(f"peak memory of baking {_size(count)}", peak / 2**30, "GiB", "≤ 1", detail=f"{seconds:.1f} s, once")
        )
    return found


def _workers(folder: Path) -> list[Figure | Series]:
    """One Dask worker process and two, each with one thread and a processor of its own, on the same bake."""
    if find_spec("distributed") is None:
        say("Dask workers are left out: dask[distributed] is not installed here")
        return []
    counts, turns = scaled([16, 32, 64, 128], [2, 4]), scaled(TURNS, 1)
    inputs = [str(path) for path in _inputs(folder, "compressible", counts[-1])]
    found: list[Figure | Series] = []
    medians: dict[int, list[float]] = {1: [], 2: []}
    for count in counts:
        taken: dict[int, list[float]] = {1: [], 2: []}
        for turn in range(turns):
            for workers, seconds in taken.items():
                seconds.append(_on_workers(workers, inputs[:count], folder / f"dask-{workers}.zarr"))
            said = f"one worker {taken[1][-1]:.2f} s, two {taken[2][-1]:.2f} s"
            say(f"{_size(count)}: {said} ({turn + 1}/{turns})")
        for workers, seconds in taken.items():
            medians[workers].append(median(seconds))
        one, two = medians[1][-1], medians[2][-1]
        if count in (32, counts[-1]):
            found.append(
                Figure(
                    f"baking {_size(count)} on two Dask workers", one / two, "times as fast", "≥ 1.7", "one worker",
                    f"{two:.2f} s to {one:.2f} s, medians of {turns}; recipe and scheduler share the two processors",
                )
            )  # fmt: skip
    shutil.rmtree(Path(inputs[0]).parent)
    gibibytes = [count / 32 for count in counts]
    return [
        *found,
        Series("bake, one Dask worker", "GiB", gibibytes, medians[1]),
        Series("bake, two Dask workers", "GiB", gibibytes, medians[2]),
    ]


def _on_workers(workers: int, inputs: list[str], target: Path) -> float:
    """The seconds that a bake takes on so many workers that are there already."""
    from distributed import Client, LocalCluster

    import feedstock_forge.bake.oven  # noqa: F401 - what a bake imports is not counted
    from feedstock_forge.bake import bake

    seconds: list[float] = []
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        for number, address in enumerate(client.scheduler_info()["workers"]):
            client.run(_settle, number, workers=[address])
        subprocess.run([sys.executable, "-c", _TOUCH], check=True)
        with timed(seconds):
            bake(inputs, str(target), concat_dim="time", chunk_size=CHUNK)
    shutil.rmtree(target)
    return seconds[0]


def _settle(number: int) -> None:
    """Give a worker one processor, and have it import before the clock runs what every further run finds imported."""
    import netCDF4  # noqa: F401

    import feedstock_forge.bake.oven  # noqa: F401

    processors = sorted(os.sched_getaffinity(0))
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {processors[number % len(processors)]})


def _inputs(folder: Path, kind: str, count: int) -> list[Path]:
    """Files of 32 MiB each: smooth fields with gaps and packed as providers pack them, or noise as it is."""
    here = folder / f"{kind}-{count}"
    here.mkdir()
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        if kind == "incompressible":
            values = random.random((STEPS, LAT, LON), dtype="float32")
        else:
            y, x = np.meshgrid(np.linspace(0, 3, LAT), np.linspace(0, 6, LON), indexing="ij")
            time = (number * STEPS + np.arange(STEPS))[:, None, None]
            values = (15 + 10 * np.sin(y + time / 60) * np.cos(x)).round(2).astype("float32")
        time = number * STEPS + np.arange(STEPS)
        coords = {
            "time": ("time", time, {"units": "days since 2000-01-01"}),
            "lat": np.arange(LAT),
            "lon": np.arange(LON),
        }
        ds = xr.Dataset({"v": (("time", "lat", "lon"), values)}, coords)
        packed = {"zlib": True, "complevel": 1, "shuffle": True} if kind == "compressible" else {}
        paths.append(here / f"{number:04}.nc")
        ds.to_netcdf(paths[-1], engine="h5netcdf", encoding={"v": {"chunksizes": (8, LAT, LON), **packed}})
    return paths


def _measured(work: str, folder: Path, inputs: list[Path]) -> tuple[float, int]:
    """Seconds and bytes at the peak of one run in a process of its own; its imports are not counted."""
    target = folder / "target.zarr"
    imports = "import numpy, xarray, zarr, dask.array, netCDF4, feedstock_forge.bake.oven\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", imports + _MEASURED.format(work=work), target, _TOUCH, *inputs],
        capture_output=True, text=True, check=False, env=bench.environment(),
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    shutil.rmtree(target)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def _size(count: int) -> str:
    """What so many inputs hold, uncompressed."""
    return f"{count * 32 / 1024:g} GiB" if count >= 32 else f"{count * 32} MiB"
