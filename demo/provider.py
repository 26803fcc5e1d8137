"""A data provider for demonstrations and tests: it makes a plausible ocean, serves it, and checks the dataset.

Everything is computed from the calendar and a fixed seed, so the same files come out on every machine.
"""

from __future__ import annotations

import datetime
import functools
import http.server
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

MONTHS = [datetime.date(2022 + month // 12, month % 12 + 1, 1) for month in range(24)]
EPOCH = datetime.date(1981, 1, 1)
LAT = np.arange(-88.0, 90.0, 4.0, dtype="float32")
LON = np.arange(2.0, 360.0, 4.0, dtype="float32")

# Centre and half widths (lat, lon) in degrees: ellipses that a reader takes for continents.
CONTINENTS = [
    *((50, 265, 24, 34), (18, 260, 10, 12), (-15, 300, 32, 19), (72, 320, 11, 18)),  # the Americas and Greenland
    *((10, 15, 24, 30), (-12, 26, 25, 15), (55, 60, 20, 65), (35, 95, 24, 38)),  # Africa and Eurasia
    *((62, 110, 14, 65), (18, 78, 12, 9), (-25, 134, 14, 21), (-90, 180, 22, 360)),  # Asia, Australia, Antarctica
]

DIMS = ("time", "lat", "lon")
PACKING = {"dtype": "int16", "_FillValue": np.int16(-32768), "zlib": True, "shuffle": True}


def land() -> np.ndarray:
    """Whether a cell is land, (lat, lon)."""
    lat, lon = np.meshgrid(LAT, LON, indexing="ij")
    inside = [
        ((lat - y) / height) ** 2 + (((lon - x + 180) % 360 - 180) / width) ** 2 < 1
        for y, x, height, width in CONTINENTS
    ]
    return np.logical_or.reduce(inside)


def temperature(time: np.ndarray) -> np.ndarray:
    """Temperature of the sea in °C, (time, lat, lon); ``time`` in days since :data:`EPOCH`."""
    day = time[:, None, None]
    lat, lon = np.meshgrid(np.deg2rad(LAT.astype("float64")), np.deg2rad(LON.astype("float64")), indexing="ij")
    mean = 29.5 * np.cos(lat) ** 1.6 - 2.5
    season = 4.5 * np.sin(lat) * np.cos(lat) ** 0.5 * np.sin(2 * np.pi * (day - 110) / 365.25)
    currents = 1.5 * np.sin(3 * lon + 2 * np.sin(4 * lat)) * np.cos(lat)
    waves = 0.5 * np.sin(5 * lon - day / 20)
    noise = np.random.default_rng(int(time[0])).normal(0, 0.3, (len(time), len(LAT), len(LON)))
    return mean + season + currents + waves + noise


def month(first: datetime.date) -> xr.Dataset:
    """One month of daily sea surface temperature and sea ice, to be packed as providers do."""
    time = np.arange(first.toordinal(), (first + datetime.timedelta(32)).replace(day=1).toordinal()) - EPOCH.toordinal()
    water = temperature(time)
    ice = np.clip((-0.2 - water) / 1.6, 0, 1)
    dataset = xr.Dataset(
        {
            "sst": (DIMS, np.where(land(), np.nan, np.maximum(water, -1.8))),
            "ice": (DIMS, np.where(land(), np.nan, np.where(ice < 0.15, 0, ice))),
        },
        {"time": time.astype("int32"), "lat": LAT, "lon": LON},
        {
            "Conventions": "CF-1.11",
            "title": "A plausible ocean: daily sea surface temperature and sea ice",
            "institution": "Feedstock Forge demonstration",
            "source": "computed, not observed",
            "history": f"made for {first:%Y-%m}",
        },
    )
    dataset.sst.attrs = {
        "standard_name": "sea_surface_temperature",
        "long_name": "sea surface temperature",
        "units": "degree_Celsius",
    }
    dataset.ice.attrs = {"standard_name": "sea_ice_area_fraction", "long_name": "sea ice area fraction", "units": "1"}
    dataset.time.attrs = {"standard_name": "time", "axis": "T", "units": f"days since {EPOCH} 12:00:00"}
    dataset.time.attrs["calendar"] = "standard"
    dataset.lat.attrs = {"standard_name": "latitude", "axis": "Y", "units": "degrees_north"}
    dataset.lon.attrs = {"standard_name": "longitude", "axis": "X", "units": "degrees_east"}
    dataset.sst.encoding = {**PACKING, "scale_factor": 0.01, "add_offset": 10.0}
    dataset.ice.encoding = {**PACKING, "scale_factor": 0.0001}
    for name in dataset.coords:
        dataset[name].encoding = {"_FillValue": None}  # a coordinate has no missing values
    return dataset


def in_chunks(days: int) -> dict[str, dict[str, Any]]:
    """The encoding of a month's variables in chunks of so many days."""
    return {name: {**PACKING, "chunksizes": (days, len(LAT), len(LON))} for name in ("sst", "ice")}


def write_inputs(folder: Path, count: int = len(MONTHS), name: str = "ocean-%Y-%m.nc", **words: Any) -> list[Path]:
    """Write a NetCDF4 file for each of the first months into ``folder`` and return them in order.

    ``words`` say how, as ``to_netcdf`` takes them; by default each file can grow along its days.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{first:{name}}" for first in MONTHS[:count]]
    for first, path in zip(MONTHS, paths, strict=False):
        month(first).to_netcdf(path, engine="h5netcdf", **(words or {"unlimited_dims": ["time"]}))
    return paths


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing: the recipe's own log tells the story."""


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a run that is stopped leaves its downloads, and there is nobody to tell."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve ``folder`` over HTTP on this machine only, and yield its URL."""
    with running(_Server(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))) as url:
        yield url


@contextmanager
def running(server: http.server.ThreadingHTTPServer) -> Iterator[str]:
    """Have a server answer, in a thread of its own, until the end; yield its URL."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def open_dataset(url: str, *, decode: bool = True) -> xr.Dataset:
    """Open a baked dataset: a path or ``file://`` URL of an Icechunk repository or a Zarr store, or one at ``s3://``.

    The endpoint and the keys of object storage come from the environment (``AWS_ENDPOINT_URL`` …).
    """
    path = str(Path(url.removeprefix("file://")).expanduser())
    if not path.endswith(".icechunk"):
        return xr.open_zarr(path, decode_cf=decode, chunks=None)
    import icechunk

    icechunk.set_logs_filter("error")  # it warns of commits at once whenever a local repository is opened, to read too
    if url.startswith("s3://"):
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        endpoint = os.environ["AWS_ENDPOINT_URL"]
        storage = icechunk.s3_storage(
            bucket=bucket, prefix=prefix, endpoint_url=endpoint, allow_http=True, force_path_style=True, from_env=True
        )
    else:
        storage = icechunk.local_filesystem_storage(path)
    session = icechunk.Repository.open(storage).readonly_session("main")
    return xr.open_zarr(session.store, decode_cf=decode, consolidated=False, chunks=None)


def check(dataset: str, files: Sequence[Path], concat_dim: str = "time") -> list[str]:
    """Compare a baked dataset with its input files, value for value, as stored and as decoded.

    Returns a line for each difference: none means that the dataset holds exactly what the files hold.
    """
    differences = []
    for decode in (False, True):
        with open_dataset(dataset, decode=decode) as baked:
            start = 0
            for path in files:
                with xr.open_dataset(path, decode_cf=decode) as read:
                    part = baked.isel({concat_dim: slice(start, start + read.sizes[concat_dim])})
                    start += read.sizes[concat_dim]
                    differences += [f"{path.name}: {line}" for line in _differences(part, read)]
            if start != baked.sizes[concat_dim]:
                differences.append(f"the dataset has {baked.sizes[concat_dim]} steps, the files {start}")
    return differences


def _differences(baked: xr.Dataset, read: xr.Dataset) -> Iterator[str]:
    if baked.variables.keys() != read.variables.keys():
        yield f"variables {sorted(map(str, baked.variables))} instead of {sorted(map(str, read.variables))}"
    for name in baked.variables.keys() & read.variables.keys():
        ours, theirs = baked.variables[name], read.variables[name]
        if ours.dtype != theirs.dtype or not ours.equals(theirs):
            yield f"`{name}` differs: {ours.dtype}{ours.shape} from {theirs.dtype}{theirs.shape}"
        for key in ("units", "standard_name", "scale_factor", "add_offset", "_FillValue", "calendar"):
            one, other = (variable.attrs.get(key, variable.encoding.get(key)) for variable in (ours, theirs))
            if one != other and not (one != one and other != other):  # NaN is not equal to itself
                yield f"`{name}` has {key} {one} instead of {other}"
