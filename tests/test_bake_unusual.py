"""Inputs that are not what most are, though conventions allow them: kept as they are, or refused for what they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr

from demo import provider
from feedstock_forge.bake import bake
from feedstock_forge.findings import Finding, Refused
from support import faults

DAYS = "days since 2000-01-01"
STORES = ["icechunk", "zarr"]


class Folder:
    """Inputs of this test, written as providers do: by netCDF's own library, which adds nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0

    def input(
        self,
        times: list[float],
        more: Callable[[netCDF4.Dataset], None] = lambda file: None,
        *,
        units: str = DAYS,
        calendar: str = "",
        size: int = 3,
        value: float = 0,
    ) -> str:
        """One with a variable along `time`, and whatever else."""
        self.count += 1
        path = self.path / f"{self.count}.nc"
        with netCDF4.Dataset(path, "w") as file:
            file.createDimension("time", None)
            file.createDimension("x", size)
            time = file.createVariable("time", "i4", ("time",))
            time.units = units
            if calendar:
                time.calendar = calendar
            time[:] = times
            v = file.createVariable("v", "f4", ("time", "x"), fill_value=1e20)
            v[:] = np.arange(len(times) * size).reshape(-1, size) + value
            more(file)
        return str(path)

    def bake(self, inputs: list[str], store: str = "icechunk", **choices: Any) -> xr.Dataset:
        """The dataset that is baked of them."""
        target = str(self.path / f"baked.{store}")
        bake(inputs, target, **{"concat_dim": "time", **choices})
        return provider.open_dataset(target, decode=False)

    def refused(self, inputs: list[str], **choices: Any) -> Finding:
        """The one thing that is said against them, in an input that is named."""
        with pytest.raises(Refused) as caught:
            self.bake(inputs, **choices)
        (finding,) = caught.value.findings
        assert finding.fix
        return finding


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def variable(name: str, kind: Any, values: Any, dims: tuple[str, ...] = ("time",), **attrs: Any) -> Any:
    """What writes one more variable into a file, stored as it is."""

    def write(file: netCDF4.Dataset) -> None:
        fill = attrs.pop("fill", None)
        written = file.createVariable(name, kind, dims, fill_value=fill)
        written.set_auto_maskandscale(False)
        written.setncatts(attrs)
        written[:] = values

    return write


@pytest.mark.parametrize("store", STORES)
def test_floats_without_a_fill_value_get_none_and_can_be_appended_to(folder: Folder, store: str) -> None:
    paths = [folder.input([2 * n, 2 * n + 1], variable("q", "f4", [n, n + 0.5])) for n in range(3)]
    assert "_FillValue" not in folder.bake(paths[:2], store).q.attrs
    baked = folder.bake(paths, store, mode="update")
    assert baked.q.values.tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    assert "_FillValue" not in baked.q.attrs


def test_a_fill_value_that_is_no_number_is_as_good_as_none(folder: Folder) -> None:
    paths = [folder.input([n], variable("q", "f4", [n], fill=fill)) for n, fill in enumerate((np.nan, None))]
    assert folder.bake(paths).q.values.tolist() == [0, 1]


def moments(baked: xr.Dataset, name: str) -> list[str]:
    return np.datetime_as_string(xr.decode_cf(baked)[name].values, "h").tolist()


