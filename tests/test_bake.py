from __future__ import annotations

import logging
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import fsspec
import icechunk
import netCDF4
import numpy as np
import pytest
import xarray as xr

from demo import provider
from feedstock_forge.bake import Provenance, bake, bake_virtual, classic, coming_from, progress
from feedstock_forge.findings import Refused
from support import faults

CHUNKS = {"time": 24}
STORES = ["icechunk", "zarr"]
ONE_NOW_AND_ALL_AT_NIGHT = ["icechunk", pytest.param("zarr", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def ocean(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six months of the demonstration's ocean."""
    return provider.write_inputs(tmp_path_factory.mktemp("ocean"), 6, "%Y-%m.nc")


@pytest.fixture
def store(ocean: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[faults.FileSystem]]:
    """A file system of fsspec's that holds the ocean."""
    fsspec.register_implementation("faulty", faults.FileSystem, clobber=True)
    monkeypatch.setenv("FEEDSTOCK_PATIENCE", "3")
    shutil.copytree(ocean[0].parent, tmp_path / "store")
    faults.FileSystem.serve(tmp_path / "store")
    yield faults.FileSystem
    faults.FileSystem.over.set()


def urls(paths: list[Path]) -> list[str]:
    return [str(path) for path in paths]


def refusal(call: Callable[[], Any]) -> Refused:
    with pytest.raises(Refused) as caught:
        call()
    for finding in caught.value.findings:
        assert finding.fix, finding
    return caught.value


def ids(call: Callable[[], Any]) -> set[str]:
    return {finding.id for finding in refusal(call).findings}


def changed(source: Path, path: Path, change: Callable[[xr.Dataset], xr.Dataset]) -> Path:
    """A copy of an input with something changed in what is stored."""
    with xr.open_dataset(source, decode_cf=False) as raw:
        change(raw.load()).to_netcdf(path, engine="h5netcdf")
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class TestWhatIsWritten:
    @pytest.mark.parametrize("store", STORES)
    def test_holds_exactly_what_the_inputs_hold(self, ocean: list[Path], tmp_path: Path, store: str) -> None:
        target = f"file://{tmp_path}/sub folder/ocean.{store}"
        bake(urls(ocean), target, concat_dim="time", chunks=CHUNKS)
        assert provider.check(target, ocean) == []
        with provider.open_dataset(target) as baked:
            assert baked.sst.encoding["chunks"] == (24, 45, 90)
            assert baked.attrs["title"].startswith("A plausible ocean")
            assert "history" not in baked.attrs, "it differs from input to input"
            assert baked.attrs["feedstock_inputs"]["count"] == 6
        assert [path.name for path in (tmp_path / "sub folder").iterdir()] == [f"ocean.{store}"]

    def test_comes_from_http_as_from_files(self, ocean: list[Path], served: faults.Provider, tmp_path: Path) -> None:
        target = str(tmp_path / "ocean.icechunk")
        bake([f"{served.url}/{path.name}" for path in ocean], target, concat_dim="time", chunks=CHUNKS)
        assert provider.check(target, ocean) == []

    def test_is_what_preprocess_returns(self, ocean: list[Path], tmp_path: Path) -> None:
        def kelvin_in_the_north(ds: xr.Dataset) -> xr.Dataset:
            assert ds.sst.dtype == np.float64, "decoded"
            kelvin = (ds.sst + 273.15).assign_attrs(units="K")
            return ds.assign(kelvin=kelvin).rename(ice="cover").sel(lat=slice(0, None))

        target = str(tmp_path / "ocean.zarr")
        bake(urls(ocean), target, concat_dim="time", chunks=CHUNKS, preprocess=kelvin_in_the_north)
        with (
            xr.open_mfdataset(ocean, data_vars="all", chunks=None) as whole,  # type: ignore[arg-type]
            provider.open_dataset(target) as baked,
        ):
            north = whole.sel(lat=slice(0, None)).load()
            np.testing.assert_array_equal(baked.sst, north.sst)
            np.testing.assert_array_equal(baked.cover, north.ice)
            np.testing.assert_array_equal(baked.kelvin, north.sst + 273.15)
            np.testing.assert_array_equal(baked.lat, north.lat)
            assert baked.sst.encoding["scale_factor"] == 0.01
            assert baked.kelvin.attrs["units"] == "K"

    def test_keeps_packing_that_preprocess_leaves_alone_to_the_last_bit(
        self, ocean: list[Path], tmp_path: Path
    ) -> None:
        target = str(tmp_path / "ocean.icechunk")
        bake(urls(ocean), target, concat_dim="time", preprocess=lambda ds: ds.assign_attrs(note="tidy"))
        assert provider.check(target, ocean) == []

    def test_gives_up_the_packing_where_preprocess_does(self, ocean: list[Path], tmp_path: Path) -> None:
        def unpack(ds: xr.Dataset) -> xr.Dataset:
            ds.sst.encoding.clear()
            return ds

        target = str(tmp_path / "ocean.zarr")
        bake(urls(ocean[:2]), target, concat_dim="time", preprocess=unpack)
        with provider.open_dataset(target, decode=False) as raw, xr.open_dataset(ocean[0]) as first:
            assert raw.sst.dtype == np.float64
            np.testing.assert_array_equal(raw.sst[:31], first.sst)
            assert raw.ice.dtype == np.int16

    def test_counts_from_one_reference_time_where_the_inputs_do_not(self, tmp_path: Path) -> None:
        paths = []
        for month in range(1, 4):
            time = xr.date_range(f"2001-{month:02}-01", periods=20, freq="D", use_cftime=True, calendar="noleap")
            ds = xr.Dataset({"t": ("time", np.arange(20.0))}, {"time": time})
            ds["time_bnds"] = ("time", "bnds"), np.stack([time, time.shift(1, "D")], axis=1)
            ds.time.attrs["bounds"] = "time_bnds"
            ds.time.encoding = {"units": f"hours since 2001-{month:02}-01", "dtype": "int32"}
            paths.append(tmp_path / f"{month}.nc")
            ds.to_netcdf(paths[-1])
        bake(urls(paths), str(tmp_path / "t.zarr"), concat_dim="time", chunks={"time": 7})
        with provider.open_dataset(str(tmp_path / "t.zarr")) as baked:
            for number, path in enumerate(paths):
                with xr.open_dataset(path) as read:
                    xr.testing.assert_equal(baked.isel(time=slice(number * 20, number * 20 + 20)), read)
            assert baked.time.encoding["units"] == "hours since 2001-01-01"
            assert baked.time.encoding["calendar"] == "noleap"

    def test_reads_netcdf3_and_joins_along_any_axis(self, tmp_path: Path) -> None:
        values = np.arange(60, dtype="float32").reshape(3, 20)
        paths = []
        for number in range(4):
            part = xr.Dataset(
                {"v": (("level", "x"), values[:, number * 5 : number * 5 + 5]), "mask": ("level", [1, 0, 1])},
                {"x": np.arange(number * 5, number * 5 + 5)},
            )
            paths.append(tmp_path / f"{number}.nc")
            part.to_netcdf(paths[-1], format="NETCDF3_CLASSIC", engine="netcdf4")
        bake(urls(paths), str(tmp_path / "v.icechunk"), concat_dim="x", chunks={"x": 3, "level": 2})
        with provider.open_dataset(str(tmp_path / "v.icechunk")) as baked:
            np.testing.assert_array_equal(baked.v, values)
            np.testing.assert_array_equal(baked.mask, [1, 0, 1])
            assert baked.v.encoding["chunks"] == (2, 3)

    @pytest.mark.parametrize("preprocess", [None, lambda ds: ds.assign_attrs(note="tidy")])
    def test_keeps_every_kind_of_variable(self, tmp_path: Path, preprocess: Any) -> None:
        paths = []
        for number in range(3):
            random = np.random.default_rng(number)
            time = (
                np.datetime64("2000-01-01", "ns")
                + np.arange(5) * np.timedelta64(1, "D")
                + np.timedelta64(5 * number, "D")
            )
            ds = xr.Dataset(
                {
                    "crs": ((), np.int32(1), {"grid_mapping_name": "latitude_longitude", "semi_major_axis": 6378137.0}),
                    "value": (
                        ("time", "y", "x"),
                        random.random((5, 3, 4)),
                        {"grid_mapping": "crs", "valid_range": [0.0, 1.0]},
                    ),
                    "station": ("site", np.array(["Ny-Ålesund", "Amundsen", "B"], dtype=object)),
                    "flag": (
                        ("time", "site"),
                        random.integers(0, 3, (5, 3)).astype("int8"),
                        {"flag_meanings": "a b c"},
                    ),
                    "large": ("time", np.arange(5) + 2**53 + number),
                    "lead": ("time", np.arange(5.0), {"units": "days"}),
                    "reference": ("time", time - np.timedelta64(6, "h")),
                    "note": ("time", np.array([f"{number} {step}" for step in range(5)], dtype=object)),
                    "gaps": ("time", [0.0, 1.0, np.nan, 3.0, np.nan]),
                    "valid": ("time", [True, False, True, True, False]),
                },
                {"time": time, "lat": (("y", "x"), np.arange(12.0).reshape(3, 4))},
            )
            ds.gaps.encoding = {"dtype": "int16", "_FillValue": np.int16(-1)}
            ds.time.encoding = {"units": "seconds since 1970-01-01", "dtype": "float64"}
            paths.append(tmp_path / f"{number}.nc")
            ds.to_netcdf(paths[-1], engine="h5netcdf")
        target = str(tmp_path / "all.zarr")
        bake(urls(paths[:2]), target, concat_dim="time", chunks={"time": 2}, preprocess=preprocess)
        bake(urls(paths), target, concat_dim="time", mode="update", preprocess=preprocess)
        with provider.open_dataset(target) as baked:
            for number, path in enumerate(paths):
                with xr.open_dataset(path) as read:
                    part = baked.isel(time=slice(number * 5, number * 5 + 5))
                    xr.testing.assert_equal(part, read)
                    assert part.coords.keys() == read.coords.keys()
            assert baked.value.attrs["grid_mapping"] == "crs"

    def test_packed_by_32_bit_floats_is_the_same_as_stored_and_near_as_decoded(self, tmp_path: Path) -> None:
        """Zarr's metadata is JSON, where a number has no type: xarray then decodes to 64 bits."""
        ds = xr.Dataset({"t": ("time", np.linspace(250, 310, 50, dtype="float32"))}, {"time": np.arange(50)})
        packing = {"scale_factor": np.float32(0.01), "add_offset": np.float32(273.15), "_FillValue": np.int16(-1)}
        ds.to_netcdf(tmp_path / "t.nc", encoding={"t": {"dtype": "int16", **packing}})
        target = str(tmp_path / "t.zarr")
        bake([str(tmp_path / "t.nc")], target, concat_dim="time")
        with (
            provider.open_dataset(target, decode=False) as raw,
            xr.open_dataset(tmp_path / "t.nc", decode_cf=False) as read,
        ):
            xr.testing.assert_equal(raw, read)
        with provider.open_dataset(target) as baked, xr.open_dataset(tmp_path / "t.nc") as read:
            np.testing.assert_allclose(baked.t, read.t, rtol=2e-7)

    def test_has_chunks_of_the_size_asked_for(self, ocean: list[Path], tmp_path: Path) -> None:
        """One day of the ocean is 45 x 90 numbers of two bytes: 8,100 B."""
        target = str(tmp_path / "ocean.zarr")
        for size, chunks, made in [
            ("100 KiB", {}, (12, 45, 90)),
            ("4 KiB", {}, (1, 45, 45)),
            ("100 KiB", {"lat": 15}, (37, 15, 90)),
            ("1 KiB", {"time": 5, "lon": 90}, (5, 1, 90)),
        ]:
            bake(urls(ocean), target, concat_dim="time", chunk_size=size, chunks=chunks)
            with provider.open_dataset(target) as baked:
                assert baked.sst.encoding["chunks"] == made
        for size in ("16", "0 MiB", "big"):
            call = lambda size=size: bake(urls(ocean), target, concat_dim="time", chunk_size=size)  # noqa: E731
            assert ids(call) == {"chunks-invalid"}

    def test_says_where_it_comes_from(self, ocean: list[Path], tmp_path: Path) -> None:
        target = str(tmp_path / "ocean.icechunk")
        with coming_from(Provenance("ocean", "daily", "forge/ocean-feedstock", "c0ffee", "v1.0.0", "complete")):
            bake(urls(ocean[:2]), target, concat_dim="time")
        with provider.open_dataset(target) as baked:
            assert baked.attrs["feedstock_provenance"]["commit"] == "c0ffee"
        repository = icechunk.Repository.open(icechunk.local_filesystem_storage(target))
        head = next(iter(repository.ancestry(tag="v1.0.0")))
        assert head.message == "complete: write 2 inputs (v1.0.0 c0ffee)"
        assert head.metadata["repository"] == "forge/ocean-feedstock"


class TestModes:
    @pytest.mark.parametrize("store", STORES)
    def test_update_reads_and_appends_only_what_is_new(
        self, ocean: list[Path], served: faults.Provider, tmp_path: Path, store: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        target = str(tmp_path / f"ocean.{store}")
        inputs = [f"{served.url}/{path.name}" for path in ocean]
        bake(inputs[:3], target, concat_dim="time", chunks=CHUNKS, mode="update")
        assert provider.check(target, ocean[:3]) == [], "an update of nothing is complete"
        served.requests.clear()
        bake(inputs, target, concat_dim="time", chunks=CHUNKS, mode="update")
        assert sorted(served.requests) == [path.name for path in ocean[3:]]
        assert provider.check(target, ocean) == []
        before = tree(tmp_path)
        with caplog.at_level(logging.INFO, "feedstock_forge.bake"):
            bake(inputs, target, concat_dim="time", chunks=CHUNKS, mode="update")
        assert "nothing new" in caplog.text
        assert tree(tmp_path) == before

    @pytest.mark.parametrize("store", STORES)
    def test_update_refuses_inputs_that_changed_and_says_that_a_release_is_needed(
        self, ocean: list[Path], tmp_path: Path, store: str
    ) -> None:
        target = str(tmp_path / f"ocean.{store}")
        bake(urls(ocean[:3]), target, concat_dim="time")
        before = tree(tmp_path)
        for inputs in (ocean[1:], ocean[:2]):
            refused = refusal(lambda inputs=inputs: bake(urls(inputs), target, concat_dim="time", mode="update"))
            assert refused.findings[0].id == "inputs-changed"
            assert "release" in refused.findings[0].fix
        assert tree(tmp_path) == before

    def test_update_holds_new_inputs_against_the_dataset(self, ocean: list[Path], tmp_path: Path) -> None:
        target = str(tmp_path / "ocean.icechunk")
        bake(urls(ocean[1:3]), target, concat_dim="time")
        other = changed(ocean[3], tmp_path / "other.nc", lambda ds: ds.isel(lat=slice(1, None)))
        late = urls(ocean[1:3])
        assert ids(lambda: bake([*late, str(other)], target, concat_dim="time", mode="update")) == {
            "input-grid-differs"
        }
        refused = refusal(lambda: bake([*late, str(ocean[0])], target, concat_dim="time", mode="update"))
        assert [finding.id for finding in refused.findings] == ["input-time-overlaps"]
        assert "the published dataset" in refused.findings[0].message

    def test_complete_replaces_and_icechunk_keeps_the_release(self, ocean: list[Path], tmp_path: Path) -> None:
        target = str(tmp_path / "ocean.icechunk")

        def release(version: str, commit: str, inputs: list[Path]) -> None:
            with coming_from(Provenance("ocean", "daily", commit=commit, version=version)):
                bake(urls(inputs), target, concat_dim="time")

        release("v1.0.0", "aaa", ocean[:2])
        release("v2/0.0", "bbb", ocean[2:4])
        assert provider.check(target, ocean[2:4]) == []
        before = tree(tmp_path)
        release("v2/0.0", "bbb", ocean[2:4])
        release("v1.0.0", "aaa", ocean[:2])
        assert tree(tmp_path) == before, "a release that is baked again changes nothing"
        assert ids(lambda: release("v1.0.0", "ccc", ocean[:2])) == {"release-tag-taken"}
        repository = icechunk.Repository.open(icechunk.local_filesystem_storage(target))
        assert repository.list_tags() == {"v1.0.0", "v2-0.0"}
        first = xr.open_zarr(repository.readonly_session(tag="v1.0.0").store, consolidated=False, chunks=None)
        with xr.open_dataset(ocean[0]) as read:
            xr.testing.assert_equal(first.isel(time=slice(31)), read)

    @pytest.mark.parametrize("store", STORES)
    @pytest.mark.parametrize("mode", ["complete", "update"])
    def test_prune_takes_the_first_two_inputs(self, ocean: list[Path], tmp_path: Path, store: str, mode: str) -> None:
        target = str(tmp_path / f"ocean.{store}")
        missing = [*urls(ocean[:2]), "/none/of/these.nc"]
        bake(missing, target, concat_dim="time", mode=mode, prune=True)
        bake(missing, target, concat_dim="time", mode=mode, prune=True)
        assert provider.check(target, ocean[:2]) == []

    def test_prune_never_replaces_a_full_dataset(self, ocean: list[Path], tmp_path: Path) -> None:
        target = str(tmp_path / "ocean.zarr")
        bake(urls(ocean), target, concat_dim="time")
        assert ids(lambda: bake(urls(ocean), target, concat_dim="time", prune=True)) == {"prune-would-shrink"}
        bake(urls(ocean), target, concat_dim="time", prune=True, mode="update")
        assert provider.check(target, ocean) == []


class TestProviders:
    def target(self, tmp_path: Path) -> str:
        return str(tmp_path / "ocean.icechunk")

    def test_that_flap_are_asked_again(self, ocean: list[Path], served: faults.Provider, tmp_path: Path) -> None:
        served.answers = {ocean[0].name: ["503", "429 0"], ocean[1].name: ["cut"], ocean[2].name: ["slow"]}
        inputs = [f"{served.url}/{path.name}?key=secret" for path in ocean[:3]]
        bake(inputs, self.target(tmp_path), concat_dim="time")
        assert provider.check(self.target(tmp_path), ocean[:3]) == []
        half = ocean[1].stat().st_size // 2
        assert served.requests[ocean[1].name] == ["", f"bytes={half}-"], "the rest only"

    def test_that_do_not_vouch_for_a_rest_are_asked_for_all_of_it_again(
        self, ocean: list[Path], served: faults.Provider, tmp_path: Path
    ) -> None:
        """Never whether what broke off has changed since."""
        served.etag = 'W/"1"'
        served.answers = {ocean[0].name: ["cut"]}
        bake([f"{served.url}/{ocean[0].name}"], self.target(tmp_path), concat_dim="time")
        assert provider.check(self.target(tmp_path), ocean[:1]) == []
        assert served.requests[ocean[0].name] == ["", ""]

    def test_that_say_unasked_that_nothing_has_changed_are_asked_again(
        self, ocean: list[Path], served: faults.Provider, tmp_path: Path
    ) -> None:
        served.answers = {ocean[0].name: ["304"], ocean[1].name: ["cut", "304"]}
        inputs = [f"{served.url}/{path.name}" for path in ocean[:2]]
        bake(inputs, self.target(tmp_path), concat_dim="time")
        assert provider.check(self.target(tmp_path), ocean[:2]) == []
        served.always = {ocean[0].name: "304"}
        refused = refusal(lambda: bake(inputs, self.target(tmp_path), concat_dim="time"))
        assert [found.id for found in refused.findings] == ["input-unreachable"]
        assert "304 Not Modified" in refused.findings[0].message

    def test_are_not_asked_twice_for_what_the_cache_keeps(
        self, ocean: list[Path], served: faults.Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = tmp_path / "cache"
        monkeypatch.setenv("FEEDSTOCK_CACHE", str(cache))
        inputs = [f"{served.url}/{path.name}" for path in ocean[:3]]
        served.always = {ocean[2].name: "404"}
        refusal(lambda: bake(inputs, self.target(tmp_path), concat_dim="time"))
        assert len(list(cache.glob("*.nc"))) == 2, "a run that fails keeps what it has fetched"
        served.always = {}
        damaged = next(cache.glob(f"*{ocean[0].name}"))
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
        bake(inputs, self.target(tmp_path), concat_dim="time")
        assert provider.check(self.target(tmp_path), ocean[:3]) == []
        assert served.unchanged == [ocean[1].name]

    @pytest.mark.parametrize(
        ("answer", "finding"),
        [
            ("404", "input-missing"),
            ("403", "input-forbidden"),
            ("html", "input-not-netcdf"),
            ("short", "input-truncated"),
            ("503", "input-unreachable"),
        ],
    )
    def test_that_fail_are_named(
        self, ocean: list[Path], served: faults.Provider, tmp_path: Path, answer: str, finding: str
    ) -> None:
        served.always = {ocean[1].name: answer}
        inputs = [f"{served.url}/{path.name}?key=secret" for path in ocean[:3]]
        refused = refusal(lambda: bake(inputs, self.target(tmp_path), concat_dim="time"))
        assert [found.id for found in refused.findings] == [finding]
        assert f"{served.url}/{ocean[1].name}" in refused.findings[0].message
        assert "secret" not in str(refused)
        assert not list(tmp_path.iterdir()), "nothing was published, and nothing is left"

    def test_that_lead_on_without_end_are_named(
        self, ocean: list[Path], served: faults.Provider, tmp_path: Path
    ) -> None:
        """As the login pages of providers do, for whoever has no account."""
        url = f"{served.url}/{ocean[0].name}"
        served.always = {ocean[0].name: f"302 {url}?session=secret"}
        refused = refusal(lambda: bake([url], self.target(tmp_path), concat_dim="time"))
        assert [found.id for found in refused.findings] == ["input-forbidden"]
        assert refused.findings[0].message == f"{url} leads on without end, at last to {url}?…"

    def test_that_lead_to_what_is_not_http_are_asked_once(
        self, ocean: list[Path], served: faults.Provider, tmp_path: Path
    ) -> None:
        url = f"{served.url}/{ocean[0].name}"
        served.always = {ocean[0].name: "302 ftp://user:secret@example.org/file.nc"}
        refused = refusal(lambda: bake([url], self.target(tmp_path), concat_dim="time"))
        assert [found.id for found in refused.findings] == ["input-protocol-unknown"]
        assert refused.findings[0].message == f"{url} leads to ftp://example.org/file.nc, which is not HTTP"
        assert served.requests[ocean[0].name] == [""]

    def test_that_ask_for_more_time_than_there_is_are_given_up_at_once(
        self, ocean: list[Path], served: faults.Provider, tmp_path: Path
    ) -> None:
        """What is told is how long they were tried, not how long they might have been."""
        served.always = {ocean[0].name: "503 86400"}
        refused = refusal(lambda: bake([f"{served.url}/{ocean[0].name}"], self.target(tmp_path), concat_dim="time"))
        (found,) = refused.findings
        assert re.search(r" in [01]\.\d s of trying: .* 503 .*, and asks to wait 86,400 s$", found.message)
        assert "FEEDSTOCK_PATIENCE=86460 waits longer" in found.fix
        assert len(served.requests[ocean[0].name]) == 1

    def test_that_trickle_or_hang_are_given_up(
        self, ocean: list[Path], served: faults.Provider, tmp_path: Path
    ) -> None:
        """However often they are asked again: each connection brings a little, and a little more is no progress."""
        served.always = {ocean[0].name: "trickle", ocean[1].name: "hang"}
        inputs = [f"{served.url}/{path.name}" for path in ocean[:3]]
        refused = refusal(lambda: bake(inputs, self.target(tmp_path), concat_dim="time"))
        assert {found.id for found in refused.findings} == {"input-too-slow"}
        for path in ocean[:2]:
            assert sum(f"{served.url}/{path.name} came at" in found.message for found in refused.findings) == 1
        ranges = served.requests[ocean[0].name]
        assert ranges[0] == ""
        assert all(asked.startswith("bytes=") for asked in ranges[1:])
        assert len(ranges) > 1, "asked again, from where it was"

    def test_of_more_than_fits_on_the_disk_are_refused_before_it_is_full(
        self, ocean: list[Path], served: faults.Provider, store: type[faults.FileSystem], tmp_path: Path
    ) -> None:
        """What is being fetched already counts."""
        served.always = {path.name: "large" for path in ocean[:2]}
        store.answers = {ocean[2].name: ["large"]}
        inputs = [*(f"{served.url}/{path.name}" for path in ocean[:2]), f"faulty://{ocean[2].name}"]
        refused = refusal(lambda: bake(inputs, self.target(tmp_path), concat_dim="time"))
        assert sorted(found.id for found in refused.findings) == ["disk-full", "disk-full", "input-too-slow"]
        assert f"faulty://{ocean[2].name} takes 1,024 PiB" in str(refused)
        assert f"and {tempfile.gettempdir()} has" in str(refused)
        assert not store.read

    def test_that_are_not_there_are_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FEEDSTOCK_PATIENCE", "0.1")
        for url in ("http://127.0.0.1:9/a.nc", "http://user:secret@127.0.0.1:9/a.nc"):
            refused = refusal(lambda url=url: bake([url], self.target(tmp_path), concat_dim="time"))
            assert refused.findings[0].id == "input-unreachable"
            assert "secret" not in str(refused)

    @pytest.mark.parametrize("path", ["~nosuchuser/a.nc", "/" + 300 * "a", "~nosuchuser/" + 300 * "a"])
    def test_that_have_names_that_no_file_has_are_named(self, tmp_path: Path, path: str) -> None:
        refused = refusal(lambda: bake([path], self.target(tmp_path), concat_dim="time"))
        assert refused.findings[0].id == "input-missing"
        assert path in refused.findings[0].message

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("FEEDSTOCK_PATIENCE", "10 min"),
            ("FEEDSTOCK_PATIENCE", "-1"),
            ("FEEDSTOCK_PATIENCE", "nan"),
            ("FEEDSTOCK_PATIENCE", "inf"),
            ("FEEDSTOCK_CACHE", __file__),
            ("FEEDSTOCK_CACHE", "/proc/none"),
        ],
    )
    def test_are_not_asked_where_a_setting_cannot_be_kept_to(
        self,
        ocean: list[Path],
        served: faults.Provider,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        variable: str,
        value: str,
    ) -> None:
        monkeypatch.setenv(variable, value)
        refused = refusal(lambda: bake([f"{served.url}/{ocean[0].name}"], self.target(tmp_path), concat_dim="time"))
        assert [found.id for found in refused.findings] == ["setting-unusable"]
        assert value in refused.findings[0].message
        assert variable in refused.findings[0].fix
        assert not served.requests

    @pytest.mark.parametrize(
        ("url", "finding"),
        [
            ("http://user:secret@[::1/a.nc?key=secret", "input-protocol-unknown"),
            ("http://user:secret@127.0.0.1:port/a.nc?key=secret", "input-protocol-unknown"),
            ("http://127.0.0.1:9/a.nc\n", "input-protocol-unknown"),
            ("http://127.0.0.1:9/\ta.nc", "input-protocol-unknown"),
            ("http://127.0.0.1:9/\ud800a.nc", "input-protocol-unknown"),
            ("http://exämple..org/a.nc", "input-protocol-unknown"),
            (f"http://{'a' * 64}.org/a.nc", "input-protocol-unknown"),
            ("http:///a.nc", "input-protocol-unknown"),
            ("s3://[bucket/a.nc", "input-protocol-unknown"),
            ("\0a.nc", "input-missing"),
        ],
    )
    def test_that_no_url_names_are_refused_at_once(
        self, tmp_path: Path, url: str, finding: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        refused = refusal(lambda: bake([url], self.target(tmp_path), concat_dim="time"))
        assert [found.id for found in refused.findings] == [finding]
        assert "a.nc" in refused.findings[0].message
        assert "leads to" not in str(refused), "nobody has led anywhere"
        assert "secret" not in str(refused)
        assert "trying again" not in caplog.text


class TestFileSystems:
    """What fsspec reads is fetched with the same care as what comes over HTTP."""

    def test_are_read(self, ocean: list[Path], tmp_path: Path) -> None:
        memory = fsspec.filesystem("memory")
        for path in ocean[:2]:
            memory.pipe(f"/{path.name}", path.read_bytes())
        target = str(tmp_path / "ocean.zarr")
        bake([f"memory://{ocean[0].name}", f"simplecache::memory://{ocean[1].name}"], target, concat_dim="time")
        assert provider.check(target, ocean[:2]) == []
        assert ids(lambda: bake(["memory://none.nc"], target, concat_dim="time")) == {"input-missing"}
        assert ids(lambda: bake(["nosuch://none.nc"], target, concat_dim="time")) == {"input-protocol-unknown"}

    def test_that_fail_for_a_while_are_asked_again(
        self, ocean: list[Path], store: type[faults.FileSystem], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        store.answers = {ocean[0].name: ["reset", "well"], ocean[1].name: ["short", "well"]}
        target = str(tmp_path / "ocean.icechunk")
        bake([f"faulty://{path.name}" for path in ocean[:3]], target, concat_dim="time")
        assert provider.check(target, ocean[:3]) == []
        assert f"faulty://{ocean[0].name}: ConnectionResetError" in caplog.text

    def test_that_go_on_failing_are_named(
        self, ocean: list[Path], store: type[faults.FileSystem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FEEDSTOCK_PATIENCE", "1")
        expected = {
            "reset": "input-unreachable",
            "short": "input-truncated",
            "hang": "input-too-slow",
            "denied": "input-forbidden",
            "login": "input-forbidden",
            "none": "input-missing",
        }
        (tmp_path / "store" / "folder").mkdir()
        store.answers = {path.name: [how] for path, how in zip(ocean, expected, strict=True)}
        inputs = {f"faulty://{path.name}": expected[how] for path, how in zip(ocean, expected, strict=True)}
        (tmp_path / "store" / ocean[5].name).unlink()
        inputs["faulty://folder"] = "input-missing"
        target = tmp_path / "out" / "ocean.icechunk"
        refused = refusal(lambda: bake(inputs, str(target), concat_dim="time"))
        assert sorted(found.id for found in refused.findings) == sorted(inputs.values())
        for url, finding in inputs.items():
            assert [found.id for found in refused.findings if f"{url} " in f"{found.message} "] == [finding]
        assert not list(target.parent.iterdir())

    def test_fill_the_disk_without_being_asked_again(
        self, ocean: list[Path], store: type[faults.FileSystem], tmp_path: Path
    ) -> None:
        store.answers = {ocean[0].name: ["full"]}
        call = lambda: bake([f"faulty://{ocean[0].name}"], str(tmp_path / "ocean.zarr"), concat_dim="time")  # noqa: E731
        assert ids(call) == {"disk-full"}
        assert len(store.read) == 1

    def test_are_not_asked_twice_for_what_the_cache_keeps(
        self, ocean: list[Path], store: type[faults.FileSystem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FEEDSTOCK_CACHE", str(tmp_path / "cache"))
        target = str(tmp_path / "ocean.icechunk")
        inputs = [f"faulty://{path.name}" for path in ocean[:3]]
        bake(inputs, target, concat_dim="time")
        store.read.clear()
        (tmp_path / "store" / ocean[1].name).write_bytes(ocean[1].read_bytes())
        bake(inputs, target, concat_dim="time")
        assert store.read == [ocean[1].name], "the one that has changed"
        assert provider.check(target, ocean[:3]) == []


class TestInputs:
    """Each fault is found before anything is written, and named with its input."""

    @pytest.mark.parametrize(
        ("finding", "change"),
        [
            ("input-grid-differs", lambda ds: ds.isel(lat=slice(None, None, 2))),
            ("input-grid-differs", lambda ds: ds.assign_coords(lon=ds.lon.copy(data=ds.lon.values + 1))),
            ("input-grid-differs", lambda ds: ds.transpose("lat", "time", "lon")),
            ("input-variables-differ", lambda ds: ds.drop_vars("ice")),
            ("input-variables-differ", lambda ds: ds.assign(extra=ds.sst)),
            ("input-encoding-differs", lambda ds: ds.assign(sst=ds.sst.astype("int32", keep_attrs=True))),
            ("input-encoding-differs", lambda ds: ds.assign(sst=ds.sst.assign_attrs(scale_factor=0.02))),
            ("input-encoding-differs", lambda ds: ds.assign(sst=ds.sst.assign_attrs(_FillValue=np.int16(-1)))),
            ("input-encoding-differs", lambda ds: ds.assign(sst=ds.sst.assign_attrs(units="K"))),
            ("input-encoding-differs", lambda ds: ds.assign_coords(time=ds.time.assign_attrs(calendar="noleap"))),
            ("input-time-unsorted", lambda ds: ds.isel(time=slice(None, None, -1))),
            ("input-time-unsorted", lambda ds: ds.isel(time=[0, 1, 1, 2])),
            ("input-time-overlaps", lambda ds: ds.assign_coords(time=ds.time.copy(data=ds.time.values - 3))),
            ("input-dimension-missing", lambda ds: ds.isel(time=0)),
        ],
    )
    def test_that_do_not_fit_are_refused(
        self, ocean: list[Path], tmp_path: Path, finding: str, change: Callable[[xr.Dataset], xr.Dataset]
    ) -> None:
        target = tmp_path / "out" / "ocean.zarr"
        bake(urls(ocean[:1]), str(target), concat_dim="time")
        before = tree(tmp_path / "out")
        odd = changed(ocean[1], tmp_path / "odd.nc", change)
        refused = refusal(lambda: bake([*urls(ocean[:1]), str(odd), *urls(ocean[2:3])], str(target), concat_dim="time"))
        assert {found.id for found in refused.findings} == {finding}
        assert all(str(odd) in found.message for found in refused.findings)
        assert tree(tmp_path / "out") == before

    def test_that_are_no_datasets_are_refused(self, ocean: list[Path], tmp_path: Path) -> None:
        def bad(name: str, content: bytes) -> str:
            (tmp_path / name).write_bytes(content)
            return str(tmp_path / name)

        whole = ocean[1].read_bytes()
        broken = bytearray(whole)
        at = len(broken) // 2
        broken[at : at + 20_000] = bytes(20_000)
        faulty = {
            bad("cut.nc", whole[: len(whole) * 2 // 3]): "input-truncated",
            bad("empty.nc", b""): "input-truncated",
            bad("page.nc", faults.LOGIN_PAGE): "input-not-netcdf",
            bad("text.nc", b"year,sst\n2020,14.1\n"): "input-not-netcdf",
            bad("broken.nc", bytes(broken)): "input-damaged",
            str(tmp_path / "none.nc"): "input-missing",
            str(tmp_path): "input-missing",
        }
        target = str(tmp_path / "out" / "ocean.icechunk")
        for url, finding in faulty.items():
            refused = refusal(lambda url=url: bake([str(ocean[0]), url], target, concat_dim="time"))
            assert [found.id for found in refused.findings] == [finding]
            assert url in refused.findings[0].message
        together = refusal(lambda: bake(list(faulty), target, concat_dim="time"))
        assert len(together.findings) == len(faulty) - 1, "all at once; damage shows when it is read"
        assert not list((tmp_path / "out").iterdir())

    @pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"])
    @pytest.mark.parametrize("records", [0, 1, 2], ids=lambda number: f"{number} record variables")
    def test_of_netcdf3_are_never_taken_for_whole_when_cut_off(self, tmp_path: Path, form: Any, records: int) -> None:
        """netCDF's library reads zeros beyond the end. Only the padding after the last value may be missing."""
        whole = tmp_path / "whole.nc"
        with netCDF4.Dataset(whole, "w", format=form) as file:
            file.title = "short"
            file.createDimension("time", None if records else 5)
            file.createDimension("x", 3)
            if records != 1:
                file.createVariable("time", "f8", ("time",))[:] = np.arange(5.0)
            file.createVariable("fixed", "i1", ("x",))[:] = 7
            value = file.createVariable("value", "i2", ("time", "x"))
            value.long_name = "a value"
            value[:] = np.arange(15).reshape(5, 3) + 1
        content, values = whole.read_bytes(), (np.arange(15) + 1).astype(">i2")
        # Alone, each record follows the one before it; with others, it is padded to whole words.
        last = values[12:].tobytes() if records else values.tobytes()
        end = content.rindex(last) + len(last)
        assert len(content) - end < 4
        target = str(tmp_path / "out" / "v.zarr")
        cut = tmp_path / "cut.nc"
        for size in (end - 1, len(content) * 2 // 3, 60, 6):
            cut.write_bytes(content[:size])
            refused = refusal(lambda: bake([str(cut)], target, concat_dim="time"))
            assert [finding.id for finding in refused.findings] == ["input-truncated"], size
            assert f"{cut} is cut off" in refused.findings[0].message
            assert f"{size:,}" in refused.findings[0].message
        assert not list((tmp_path / "out").iterdir())
        cut.write_bytes(content[:end])
        bake([str(cut)], target, concat_dim="time")
        with provider.open_dataset(target) as baked:
            np.testing.assert_array_equal(baked.value, np.arange(15).reshape(5, 3) + 1)

    def test_of_netcdf3_are_as_long_as_its_library_writes_them(self, tmp_path: Path) -> None:
        chance = random.Random(3)  # noqa: S311 - no secret
        path = tmp_path / "any.nc"
        for _ in range(150):
            form: Any = chance.choice(["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"])
            types = ["i1", "S1", "i2", "i4", "f4", "f8"] + (["u1", "u2", "u4", "i8", "u8"] if "DATA" in form else [])
            with netCDF4.Dataset(path, "w", format=form) as file:
                file.createDimension("time", None)
                for dim in "xy":
                    file.createDimension(dim, chance.randint(1, 7))
                file.note = "n" * chance.randint(0, 5)
                for count in range(chance.randint(0, 4)):
                    dims = ["time"] * chance.randint(0, 1) + chance.sample("xy", chance.randint(0, 2))
                    variable = file.createVariable("v" * (count + 1), chance.choice(types), dims)
                    records = chance.randint(0, 3)
                    if "time" in dims and records:
                        shape = (records, *variable.shape[1:])
                        variable[:records] = np.full(shape, b"c") if variable.dtype == "S1" else np.ones(shape)
            assert 0 <= path.stat().st_size - classic.length(path) < 4, "but for the padding after the last value"

    def test_of_netcdf3_that_leave_open_how_long_they_are_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "stream.nc"
        part = xr.Dataset({"v": ("time", np.arange(5.0))}, {"time": np.arange(5.0)})
        part.to_netcdf(path, format="NETCDF3_CLASSIC", unlimited_dims=["time"])
        content = bytearray(path.read_bytes())
        content[4:8] = b"\xff\xff\xff\xff"
        path.write_bytes(content)
        refused = refusal(lambda: bake([str(path)], str(tmp_path / "v.zarr"), concat_dim="time"))
        assert refused.findings[0].id == "input-damaged"
        assert "how many records" in refused.findings[0].message

    def test_that_preprocess_fails_on_are_named(self, ocean: list[Path], tmp_path: Path) -> None:
        target = str(tmp_path / "ocean.icechunk")

        def raises(ds: xr.Dataset) -> xr.Dataset:
            return ds["no such variable"].to_dataset()

        refused = refusal(lambda: bake(urls(ocean[:1]), target, concat_dim="time", preprocess=raises))
        assert refused.findings[0].id == "preprocess-fails"
        assert "no such variable" in refused.findings[0].message
        assert str(ocean[0]) in refused.findings[0].message
        nothing: Any = lambda ds: None  # noqa: E731
        assert ids(lambda: bake(urls(ocean[:1]), target, concat_dim="time", preprocess=nothing)) == {"preprocess-fails"}

    def test_that_are_named_badly_are_refused(self, ocean: list[Path], tmp_path: Path) -> None:
        target = str(tmp_path / "ocean.icechunk")
        one = urls(ocean[:1])
        assert ids(lambda: bake([], target, concat_dim="time")) == {"inputs-empty"}
        assert ids(lambda: bake(one * 2, target, concat_dim="time")) == {"inputs-repeated"}
        for odd in (one[0], ocean[0], b"a.nc", None, [None]):
            for kind in (bake, bake_virtual):
                assert ids(lambda kind=kind, odd=odd: kind(odd, target, concat_dim="time")) == {"inputs-invalid"}
        assert ids(lambda: bake(one, target, concat_dim="time", mode="all")) == {"mode-unknown"}
        for length in (0, np.int64(0), 2.0, True, "2", None):
            chunks: Any = {"time": length}
            assert ids(lambda chunks=chunks: bake(one, target, concat_dim="time", chunks=chunks)) == {"chunks-invalid"}
        assert ids(lambda: bake(one, target, concat_dim="time", chunks={"tine": 1})) == {"chunks-invalid"}

    def test_may_be_paths_and_whatever_names_them_one_by_one(self, ocean: list[Path], tmp_path: Path) -> None:
        target = tmp_path / "ocean.zarr"
        bake((path for path in ocean[:2]), target, concat_dim="time", chunks={"time": np.int64(24)})
        bake(urls(ocean[:3]), str(target), concat_dim="time", mode="update")
        assert provider.check(str(target), ocean[:3]) == []
        with provider.open_dataset(str(target)) as baked:
            assert baked.sst.encoding["chunks"][0] == 24


class TestTargets:
    def test_that_are_no_datasets_stay_untouched(self, ocean: list[Path], tmp_path: Path) -> None:
        (tmp_path / "notes.zarr").mkdir()
        (tmp_path / "notes.zarr" / "thesis.txt").write_text("years of work")
        (tmp_path / "file.icechunk").write_text("years of work")
        before = tree(tmp_path)
        for name in ("notes.zarr", "file.icechunk"):
            target = str(tmp_path / name)
            assert ids(lambda target=target: bake(urls(ocean), target, concat_dim="time")) == {"target-not-a-dataset"}
        assert tree(tmp_path) == before

    @pytest.mark.parametrize(
        ("target", "finding"),
        [
            ("/tmp/ocean", "target-store-unknown"),  # noqa: S108 - refused before it is touched
            ("/tmp/ocean.nc", "target-store-unknown"),  # noqa: S108
            ("s3://bucket/ocean.zarr", "target-not-atomic"),
            ("ftp://host/ocean.icechunk", "target-store-unknown"),
            ("/proc/none/ocean.zarr", "target-unwritable"),
        ],
    )
    def test_that_cannot_be_written_are_refused(self, ocean: list[Path], target: str, finding: str) -> None:
        assert ids(lambda: bake(urls(ocean), target, concat_dim="time")) == {finding}

    @pytest.mark.parametrize("store", STORES)
    def test_that_the_run_may_not_look_into_are_refused(self, ocean: list[Path], store: str) -> None:
        nobody = 65534
        # Not pytest's own folder, which is closed to all but whoever runs the tests.
        with tempfile.TemporaryDirectory() as shared:
            Path(shared).chmod(0o777)
            target = Path(shared) / f"ocean.{store}"
            target.mkdir(0)
            user = os.geteuid()
            os.seteuid(nobody if user == 0 else user)  # root may look into everything
            try:
                refused = refusal(lambda: bake(urls(ocean[:1]), str(target), concat_dim="time"))
            finally:
                os.seteuid(user)
            assert [found.id for found in refused.findings] == ["target-unwritable"]
            assert "Permission denied" in refused.findings[0].message
            assert [path.name for path in Path(shared).iterdir()] == [target.name]

    def test_expand_the_home_folder(self, ocean: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        bake(urls(ocean[:1]), "file://~/data/ocean.zarr", concat_dim="time")
        assert provider.check(str(tmp_path / "data" / "ocean.zarr"), ocean[:1]) == []

    def test_and_inputs_may_name_this_machine(self, ocean: list[Path], tmp_path: Path) -> None:
        bake([f"file://localhost{ocean[0]}"], f"file://localhost{tmp_path}/ocean.zarr", concat_dim="time")
        assert provider.check(str(tmp_path / "ocean.zarr"), ocean[:1]) == []


PROGRAM = textwrap.dedent(
    """
    import logging, resource, sys
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    from feedstock_forge.bake import bake
    assert not {"xarray", "zarr", "icechunk", "numpy", "prefect"} & set(sys.modules), "importing is cheap"
    target, mode, *inputs = sys.argv[1:]
    print("ready", flush=True)
    bake(inputs, target, concat_dim="time", chunks={"time": 24}, mode=mode)
    assert "prefect" not in sys.modules
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, flush=True)
    """
)


def start(target: str, mode: str, inputs: list[Path], scratch: Path) -> subprocess.Popen[str]:
    scratch.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, target, mode, *urls(inputs)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    )  # fmt: skip


def stop_at(process: subprocess.Popen[str], line: str, number: int) -> str:
    """Send the signal when the process prints ``line``; returns what it printed."""
    assert process.stdout is not None
    printed = ""
    for each in process.stdout:
        printed += each
        if each.startswith(line):
            process.send_signal(number)
            break
    printed += process.stdout.read()
    process.wait()
    return printed


SMALL_DISK = textwrap.dedent(
    """
    import json, subprocess, sys
    folder, store, *inputs = sys.argv[1:]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "none", folder], check=True)
    from demo import provider
    from feedstock_forge.bake import bake
    from feedstock_forge.findings import Refused
    target = f"{folder}/ocean.{store}"
    bake(inputs[:1], target, concat_dim="time")
    try:
        bake(inputs, target, concat_dim="time")
    except Refused as refused:
        print(refused)
    from pathlib import Path
    assert provider.check(target, [Path(inputs[0])]) == []
    assert [path.name for path in Path(folder).iterdir()] == [f"ocean.{store}"]
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    try:
        bake(inputs[:2], target, concat_dim="time")
    except Refused as refused:
        print(refused)
    assert provider.check(target, [Path(inputs[0])]) == []
    """
)


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "--map-root-user", "--mount", "true"]).returncode != 0,
    reason="needs a small disk, and so leave to mount one",
)
@pytest.mark.parametrize("store", STORES)
def test_a_full_disk_and_one_that_may_only_be_read_are_named_and_the_dataset_stays_as_it_was(
    ocean: list[Path], tmp_path: Path, store: str
) -> None:
    program = [sys.executable, "-c", SMALL_DISK, str(tmp_path), store, *urls(ocean)]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", *program],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    full, read_only = done.stdout.splitlines()
    assert full.startswith("disk-full")
    assert read_only.startswith("target-unwritable")
    assert "Read-only file system" in read_only


def total(target: str) -> tuple[int, int]:
    """How many steps a reader finds, and the sum of what is stored.

    A reader of plain Zarr knows no snapshots: one that opened the store before an exchange has to open it again.
    """
    while True:
        before = Path(target).stat().st_ino
        with provider.open_dataset(target, decode=False) as dataset:
            found = dataset.sizes["time"], int(dataset.sst.astype("int64").sum())
        if Path(target).stat().st_ino == before:
            return found


def bake_and_tell(begun: Event, inputs: list[str], target: str) -> None:
    progress.EVERY = progress.SHARE = 0  # it keeps how far it is after each part
    begun.set()
    bake(inputs, target, concat_dim="time", chunks=CHUNKS)


class TestRunsThatEnd:
    @pytest.mark.parametrize("store", ONE_NOW_AND_ALL_AT_NIGHT)
    def test_by_a_kill_leave_the_dataset_as_it_was(self, ocean: list[Path], tmp_path: Path, store: str) -> None:
        target = str(tmp_path / "out" / f"ocean.{store}")
        bake(urls(ocean[:2]), target, concat_dim="time", chunks=CHUNKS)
        for mode, line in (("complete", "input 3"), ("update", "wrote")):
            printed = stop_at(start(target, mode, ocean, tmp_path / "scratch"), line, signal.SIGKILL)
            assert line in printed, printed
            assert "published" not in printed
            assert provider.check(target, ocean[:2]) == [], line
        bake(urls(ocean), target, concat_dim="time", chunks=CHUNKS, mode="update")
        assert provider.check(target, ocean) == []
        assert [path.name for path in (tmp_path / "out").iterdir()] == [f"ocean.{store}"]

    @pytest.mark.parametrize("store", ONE_NOW_AND_ALL_AT_NIGHT)
    def test_at_any_moment_never_show_a_reader_half_a_dataset(
        self, ocean: list[Path], tmp_path: Path, store: str
    ) -> None:
        target = str(tmp_path / "out" / f"ocean.{store}")
        sums = {}
        for inputs in (ocean[:2], ocean):
            bake(urls(inputs), target, concat_dim="time", chunks=CHUNKS)
            sums[sum(provider.month(first).sizes["time"] for first in provider.MONTHS[: len(inputs)])] = total(target)
        bake(urls(ocean[:2]), target, concat_dim="time", chunks=CHUNKS)
        # The runs are forks of one process that has imported everything.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["feedstock_forge.bake.oven", "netCDF4", "h5netcdf", __name__])
        moments = random.Random(store)  # noqa: S311 - no secret
        seconds: dict[int, float] = {}
        killed = 0
        while killed < 20:
            # Full bakes and those of two inputs, so that both states are published over each other; two kills in a row,
            # so that a run goes on from where one was killed. The first of each ends by itself and tells how long that
            # takes, and so does one that was faster than its end.
            inputs = (ocean, ocean[:2])[killed // 2 % 2]
            begun = context.Event()
            run = context.Process(target=bake_and_tell, args=(begun, urls(inputs), target))
            run.start()
            begun.wait()
            began = time.monotonic()
            end = threading.Timer(moments.uniform(0, seconds.get(len(inputs), 0)), run.kill)
            if len(inputs) in seconds:
                end.start()
            while run.is_alive():
                length, found = total(target)
                assert sums[length] == (length, found), f"after {killed} kills"
            end.cancel()
            run.join()
            assert run.exitcode in (0, -signal.SIGKILL)
            if run.exitcode == 0:
                seconds[len(inputs)] = time.monotonic() - began
            else:
                killed += 1
        bake(urls(ocean), target, concat_dim="time", chunks=CHUNKS)
        assert provider.check(target, ocean) == []
        assert [path.name for path in (tmp_path / "out").iterdir()] == [f"ocean.{store}"]

    @pytest.mark.parametrize("store", STORES)
    def test_by_a_kill_before_anything_is_published_leave_nothing_to_read(
        self, ocean: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
    ) -> None:
        target, scratch = tmp_path / "out" / f"ocean.{store}", tmp_path / "scratch"
        stop_at(start(str(target), "complete", ocean, scratch), "wrote", signal.SIGKILL)
        assert not target.exists()
        assert [path.name.startswith("feedstock-inputs-") for path in scratch.iterdir()] == [True]
        monkeypatch.setattr(tempfile, "tempdir", str(scratch))
        bake(urls(ocean), str(target), concat_dim="time", mode="update")
        assert provider.check(str(target), ocean) == []
        assert [path.name for path in (tmp_path / "out").iterdir()] == [target.name]
        assert not list(scratch.iterdir()), "what the killed one had fetched goes, too"

    def test_by_a_kill_are_taken_up_from_what_they_had_fetched(
        self, ocean: list[Path], served: faults.Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FEEDSTOCK_CACHE", str(tmp_path / "cache"))
        served.always = {ocean[5].name: "slow"}
        target = tmp_path / "out" / "ocean.icechunk"
        inputs: Any = [f"{served.url}/{path.name}" for path in ocean]
        stop_at(start(str(target), "complete", inputs, tmp_path / "scratch"), "input 3", signal.SIGKILL)
        bake(inputs, str(target), concat_dim="time")
        assert ocean[2].name in served.unchanged
        assert provider.check(str(target), ocean) == []

    def test_by_ctrl_c_leave_no_files(self, ocean: list[Path], served: faults.Provider, tmp_path: Path) -> None:
        served.always = {path.name: "slow" for path in ocean}
        target = tmp_path / "out" / "ocean.icechunk"
        inputs: Any = [f"{served.url}/{path.name}" for path in ocean]
        printed = stop_at(start(str(target), "complete", inputs, tmp_path / "scratch"), "ready", signal.SIGINT)
        assert "KeyboardInterrupt" in printed
        assert not list((tmp_path / "scratch").iterdir())
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())

    def test_are_told_from_runs_that_go_on(self, ocean: list[Path], served: faults.Provider, tmp_path: Path) -> None:
        served.always = {path.name: "slow" for path in ocean}
        target = str(tmp_path / "out" / "ocean.zarr")
        inputs: Any = [f"{served.url}/{path.name}" for path in ocean]
        process = start(target, "complete", inputs, tmp_path / "scratch")
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("input 1"):
                break
        assert ids(lambda: bake(urls(ocean), target, concat_dim="time")) == {"target-busy"}
        process.communicate()
        assert process.returncode == 0
        assert provider.check(target, ocean) == []


def test_memory_does_not_grow_with_the_inputs(tmp_path: Path) -> None:
    paths = []
    for number in range(24):
        values = np.arange(24 * 512 * 512, dtype="float32").reshape(24, 512, 512) + number
        part = xr.Dataset({"v": (("time", "y", "x"), values)}, {"time": np.arange(number * 24, number * 24 + 24)})
        paths.append(tmp_path / f"{number:02}.nc")
        part.to_netcdf(paths[-1], engine="h5netcdf")

    def peak(inputs: list[Path]) -> int:
        process = start(str(tmp_path / f"{len(inputs)}.icechunk"), "complete", inputs, tmp_path / "scratch")
        printed, _ = process.communicate()
        assert process.returncode == 0, printed
        return int(printed.split("peak")[-1])

    few, many = peak(paths[:8]), peak(paths)
    assert many < 1024, "MiB"
    assert many - few < 150, "192 MiB and 576 MiB of input"
