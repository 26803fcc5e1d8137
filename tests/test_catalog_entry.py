"""A released dataset is described as valid STAC, beside it and in its target's catalog, whatever goes wrong."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import pystac
import pytest
import xarray as xr
from obstore.store import MemoryStore

from conftest import Command
from demo import provider
from feedstock_forge import catalog, meta
from feedstock_forge.bake import Provenance, bake, bake_virtual, coming_from
from feedstock_forge.catalog import dataset, entry, opening, sources, storage, validate
from feedstock_forge.cli import feedstock
from feedstock_forge.findings import Refused
from support import feedstocks


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return provider.write_inputs(tmp_path_factory.mktemp("inputs"), 3, "%Y-%m.nc", encoding=provider.in_chunks(1))


@pytest.fixture
def declared(tmp_path: Path) -> meta.Meta:
    return meta.read(feedstocks.make(tmp_path / "server", "ocean").folder).meta


def release(
    target: Path, inputs: list[Path], version: str, store: str = "icechunk", mode: str = "complete"
) -> Provenance:
    """Bake as a worker does; returns what the run was."""
    commit = version if mode == "update" else f"{len(inputs):040x}"
    made = Provenance("ocean", "sst", "pangeo-forge/ocean-feedstock", commit, version, mode, f"run-of-{version}")
    with coming_from(made):
        bake([str(path) for path in inputs], url(target, store), concat_dim="time", mode=mode)
    return made


def url(target: Path, store: str = "icechunk") -> str:
    return f"{target}/ocean/v1/sst.{store}"


def documents(folder: Path) -> dict[str, Any]:
    return {path.name: json.loads(path.read_text()) for path in sorted(folder.iterdir())}


def ids(call: Callable[[], object]) -> set[str]:
    with pytest.raises(Refused) as refused:
        call()
    return {finding.id for finding in refused.value.findings}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("this needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("store", ["icechunk", "zarr"])
def test_a_release_is_described_from_its_meta_yaml_and_from_the_dataset_itself(
    declared: meta.Meta, inputs: list[Path], tmp_path: Path, no_network: None, store: str
) -> None:
    made = release(tmp_path, inputs, "v1.0.0", store)
    assert catalog.record(declared, made, url(tmp_path, store)) is None
    here = documents(tmp_path / "catalog/ocean/v1/sst")
    assert here == documents(tmp_path / "ocean/v1/sst.stac")
    assert sorted(here) == ["collection.json", "v1.0.0.json"]
    assert [validate.problem(document) for document in here.values()] == [None, None]

    collection = pystac.Collection.from_file(str(tmp_path / "catalog/ocean/v1/sst/collection.json"))
    assert (collection.title, collection.license) == ("Sea surface temperature", "CC-BY-4.0")
    assert [one.name for one in collection.providers or []] == ["NOAA"]
    assert collection.extent.spatial.bboxes == [[-180.0, -88.0, 180.0, 88.0]]
    ((start, end),) = collection.extent.temporal.intervals
    assert (f"{start:%Y-%m-%d %H}", f"{end:%Y-%m-%d %H}") == ("2022-01-01 12", "2022-03-31 12")
    (item,) = collection.get_items()
    variable = item.properties["cube:variables"]["sst"]
    assert (variable["unit"], variable["shape"]) == ("degree_Celsius", [90, 45, 90])
    with provider.open_dataset(url(tmp_path, store)) as opened:
        assert variable["chunks"] == list(opened.sst.encoding["chunks"])
    assert item.properties["feedstock:inputs"]["count"] == 3
    asset = item.assets["data"]
    assert asset.href == url(tmp_path, store)
    assert asset.extra_fields.get("icechunk:tag") == ("v1.0.0" if store == "icechunk" else None)
    stored = sum(path.stat().st_size for path in Path(url(tmp_path, store)).rglob("*") if path.is_file())
    assert asset.extra_fields["feedstock:bytes_stored"] == stored
    assert asset.extra_fields["xarray:open_kwargs"]["consolidated"] is (store == "zarr")


def test_each_run_stands_once_in_the_history_and_each_release_that_can_be_opened_is_an_item(
    declared: meta.Meta, inputs: list[Path], tmp_path: Path
) -> None:
    for count, version in ((2, "v1.0.0"), (2, "v1.0.0"), (3, "v1.1.0")):
        assert catalog.record(declared, release(tmp_path, inputs[:count], version), url(tmp_path)) is None
    collection = documents(tmp_path / "catalog/ocean/v1/sst")["collection.json"]
    runs = [(run["version"], run["run"], run["inputs"]["count"]) for run in collection["feedstock:runs"]]
    assert runs == [("v1.0.0", "run-of-v1.0.0", 2), ("v1.1.0", "run-of-v1.1.0", 3)]
    assert entry.item_names(collection) == ["v1.0.0.json", "v1.1.0.json"]
    older = pystac.Item.from_file(str(tmp_path / "catalog/ocean/v1/sst/v1.0.0.json"))
    code = (older.assets["data"].description or "").split("```")[1].removeprefix("python\n")
    found: dict[str, Any] = {}
    exec(code, found)  # noqa: S102 - it is there to be run
    assert found["ds"].sizes["time"] == 59


def test_a_virtual_dataset_is_described_and_opened_with_leave_to_read_its_files(
    declared: meta.Meta, inputs: list[Path], tmp_path: Path
) -> None:
    bake_virtual([str(path) for path in inputs], url(tmp_path), concat_dim="time")
    assert catalog.record(declared, Provenance("ocean", "sst", version="v1.0.0"), url(tmp_path)) is None
    data = documents(tmp_path / "catalog/ocean/v1/sst")["v1.0.0.json"]["assets"]["data"]
    assert data["feedstock:refers_to"] == [f"file://{inputs[0].parent}/"]
    found: dict[str, Any] = {}
    exec(data["description"].split("```")[1].removeprefix("python\n"), found)  # noqa: S102 - it is there to be run
    with xr.open_dataset(inputs[0]) as first:
        assert found["ds"].sst[:31].load().equals(first.sst.load())


def test_plain_zarr_keeps_the_item_of_the_newest_release_only(
    declared: meta.Meta, inputs: list[Path], tmp_path: Path
) -> None:
    for count, version in ((2, "v1.0.0"), (3, "v1.1.0")):
        assert (
            catalog.record(declared, release(tmp_path, inputs[:count], version, "zarr"), url(tmp_path, "zarr")) is None
        )
    for folder in ("catalog/ocean/v1/sst", "ocean/v1/sst.stac"):
        assert sorted(documents(tmp_path / folder)) == ["collection.json", "v1.1.0.json"]
        assert len(documents(tmp_path / folder)["collection.json"]["feedstock:runs"]) == 2


def test_an_entry_that_cannot_be_written_is_said_and_nothing_more(
    declared: meta.Meta, inputs: list[Path], tmp_path: Path
) -> None:
    made = release(tmp_path, inputs[:1], "v1.0.0")
    (tmp_path / "catalog").write_text("somebody's file")
    said = catalog.record(declared, made, url(tmp_path))
    assert said is not None
    assert said.id == "catalog-entry-failed"
    assert "catalog-storage" in said.message
    assert f"feedstock catalog entry {url(tmp_path)}" in said.fix
    missing = catalog.record(declared, made, f"{tmp_path}/ocean/v1/other.icechunk")
    assert missing is not None
    assert "catalog-dataset-unreadable" in missing.message


def test_a_broken_entry_gives_way_to_a_good_one_and_the_history_comes_back_from_its_copy(
    declared: meta.Meta, inputs: list[Path], tmp_path: Path
) -> None:
    catalog.record(declared, release(tmp_path, inputs[:1], "v1.0.0"), url(tmp_path))
    collection = tmp_path / "catalog/ocean/v1/sst/collection.json"
    collection.write_text(collection.read_text()[:100])
    found = sources.check([sources.Source(str(tmp_path))])
    assert {finding.id for finding in found.findings} == {"catalog-entry-broken", "catalog-entry-missing"}
    assert catalog.record(declared, release(tmp_path, inputs[:2], "v1.1.0"), url(tmp_path)) is None
    assert [run["version"] for run in json.loads(collection.read_text())["feedstock:runs"]] == ["v1.0.0", "v1.1.0"]
    assert sources.check([sources.Source(str(tmp_path))]).findings == []


COUNT_UP = """
import sys
from feedstock_forge.catalog import storage
for _ in range(40):
    storage.Folder(sys.argv[1]).update("a/count.json", lambda before: str(int(before or 0) + 1).encode())