class TestTimes:
    def test_that_count_otherwise_are_converted_or_refused(self, folder: Folder) -> None:
        def seen(values: list[int], units: str) -> Any:
            return variable("seen", "i4", values, units=units)

        days = folder.input([0, 1], seen([0, 1], DAYS))
        hours = folder.input([2, 3], seen([49, 73], "hours since 2000-01-01"))
        finding = folder.refused([days, hours])
        assert finding.id == "input-encoding-differs"
        assert f"`seen` of {hours} cannot be written exactly as int32 {DAYS}" in finding.message
        later = folder.input([4, 5], seen([4, 5], DAYS))
        baked = folder.bake([hours, later])
        assert moments(baked, "seen") == ["2000-01-03T01", "2000-01-04T01", "2000-01-05T00", "2000-01-06T00"]

    @pytest.mark.parametrize("mode", ["complete", "update"])
    def test_that_preprocess_shifts_are_written_in_units_that_are_fine_enough(self, folder: Folder, mode: str) -> None:
        def shift(ds: xr.Dataset) -> xr.Dataset:
            shifted = ds.time.values + np.arange(ds.time.size) % 2 * np.timedelta64(12, "h")
            lead = np.arange(ds.time.size) * np.timedelta64(6, "h")
            return ds.assign_coords(time=shifted).assign(valid=("time", shifted), lead=("time", lead))

        paths = [folder.input([4 * n, 4 * n + 1, 4 * n + 2]) for n in range(2)]
        if mode == "update":
            folder.bake(paths[:1], preprocess=shift)
        baked = folder.bake(paths, preprocess=shift, mode=mode)
        expected = [f"2000-01-{day:02}T{hour:02}" for day, hour in ((1, 0), (2, 12), (3, 0), (5, 0), (6, 12), (7, 0))]
        assert moments(baked, "time") == moments(baked, "valid") == expected
        assert (
            xr.decode_cf(baked, decode_timedelta=True).lead.dt.total_seconds().values.tolist() == [0, 21600, 43200] * 2
        )

    def test_in_abbreviated_units_are_converted_too(self, folder: Folder) -> None:
        paths = [folder.input([0, 1], units=f"hr since 2000-01-0{day}") for day in (1, 2)]
        baked = folder.bake(paths, preprocess=lambda ds: ds.assign(twice=2 * ds.v))
        assert baked.time.values.tolist() == [0, 1, 24, 25]

    def test_of_climatologies_take_their_bounds_along(self, folder: Folder) -> None:
        def climatology(file: netCDF4.Dataset) -> None:
            file["time"].climatology = "months"
            file.createDimension("ends", 2)
            variable("months", "i4", [[0, 31], [31, 59]], ("time", "ends"))(file)

        paths = [folder.input([15, 45], climatology, units=f"days since {year}-01-01") for year in (2000, 2001)]
        assert folder.bake(paths).months.values.tolist() == [[0, 31], [31, 59], [366, 397], [397, 425]]

    def test_end_at_no_year(self, folder: Folder) -> None:
        paths = [folder.input([days], units="days since 1850-01-01") for days in (0, 200_000)]
        assert folder.bake(paths, preprocess=lambda ds: ds.assign(twice=2 * ds.v)).time.values.tolist() == [0, 200_000]

    @pytest.mark.parametrize("said", [{"units": "months since 1980-01-01"}, {"calendar": "of my own"}])
    def test_that_cannot_be_read_are_named_with_all_else_that_is_wrong(self, folder: Folder, said: Any) -> None:
        strange, damaged = folder.input([0], **said), folder.path / "page.nc"
        damaged.write_text("<html>")
        with pytest.raises(Refused) as caught:
            folder.bake([strange, str(damaged)])
        found = {finding.id: finding.message for finding in caught.value.findings}
        assert found.keys() == {"input-encoding-differs", "input-not-netcdf"}
        assert f"`time` of {strange} cannot be read as times: units" in found["input-encoding-differs"]

    def test_that_cannot_be_read_can_be_put_right(self, folder: Folder) -> None:
        def months(ds: xr.Dataset) -> xr.Dataset:
            start = np.datetime64("1980-01", "M") + ds.time.values
            return ds.assign_coords(time=start.astype("M8[ns]"))

        def since(ds: xr.Dataset) -> xr.Dataset:
            ds.time.attrs["units"] = DAYS
            return xr.decode_cf(ds)

        paths = [folder.input([n], units="months since 1980-01-01") for n in range(2)]
        assert moments(folder.bake(paths, preprocess=months), "time") == ["1980-01-01T00", "1980-02-01T00"]
        paths = [folder.input([n], units="days since 0000-00-00") for n in range(2)]
        assert moments(folder.bake(paths, preprocess=since), "time") == ["2000-01-01T00", "2000-01-02T00"]


class TestValues:
    @pytest.mark.parametrize("store", STORES)
    def test_that_are_text_can_be_read_whatever_stands_for_none(self, folder: Folder, store: str) -> None:
        def text(number: int) -> Any:
            def write(file: netCDF4.Dataset) -> None:
                variable("flag", "S1", np.array([list("ab ")], "S1"), ("time", "x"), fill=b" ")(file)
                variable("name", str, np.array([f"no {number}"], object), fill="none")(file)

            return write

        paths = [folder.input([number], text(number)) for number in range(2)]
        folder.bake(paths[:1], store)
        baked = folder.bake(paths, store, mode="update")
        assert baked.flag.values.astype(str).tolist() == [list("ab ")] * 2
        assert baked["name"].values.tolist() == ["no 0", "no 1"]

    @pytest.mark.parametrize("store", STORES)
    def test_that_json_does_not_have_are_kept_by_name(self, folder: Folder, store: str) -> None:
        def write(file: netCDF4.Dataset) -> None:
            file.tolerance = np.float32("nan")
            file["v"].missing_value = np.float32("nan")
            file["v"].valid_range = np.array([-np.inf, np.inf], "f4")

        paths = [folder.input([number], write) for number in range(2)]
        folder.bake(paths[:1], store)
        baked = folder.bake(paths, store, mode="update")
        assert baked.attrs["tolerance"] == "NaN"
        assert baked.v.attrs["valid_range"] == ["-Infinity", "Infinity"]
        assert "missing_value" not in baked.v.attrs

    def test_that_are_names_need_no_order(self, folder: Folder) -> None:
        paths = [str(folder.path / f"{run}.nc") for run in ("r9", "r10", "r11")]
        for path in paths:
            xr.Dataset({"v": ("x", np.arange(3))}, attrs={"run": Path(path).stem}).to_netcdf(path)
        choices: Any = {"concat_dim": "member", "preprocess": lambda ds: ds.expand_dims(member=[ds.attrs["run"]])}
        folder.bake(paths[:2], **choices)
        assert folder.bake(paths, mode="update", **choices).member.values.tolist() == ["r9", "r10", "r11"]

    def test_packed_as_xarray_would_not_are_kept_beside_what_preprocess_adds(self, folder: Folder) -> None:
        packed = variable("q", "i2", [[5, -999, -998]], ("time", "x"), fill=-999, missing_value=np.int16(-998))
        baked = folder.bake([folder.input([0], packed)], preprocess=lambda ds: ds.assign(twice=2 * ds.v))
        assert baked.q.values.tolist() == [[5, -999, -998]]
        assert baked.q.attrs["missing_value"] == -998

    def test_of_one_calendar_under_its_two_names_are_joined(self, folder: Folder) -> None:
        paths = [folder.input([n], calendar=name) for n, name in enumerate(("gregorian", "standard", ""))]
        assert folder.bake(paths).time.values.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("other", "finding"),
    [
        ({"times": [9]}, "input-replaced"),
        ({"times": [2, 3], "size": 5}, "input-replaced"),
        ({"times": [2, 3], "value": 70}, "input-replaced"),
        (None, "input-missing"),
    ],
    ids=["shorter", "on another grid", "with other values", "gone"],
)
@pytest.mark.parametrize("when", ["writing ", "100 %"])
def test_an_input_that_is_another_file_before_all_is_published_is_refused(
    folder: Folder, other: Any, finding: str, when: str
) -> None:
    paths = [folder.input([0, 1]), folder.input([2, 3])]
    before = folder.bake(paths[:1]).load()
    put: Callable[[], Any] = partial(Path(folder.input(**other)).replace, paths[1]) if other else Path(paths[1]).unlink

    with faults.once_said(when, put):
        refused = folder.refused(paths)
    assert refused.id == finding
    assert paths[1] in refused.message
    assert provider.open_dataset(str(folder.path / "baked.icechunk"), decode=False).equals(before)


