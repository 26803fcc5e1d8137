"""Referring instead of copying: readers find in the dataset exactly what the provider's files hold."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cloudpickle
import icechunk
import netCDF4
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

from demo import provider
from feedstock_forge.bake import Provenance, bake, bake_virtual, coming_from
from feedstock_forge.bake.fetch import fetching
from feedstock_forge.bake.virtual import References
from feedstock_forge.findings import Refused
from support import faults

DAILY = provider.in_chunks(1)


@pytest.fixture(scope="module")
def ocean(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four months of the demonstration's ocean, a chunk a day."""
    return provider.write_inputs(tmp_path_factory.mktemp("ocean"), 4, "%Y-%m.nc", encoding=DAILY)


@pytest.fixture
def served(served: faults.Provider, monkeypatch: pytest.MonkeyPatch) -> faults.Provider:
    """The files as a public bucket, on a server of this machine."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", served.url)
    monkeypatch.setenv("AWS_REGION", "nowhere")
    return served


def urls(paths: list[Path]) -> list[str]:
    return [str(path) for path in paths]


def reader(target: str, *allowed: str, **version: str) -> xr.Dataset:
    """The dataset as a reader opens it who allows access to these prefixes."""
    storage = icechunk.local_filesystem_storage(target)
    leave = {prefix: icechunk.s3_anonymous_credentials() if prefix.startswith("s3") else None for prefix in allowed}
    repository = icechunk.Repository.open(
        storage, authorize_virtual_chunk_access=icechunk.containers_credentials(leave)
    )
    session = repository.readonly_session(**(version or {"branch": "main"}))
    return xr.open_zarr(session.store, consolidated=False, chunks=None)


def holds(target: str, paths: list[Path], *allowed: str) -> None:
    with (
        xr.open_mfdataset(paths, data_vars="all", chunks=None) as whole,  # type: ignore[arg-type]
        reader(target, *allowed) as found,
    ):
        xr.testing.assert_equal(found.load(), whole.load())
        assert all(found[name].attrs == whole[name].attrs for name in found.data_vars)


def refusal(call: Callable[[], Any]) -> Refused:
    with pytest.raises(Refused) as caught:
        call()
    assert all(finding.fix for finding in caught.value.findings)
    return caught.value


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class TestReferences:
    def test_lead_readers_of_a_bucket_to_what_the_files_hold(
        self, ocean: list[Path], served: faults.Provider, tmp_path: Path
    ) -> None:
        target = str(tmp_path / "ocean.icechunk")
        bake_virtual([f"s3://bucket/{path.name}" for path in ocean], target, concat_dim="time")
        asked = [span for spans in served.requests.values() for span in spans]
        assert asked
        assert all(asked), "nobody fetched a whole file"
        holds(target, ocean, "s3://bucket/")
        size = sum(path.stat().st_size for path in (tmp_path / "ocean.icechunk").rglob("*") if path.is_file())
        assert size < sum(path.stat().st_size for path in ocean) / 15
        assert [path.name for path in tmp_path.iterdir()] == ["ocean.icechunk"]

    def test_lead_to_files_of_this_machine_for_readers_who_allow_it(self, ocean: list[Path], tmp_path: Path) -> None:
        target = str(tmp_path / "ocean.icechunk")
        bake_virtual(iter(ocean), Path(target), concat_dim="time")
        holds(target, ocean, f"file://{ocean[0].parent}/")
        with reader(target) as refused:
            assert refused.time.size == 120, "what is copied needs no leave"
            with pytest.raises(icechunk.IcechunkError, match="authorize the virtual"):
                refused.sst.load()

    def test_lead_to_files_whose_names_mean_something_in_urls(
        self, ocean: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "a#b?c%20d"
        folder.mkdir()
        names = ["e#f.nc", "g?h.nc", "i%23j.nc", "k;l ü.nc"]
        for name, path in zip(names, ocean, strict=True):
            shutil.copy(path, folder / name)
            shutil.copy(path, tmp_path / quote(name))  # as the server knows it
        target = str(tmp_path / "files.icechunk")
        monkeypatch.chdir(folder)
        inputs = [f"../{folder.name}/{names[0]}", *((folder / name).as_uri() for name in names[1:])]
        bake_virtual(inputs, target, concat_dim="time")
        holds(target, ocean, f"file://{tmp_path}/")
        with faults.serve(tmp_path) as served:
            monkeypatch.setenv("AWS_ENDPOINT_URL", served.url)
            monkeypatch.setenv("AWS_REGION", "nowhere")
            keys = [name for name in names if "?" not in name]
            target = str(tmp_path / "keys.icechunk")
            bake_virtual([f"s3://bucket/{key}" for key in keys], target, concat_dim="time")
            holds(target, [tmp_path / quote(key) for key in keys], "s3://bucket/")

    def test_are_appended_by_an_update_that_asks_for_nothing_else(
        self, ocean: list[Path], served: faults.Provider, tmp_path: Path
    ) -> None:
        target = str(tmp_path / "ocean.icechunk")
        bake_virtual(urls(ocean[:2]), target, concat_dim="time", mode="update")
        moved = [*urls(ocean[:2]), *(f"s3://bucket/{path.name}" for path in ocean[2:])]
        bake_virtual(moved, target, concat_dim="time", mode="update")
        assert sorted(served.requests) == [path.name for path in ocean[2:]]
        holds(target, ocean, f"file://{ocean[0].parent}/", "s3://bucket/")
        before = tree(tmp_path)
        bake_virtual(moved, target, concat_dim="time", mode="update")
        assert tree(tmp_path) == before
        refused = refusal(lambda: bake_virtual(urls(ocean[1:]), target, concat_dim="time", mode="update"))
        assert refused.findings[0].id == "inputs-changed"

    def test_are_tagged_with_the_release_and_say_where_they_come_from(self, ocean: list[Path], tmp_path: Path) -> None:
        target = str(tmp_path / "ocean.icechunk")
        with coming_from(Provenance("ocean", "daily", "forge/ocean-feedstock", "c0ffee", "v1.0.0", "complete")):
            bake_virtual(urls(ocean[:2]), target, concat_dim="time")
        bake_virtual(urls(ocean), target, concat_dim="time", mode="update")
        released = reader(target, f"file://{ocean[0].parent}/", tag="v1.0.0")
        assert released.attrs["feedstock_provenance"]["commit"] == "c0ffee"
        assert released.sst.load().sizes["time"] == 59

    def test_survive_renaming_and_dropping_but_not_computing(self, ocean: list[Path], tmp_path: Path) -> None:
        target = str(tmp_path / "ocean.icechunk")

        def tidy(ds: xr.Dataset) -> xr.Dataset:
            return ds.drop_vars("ice").rename(sst="temperature").assign_attrs(note="tidy")

        bake_virtual(urls(ocean), target, concat_dim="time", preprocess=tidy)
        with reader(target, f"file://{ocean[0].parent}/") as found, xr.open_dataset(ocean[1]) as second:
            assert set(found.data_vars) == {"temperature"}
            assert found.attrs["note"] == "tidy"
            np.testing.assert_array_equal(found.temperature[31:59], second.sst)
        before = tree(tmp_path)
        for computed in (lambda ds: ds.assign(sst=ds.sst + 273.15), lambda ds: ds.isel(lat=slice(1, None))):
            call = lambda computed=computed: bake_virtual(urls(ocean), target, concat_dim="time", preprocess=computed)  # noqa: E731
            assert {finding.id for finding in refusal(call).findings} == {"virtual-computed"}
        assert tree(tmp_path) == before

    def test_convert_times_and_keep_big_numbers(self, tmp_path: Path) -> None:
        paths = []
        for month in range(1, 4):
            ds = xr.Dataset(
                {
                    "v": (("time", "x"), np.arange(month * 100.0, month * 100 + 12).reshape(4, 3)),
                    "time_bnds": (("time", "bnds"), np.array([[f"2001-{month:02}-01"] * 2] * 4, "M8[ns]")),
                    "flag": (("time", "x"), np.full((4, 3), month, "int16")),
                },
                {"time": xr.date_range(f"2001-{month:02}-01", periods=4)},
            )  # fmt: skip
            ds.time.encoding = ds.time_bnds.encoding = {"units": f"hours since 2001-{month:02}-01", "dtype": "int32"}
            encoding: Any = {"v": {"dtype": ">f8", "chunksizes": (2, 3)}, "flag": {"fletcher32": False}}
            paths.append(tmp_path / f"{month}.nc")
            ds.to_netcdf(paths[-1], engine="netcdf4", encoding=encoding)
        target = str(tmp_path / "v.icechunk")
        bake_virtual(urls(paths), target, concat_dim="time")
        with (
            xr.open_mfdataset(paths, data_vars="all", chunks=None) as whole,
            reader(target, f"file://{tmp_path}/") as found,
        ):  # type: ignore[arg-type]
            xr.testing.assert_equal(found.load(), whole.load())

    def test_to_a_file_that_changed_fail_instead_of_reading_something_else(
        self, ocean: list[Path], tmp_path: Path
    ) -> None:
        copies = []
        (tmp_path / "my files").mkdir()
        for path in ocean[:2]:
            copies.append(tmp_path / "my files" / path.name)
            copies[-1].write_bytes(path.read_bytes())
        target = str(tmp_path / "ocean.icechunk")
        bake_virtual(urls(copies), target, concat_dim="time")
        later = time.time() + 60
        os.utime(copies[0], (later, later))
        with reader(target, f"file://{tmp_path}/") as found, pytest.raises(icechunk.IcechunkError, match="has changed"):
            found.sst[0].load()


class TestInputs:
    @pytest.mark.parametrize(
        ("finding", "change"),
        [
            ("virtual-chunks", {"chunksizes": (1, 9, 90)}),
            ("virtual-chunks", {"zlib": False}),
            ("virtual-chunks", {"zlib": False, "shuffle": False, "chunksizes": None}),
            ("input-encoding-differs", {"dtype": "int32"}),
        ],
    )
    def test_that_are_stored_otherwise_are_refused(
        self, ocean: list[Path], tmp_path: Path, finding: str, change: dict[str, Any]
    ) -> None:
        odd = tmp_path / "odd.nc"
        encoding = DAILY | {"sst": DAILY["sst"] | change}
        provider.month(provider.MONTHS[1]).to_netcdf(odd, engine="h5netcdf", encoding=encoding)
        call = lambda: bake_virtual([str(ocean[0]), str(odd)], str(tmp_path / "o.icechunk"), concat_dim="time")  # noqa: E731
        refused = refusal(call)
        assert {found.id for found in refused.findings} == {finding}
        assert all(str(odd) in found.message for found in refused.findings)
        assert [path.name for path in tmp_path.iterdir()] == ["odd.nc"]

    def test_whose_chunks_do_not_fill_them_are_refused_unless_they_are_last(self, tmp_path: Path) -> None:
        monthly = provider.in_chunks(31)
        paths = provider.write_inputs(tmp_path, 3, "%Y-%m.nc", unlimited_dims=["time"], encoding=monthly)
        target = str(tmp_path / "ocean.icechunk")
        bake_virtual(urls(paths[:2]), target, concat_dim="time")
        holds(target, paths[:2], f"file://{tmp_path}/")
        before = tree(tmp_path / "ocean.icechunk")
        for mode, whose in (("complete", str(paths[1])), ("update", "the published dataset")):
            refused = refusal(lambda mode=mode: bake_virtual(urls(paths), target, concat_dim="time", mode=mode))
            assert {finding.id for finding in refused.findings} == {"virtual-chunks"}
            assert whose in refused.findings[0].message
        assert tree(tmp_path / "ocean.icechunk") == before

    def test_that_do_not_fit_are_refused_as_by_bake(self, ocean: list[Path], tmp_path: Path) -> None:
        target = str(tmp_path / "ocean.icechunk")
        swapped = [ocean[1], ocean[0]]
        assert refusal(lambda: bake_virtual(urls(swapped), target, concat_dim="time")).findings[0].id == (
            "input-time-overlaps"
        )
        with xr.open_dataset(ocean[1], decode_cf=False) as raw:
            changes: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
                "input-grid-differs": lambda ds: ds.isel(lat=slice(None, None, 2)),
                "input-variables-differ": lambda ds: ds.drop_vars("ice"),
                "input-encoding-differs": lambda ds: ds.assign_coords(time=ds.time.assign_attrs(calendar="noleap")),
                "input-time-unsorted": lambda ds: ds.isel(time=[0, 1, 1, 2]),
            }
            for finding, change in changes.items():
                odd = tmp_path / f"{finding}.nc"
                made = change(raw.load())
                for name in ("sst", "ice"):
                    if name in made:
                        made[name].encoding = {"chunksizes": (1, *made[name].shape[1:]), "zlib": True, "shuffle": True}
                made.to_netcdf(odd, engine="h5netcdf")
                call = lambda odd=odd: bake_virtual([str(ocean[0]), str(odd)], target, concat_dim="time")  # noqa: E731
                assert {found.id for found in refusal(call).findings} == {finding}
        assert not list(tmp_path.glob("ocean*"))

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
    def test_that_a_provider_does_not_give_are_named(
        self, ocean: list[Path], served: faults.Provider, tmp_path: Path, answer: str, finding: str
    ) -> None:
        served.always = {ocean[1].name: answer}
        inputs = [f"s3://bucket/{path.name}" for path in ocean[:3]]
        refused = refusal(lambda: bake_virtual(inputs, str(tmp_path / "ocean.icechunk"), concat_dim="time"))
        assert [found.id for found in refused.findings] == [finding]
        assert f"s3://bucket/{ocean[1].name}" in refused.findings[0].message
        assert not list(tmp_path.iterdir())

    def test_of_a_provider_that_flaps_are_asked_for_again(
        self, ocean: list[Path], served: faults.Provider, tmp_path: Path
    ) -> None:
        served.answers = {ocean[0].name: ["503", "429 0"], ocean[1].name: ["slow"]}
        bake_virtual([f"s3://bucket/{path.name}" for path in ocean], str(tmp_path / "o.icechunk"), concat_dim="time")
        holds(str(tmp_path / "o.icechunk"), ocean, "s3://bucket/")

    def test_that_cannot_be_referred_to_are_refused(self, ocean: list[Path], tmp_path: Path) -> None:
        target = str(tmp_path / "ocean.icechunk")
        old = tmp_path / "old.nc"
        provider.month(provider.MONTHS[0]).to_netcdf(old, format="NETCDF3_CLASSIC", engine="netcdf4")
        for url, finding in {
            str(old): "virtual-not-referable",
            str(tmp_path / "none.nc"): "input-missing",
            "https://example.org/a.nc?key=secret": "virtual-url-private",
            "https://user:secret@example.org/a.nc": "virtual-url-private",
            "https://example.org:8443/a.nc": "virtual-not-referable",
            "ftp://example.org/a.nc": "input-protocol-unknown",
            "https://example.org:port/a.nc": "input-protocol-unknown",
            "https://[::1/a.nc": "input-protocol-unknown",
            "https:///a.nc": "input-protocol-unknown",
        }.items():
            refused = refusal(lambda url=url: bake_virtual([url], target, concat_dim="time"))
            assert [found.id for found in refused.findings] == [finding]
            assert "secret" not in str(refused)
        call = lambda: bake_virtual(urls(ocean), str(tmp_path / "ocean.zarr"), concat_dim="time")  # noqa: E731
        assert refusal(call).findings[0].id == "virtual-needs-icechunk"
        assert [path.name for path in tmp_path.iterdir()] == ["old.nc"]

    def test_that_end_before_their_dimensions_do_are_refused(self, tmp_path: Path) -> None:
        """As netCDF's library leaves them along an unlimited dimension: it reads on with fill values."""
        paths = []
        for number, (steps, written) in enumerate([(2, 2), (2, 1), (2, 0), (0, 0)]):
            paths.append(tmp_path / f"{number}.nc")
            with netCDF4.Dataset(paths[-1], "w") as file:
                file.createDimension("time", None)
                file.createDimension("x", 3)
                time = file.createVariable("time", "i4", ("time",))
                time.units = f"days since 2000-01-0{1 + 2 * number}"
                time[:] = range(steps)
                for name, count in {"v": steps, "q": written}.items():
                    variable = file.createVariable(name, "f4", ("time", "x"), chunksizes=(1, 3))
                    variable[:count] = np.full((count, 3), number)
        target = str(tmp_path / "v.icechunk")
        for inputs in (paths, paths[3:], paths[::-1]):
            findings = refusal(lambda inputs=inputs: bake_virtual(urls(inputs), target, concat_dim="time")).findings
            assert {finding.id for finding in findings} == {"virtual-not-referable"}
            said = {
                f"`q` of {paths[1]} was written for 1 of the 2 steps of `time`",
                f"`q` of {paths[2]} was written for 0 of the 2 steps of `time`",
                f"{paths[3]} holds nothing along `time`",
            }
            assert {finding.message.replace("file://", "") for finding in findings} <= said
            assert len(findings) == min(3, len(inputs))
            assert all("copy the data" in finding.fix for finding in findings)
        bake(urls(paths), target, concat_dim="time")  # which reads them as netCDF's library does

    def test_may_hold_variables_without_values(self, tmp_path: Path) -> None:
        values = {"v": (("time", "x"), np.ones((2, 3))), "none": (("time", "n"), np.zeros((2, 0)))}
        xr.Dataset(values, {"time": [0, 1]}).to_netcdf(  # type: ignore[arg-type]
            tmp_path / "a.nc", engine="h5netcdf", unlimited_dims=["time", "n"]
        )
        target = str(tmp_path / "v.icechunk")
        bake_virtual([str(tmp_path / "a.nc")], target, concat_dim="time")
        with reader(target, f"file://{tmp_path}/") as found:
            assert found.none.shape == (2, 0)

    def test_are_not_appended_to_a_dataset_that_holds_copies(self, ocean: list[Path], tmp_path: Path) -> None:
        target = str(tmp_path / "ocean.icechunk")
        bake(urls(ocean[:2]), target, concat_dim="time", chunks={"time": 1})
        before = tree(tmp_path)
        refused = refusal(lambda: bake_virtual(urls(ocean), target, concat_dim="time", mode="update"))
        assert {finding.id for finding in refused.findings} == {"virtual-chunks"}
        assert tree(tmp_path) == before
        bake_virtual(urls(ocean), target, concat_dim="time")
        holds(target, ocean, f"file://{ocean[0].parent}/")


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten days each, with times and a number a day besides what is referred to."""
    paths, folder = [], tmp_path_factory.mktemp("observed")
    for number in range(6):
        days = np.arange(10 * number, 10 * number + 10)
        units = {"units": "days since 2000-01-01"}
        variables: dict[str, Any] = {
            "v": (("time", "x"), np.stack([days, -days], 1).astype("float32")),
            "bounds": (("time", "two"), np.stack([days, days + 1], 1), units),
            "flag": ("time", days % 3),
        }
        paths.append(folder / f"{number}.nc")
        xr.Dataset(variables, {"time": ("time", days, units)}).to_netcdf(
            paths[-1], engine="h5netcdf", encoding={"v": {"chunksizes": (1, 2)}}
        )
    return paths


@pytest.fixture(scope="class")
def workers() -> Iterator[set[int]]:
    """The processes of the workers."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield set(client.run(os.getpid).values())