"""


def test_two_runs_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", COUNT_UP, str(tmp_path)]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert (tmp_path / "a/count.json").read_text() == "80"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["count.json"]


def test_in_an_object_store_an_update_that_came_between_is_not_lost() -> None:
    ours, theirs = storage.Folder("s3://bucket/x"), storage.Folder("s3://bucket/x")
    ours._store = theirs._store = MemoryStore()

    def change(before: bytes | None) -> bytes:
        # Twice somebody else is faster: when there is no file yet, and when there is one.
        if before in (None, b"a"):
            theirs.write("count", b"a" if before is None else b"ab")
        return (before or b"") + b"c"

    assert ours.update("count", change) == b"abc"
    assert theirs.read("count") == b"abc"


class TestByHand:
    def test_the_newest_release_is_described_though_a_merge_came_after_it(
        self, command: Command, inputs: list[Path], tmp_path: Path
    ) -> None:
        folder = feedstocks.make(tmp_path / "server", "ocean").folder
        release(tmp_path, inputs[:2], "v1.0.0")
        release(tmp_path, inputs, "f" * 40, mode="update")
        done = command("catalog", "entry", "ocean/v1/sst.icechunk", "-C", folder, cwd=tmp_path)
        assert done.stdout.strip() == str(tmp_path / "catalog/ocean/v1/sst")
        here = documents(tmp_path / "catalog/ocean/v1/sst")
        assert here["v1.0.0.json"]["properties"]["end_datetime"].startswith("2022-02-28")
        assert here["collection.json"]["feedstock:runs"][0]["version"] == "v1.0.0"
        assert command("catalog", "check", ".", cwd=tmp_path).stdout == "1 entry checked, 0 findings\n"

    @pytest.mark.parametrize(
        ("named", "wrong"),
        [
            ("x.zarr", "catalog-dataset-misplaced"),
            ("lake/v1/sst.zarr", "catalog-dataset-other"),
            ("ocean/v2/sst.zarr", "catalog-dataset-other"),
            ("ocean/v1/ice.zarr", "catalog-dataset-other"),
            ("ocean/v1/sst.zarr", "catalog-dataset-unreadable"),
            ("ftp://x/ocean/v1/sst.zarr", "catalog-storage-unknown"),
            ("ocean/v1/sst.icechunk", "catalog-dataset-unreleased"),
        ],
    )
    def test_what_is_wrong_is_refused_before_anything_is_written(
        self, inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, wrong: str
    ) -> None:
        folder = feedstocks.make(tmp_path / "server", "ocean").folder
        release(tmp_path, inputs[:1], "e" * 40, mode="update")
        monkeypatch.chdir(tmp_path)
        arguments = ["catalog", "entry", f"./{named}" if "://" not in named else named, "-C", str(folder)]
        assert ids(lambda: feedstock.main(arguments, standalone_mode=False)) == {wrong}
        assert not (tmp_path / "catalog").exists()


def test_a_store_that_could_run_code_when_it_is_read_is_not_read(declared: meta.Meta, tmp_path: Path) -> None:
    target = url(tmp_path, "zarr")
    xr.Dataset({"v": ("x", [1.0, 2.0])}).to_zarr(target, zarr_format=2)
    assert ids(lambda: entry.write(declared, Provenance("ocean", "sst", version="v1"), target)) == {
        "catalog-dataset-unreadable"
    }


class TestExtents:
    @pytest.mark.parametrize(
        ("lon", "box"),
        [
            (np.arange(0.5, 360), (-180.0, 180.0)),
            (np.arange(-179.5, 180), (-180.0, 180.0)),
            (np.arange(170, 191.0), (170.0, -170.0)),
            (np.arange(-20, 31.0), (-20.0, 30.0)),
            (np.arange(340, 391.0), (-20.0, 30.0)),
            (np.array([200.0]), (-160.0, -160.0)),
        ],
    )
    def test_longitudes_are_as_geojson_has_them(self, lon: np.ndarray, box: tuple[float, float]) -> None:
        found = dataset.describe(grid(lon=lon)).bbox
        assert found is not None
        assert (found[0], found[2]) == box

    def test_a_dataset_of_no_place_and_no_time_has_a_valid_entry_too(self, declared: meta.Meta, tmp_path: Path) -> None:
        target = url(tmp_path, "zarr")
        xr.Dataset({"v": ("station", [1.0, 2.0], {"units": 3})}, {"station": ["a", "b"]}).to_zarr(target, zarr_format=3)
        entry.write(declared, Provenance("ocean", "sst", version="v1"), target)
        collection = documents(tmp_path / "catalog/ocean/v1/sst")["collection.json"]
        assert collection["feedstock:extent_unknown"] is True
        assert collection["cube:dimensions"] == {"station": {"type": "label", "values": ["a", "b"]}}

    def test_attributes_of_discovery_stand_in_for_coordinates(self) -> None:
        keys = ("geospatial_lon_min", "geospatial_lat_min", "geospatial_lon_max", "geospatial_lat_max")
        named = xr.Dataset(attrs=dict(zip(keys, ("350", "-10", "10", "10"), strict=True)))
        assert dataset.describe(named).bbox == (-10.0, -10.0, 10.0, 10.0)

    def test_times_of_another_calendar_become_days_that_everybody_has(self) -> None:
        times = [cftime.Datetime360Day(2000, 1, 1), cftime.Datetime360Day(2001, 2, 30)]
        found = dataset.describe(xr.Dataset(coords={"time": ("time", times, {"standard_name": "time"})}))
        assert (found.start, found.end, found.calendar) == ("2000-01-01T00:00:00Z", "2001-02-28T00:00:00Z", "360_day")

    def test_a_grid_with_two_dimensional_coordinates_has_its_box(self) -> None:
        lat, lon = np.meshgrid(np.arange(40, 50.0), np.arange(5, 15.0), indexing="ij")
        found = xr.Dataset(
            {"v": (("y", "x"), lat)},
            {"lat": (("y", "x"), lat, {"units": "degrees_north"}), "lon": (("y", "x"), lon, {"units": "degrees_east"})},
        )
        assert dataset.describe(found).bbox == (5.0, 40.0, 14.0, 49.0)
        assert [name for name, _, _ in dataset.gridded(found)] == ["v"]


def grid(**coords: np.ndarray) -> xr.Dataset:
    units = {"lat": "degrees_north", "lon": "degrees_east"}
    coords = {"lat": np.array([0.0, 1.0]), **coords}
    return xr.Dataset(coords={name: (name, values, {"units": units[name]}) for name, values in coords.items()})


@pytest.mark.parametrize(
    "document",
    [
        {"type": "Collection", "stac_version": "1.1.0", "id": "x"},
        {"type": "Collection", "stac_version": "0.9.0"},
        {"type": "Feature", "stac_version": "1.1.0", "stac_extensions": ["https://example.org/other.json"]},
        {"type": "House"},
        ["no object"],
    ],
)
def test_what_is_not_valid_stac_is_told_without_a_network(document: Any, no_network: None) -> None:
    assert validate.problem(document)


@pytest.mark.parametrize("name", ['it"s', "it's", "'\"", "é\n", "{x}", '"""); import os; ("""'])
def test_code_to_open_a_dataset_is_one_expression_whatever_the_names_are(name: str) -> None:
    code = opening.code(f"/data/{name}/v1/x.icechunk", tag=name)
    read = {}
    for line in compile(code, "code", "exec").co_consts:
        read[line] = True
    assert name in read
    assert f"/data/{name}/v1/x.icechunk" in read


def test_an_object_store_is_read_by_everybody_where_the_bakery_says_so() -> None:
    private = opening.code("s3://bucket/a/v1/x.icechunk", tag="v1")
    public = opening.code("s3://bucket/a/v1/x.icechunk", public_url="https://example.org/a", region="us-west-2")
    assert "from_env=True" in private
    assert "anonymous=True" in public
    assert 'region="us-west-2"' in public
    assert "https://example.org/x.zarr" in opening.code("s3://b/x.zarr", public_url="https://example.org/x.zarr")
    for code in (private, public, opening.code("gs://b/x.icechunk"), opening.code("az://b/x.icechunk")):
        compile(code, "code", "exec")