class TestPreprocess:
    @pytest.mark.parametrize("error", [ValueError, KeyError, TypeError])
    def test_that_fails_when_it_is_computed_is_told_from_a_damaged_file(
        self, folder: Folder, error: type[Exception]
    ) -> None:
        def fail(values: Any) -> Any:
            raise error("mine")

        def lazily(ds: xr.Dataset) -> xr.Dataset:
            return ds.assign(twice=xr.apply_ufunc(fail, ds.v, dask="parallelized", output_dtypes=["f4"]))

        path = folder.input([0])
        finding = folder.refused([path], preprocess=lazily)
        assert finding.id == "preprocess-fails"
        assert f"{error.__name__} on {path}" in finding.message

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda ds: ds.rename(v="m/s"), "a name with a slash"),
            (lambda ds: ds.assign_coords(a=("x", [1, 2, 3]), b=("x", [1, 2, 3])).set_index(x=["a", "b"]), "levels"),
            (lambda ds: ds.assign(v=ds.v.astype(np.longdouble)), "the type float128"),
        ],
    )
    def test_that_returns_what_no_array_can_be_is_refused(
        self, folder: Folder, change: Callable[[xr.Dataset], xr.Dataset], said: str
    ) -> None:
        path = folder.input([0])
        finding = folder.refused([path], preprocess=change)
        assert finding.id == "preprocess-fails"
        assert said in finding.message
        assert path in finding.message


def test_times_that_are_missing_are_told_from_such_in_disorder(folder: Folder) -> None:
    finding = folder.refused([folder.input([0, -5, 2], lambda file: file["time"].setncattr("missing_value", -5))])
    assert finding.id == "input-time-unsorted"
    assert "has missing values" in finding.message


@pytest.mark.parametrize(
    "choice", [{"chunk_size": "4096 MiB", "chunks": {"time": 2**30}}, {"chunks": {"time": 10**12}}]
)
def test_chunks_that_no_compressor_takes_are_refused(folder: Folder, choice: Any) -> None:
    assert folder.refused([folder.input([0])], **choice).id == "chunks-invalid"


def test_a_dataset_that_cannot_be_read_is_named_and_a_release_replaces_it(folder: Folder) -> None:
    paths = [folder.input([n]) for n in range(2)]
    folder.bake(paths[:1], "zarr")
    for path in (folder.path / "baked.zarr").rglob("zarr.json"):
        path.write_text("{}")
    finding = folder.refused(paths, store="zarr", mode="update")
    assert finding.id == "target-not-a-dataset"
    assert "baked.zarr holds a dataset that cannot be read" in finding.message
    assert folder.bake(paths, "zarr").time.values.tolist() == [0, 1]


def test_a_file_that_holds_groups_only_is_told_so(folder: Folder) -> None:
    path = folder.path / "grouped.nc"
    with netCDF4.Dataset(path, "w") as file:
        file.createGroup("product").createDimension("time", 3)
    finding = folder.refused([str(path)])
    assert finding.id == "input-dimension-missing"
    assert "has none outside its groups (product), which are not read" in finding.message