class TestOnACluster:
    def test_the_workers_look_and_tell_all_that_is_wrong_at_once(
        self, observed: list[Path], workers: set[int], tmp_path: Path
    ) -> None:
        notes, place = tmp_path / "notes", f"file://{observed[0].parent}/"
        notes.mkdir()

        def noting(ds: xr.Dataset) -> xr.Dataset:
            (notes / f"{os.getpid()} {int(ds.v[0, 0])}").touch()
            return ds

        target = str(tmp_path / "v.icechunk")
        bake_virtual(observed[:4], target, concat_dim="time", preprocess=noting)
        looked = defaultdict(set)
        for note in notes.iterdir():
            pid, first = note.name.split()
            looked[int(pid)].add(first)
        assert looked.pop(os.getpid()) == {"0", "30"}, "read back: the first and the last"
        assert set.union(*looked.values()) == {"0", "10", "20", "30"}
        assert looked.keys() <= workers
        holds(target, observed[:4], place)
        bake_virtual(observed, target, concat_dim="time", mode="update")
        holds(target, observed, place)
        (tmp_path / "page.nc").write_text("<html>")
        (tmp_path / "half.nc").write_bytes(observed[1].read_bytes()[:4000])
        inputs = [*observed[:4], *(tmp_path / name for name in ("page.nc", "half.nc", "none.nc"))]
        refused = refusal(lambda: bake_virtual(inputs, tmp_path / "other.icechunk", concat_dim="time"))
        assert {finding.id for finding in refused.findings} == {"input-not-netcdf", "input-truncated", "input-missing"}
        assert not (tmp_path / "other.icechunk").exists()

    def test_a_worker_looks_again_at_what_another_has_looked_at(self, observed: list[Path], tmp_path: Path) -> None:
        moving = tmp_path / "moving.nc"
        shutil.copy(observed[0], moving)
        stop = threading.Event()
        with fetching(stop) as fetcher:
            bakes = References([str(moving)], "time", None, fetcher, stop)
            bakes.fetch()
            bakes.take(bakes.known(0))
            others = [pickle.loads(cloudpickle.dumps(bakes)) for _ in range(2)]  # noqa: S301
        for other in others:
            assert not hasattr(other, "sources"), "they may be large"
            other.sources = {}
        assert others[0].open(0).values("flag", {}).tolist() == [day % 3 for day in range(10)]
        shutil.copy(observed[1], moving)
        assert refusal(lambda: others[1].open(0)).findings[0].id == "input-replaced"


OVER_HTTP = """
import fcntl, http.server, socket, struct, sys, threading
from pathlib import Path
with socket.socket() as end:  # a network of our own, whose one interface is down at first
    fcntl.ioctl(end, 0x8914, struct.pack("16sh14x", b"lo", 1))
import test_bake_virtual as tests
from feedstock_forge.bake import bake_virtual
from support import faults
files = sorted(Path(sys.argv[1]).glob("*.nc"))
with faults.serve(files[0].parent, port=80):
    names = [path.name.replace("-", "%2D") for path in files]
    bake_virtual([f"http://127.0.0.1/ocean/{name}" for name in names], sys.argv[2], concat_dim="time")
    tests.holds(sys.argv[2], files, "http://127.0.0.1/")
with faults.serve(files[0].parent, port=80) as served:
    served.always = {files[0].name: "whole"}
    try:
        bake_virtual([f"http://127.0.0.1/ocean/{path.name}" for path in files], sys.argv[2], concat_dim="time")
    except tests.Refused as refused:
        print(refused)
"""


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "--map-root-user", "--net", "true"]).returncode != 0,
    reason="needs port 80, since Icechunk 1 keeps no other, and so a network of its own",
)
def test_references_lead_over_http(ocean: list[Path], tmp_path: Path) -> None:
    here = Path(__file__).parent
    program = [sys.executable, "-c", OVER_HTTP, str(ocean[0].parent), str(tmp_path / "ocean.icechunk")]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", *program],
        env={**os.environ, "PYTHONPATH": f"{here.parent}:{here}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("virtual-not-referable: the server of http://127.0.0.1/ocean/2022-01.nc only")


@pytest.mark.slow
def test_a_kill_at_any_moment_never_shows_a_reader_half_a_dataset(ocean: list[Path], tmp_path: Path) -> None:
    target = str(tmp_path / "out" / "ocean.icechunk")
    allowed = f"file://{ocean[0].parent}/"
    lengths = {59: None, 120: None}
    bake_virtual(urls(ocean[:2]), target, concat_dim="time")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["feedstock_forge.bake.virtual", "virtualizarr.parsers", "obstore"])
    moments = random.Random(9)  # noqa: S311 - no secret
    for number in range(20):
        run = context.Process(
            target=bake_virtual, args=(urls((ocean, ocean[:2])[number % 2]), target), kwargs={"concat_dim": "time"}
        )
        run.start()
        killed_at = time.monotonic() + moments.uniform(0.05, 0.7)
        while run.is_alive() and time.monotonic() < killed_at:
            with reader(target, allowed) as found:
                assert found.sizes["time"] in lengths, f"run {number}"
                assert found.sst[-1].shape == found.sst[-1].load().shape
        run.kill()
        run.join()
    bake_virtual(urls(ocean), target, concat_dim="time")
    holds(target, ocean, allowed)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ocean.icechunk"]
