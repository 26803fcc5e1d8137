"""What is read without HDF5's library is, bit for bit, what the library reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from feedstock_forge.bake.blocks import blocks
from feedstock_forge.bake.inputs import Opened
from feedstock_forge.findings import Refused

SHAPE = (7, 11, 13)
VALUES = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype("int16")


def chunked(**words: Any) -> Callable[[h5py.File], Any]:
    return lambda file: file.create_dataset("v", data=VALUES, chunks=(2, 5, 13), **words)


def written_in_part(file: h5py.File) -> None:
    file.create_dataset("v", SHAPE, "float32", chunks=(2, 5, 13), compression="gzip", fillvalue=-9)[:2, 3:6] = 1.5


def resized(file: h5py.File) -> None:
    made = file.create_dataset("v", SHAPE, "float64", chunks=(2, 5, 13), maxshape=(None, 11, 13), shuffle=True)
    made[:] = VALUES
    made.resize(9, axis=0)


READ = {
    "as it is, whole": lambda file: file.create_dataset("v", data=VALUES),
    "as it is, in chunks": chunked(),
    "deflated": chunked(compression="gzip"),
    "shuffled": chunked(shuffle=True),
    "shuffled and deflated": chunked(compression="gzip", shuffle=True),
    "never written": lambda file: file.create_dataset("v", SHAPE, "float32", fillvalue=4),
    "written in part": written_in_part,
    "grown": resized,
}
LEFT = {
    "with checksums": chunked(fletcher32=True),
    "of another byte order": lambda file: file.create_dataset("v", data=VALUES.astype(">i2")),
    "by another filter": chunked(compression="lzf"),
    "of text": lambda file: file.create_dataset("v", data=["a", "b"]),
    "of names": lambda file: file.create_dataset("v", data=[0], dtype=h5py.enum_dtype({"calm": 0})),
    "in other files": lambda file: file.create_dataset("v", SHAPE, "i2", external=[("other", 0, h5py.h5f.UNLIMITED)]),
    "of one number": lambda file: file.create_dataset("v", data=1.0),
}


@pytest.fixture(scope="module", params=READ.items(), ids=READ)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blocks") / "a.h5"
    with h5py.File(path, "w") as file:
        request.param[1](file)
    return path


@given(data=st.data())
def test_any_part_is_what_the_library_reads(written: Path, data: st.DataObject) -> None:
    found = blocks(written, "v")
    assert found is not None
    index = []
    for size in found.shape:
        start = data.draw(st.integers(0, size - 1))
        index.append(slice(start, data.draw(st.integers(start + 1, size))))
    with h5py.File(written) as file:
        np.testing.assert_array_equal(found.read(tuple(index)), file["v"][tuple(index)], strict=True)


@pytest.mark.parametrize("write", LEFT.values(), ids=LEFT)
def test_what_is_stored_in_another_way_is_left_to_the_library(tmp_path: Path, write: Callable[..., Any]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write(file)
    assert blocks(tmp_path / "a.h5", "v") is None
    assert blocks(tmp_path / "a.h5", "missing") is None


def test_a_part_of_large_blocks_is_left_to_the_library_which_keeps_them(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        chunked(compression="gzip")(file)
    found = blocks(tmp_path / "a.h5", "v")
    assert found is not None
    assert found.covers((slice(0, 2), slice(0, 11), slice(0, 13)))
    assert not found.covers((slice(0, 1), slice(0, 1), slice(0, 13)))


def test_a_variable_that_is_called_like_a_dimension_is_found(tmp_path: Path) -> None:
    dataset = xr.Dataset({"time": (("time", "x"), np.arange(6.0).reshape(2, 3))})
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    found = blocks(tmp_path / "a.nc", "time")
    assert found is not None
    np.testing.assert_array_equal(found.read((slice(0, 2), slice(0, 3))), dataset["time"].values)


@pytest.mark.parametrize("damage", ["garbled", "cut off"])
def test_a_damaged_block_is_refused_by_the_name_of_its_input(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.nc"
    values = np.random.default_rng(0).random((4, 512, 512), "float32")
    dataset = xr.Dataset({"v": (("time", "y", "x"), values)})
    dataset.to_netcdf(path, engine="h5netcdf", encoding={"v": {"zlib": True, "chunksizes": (1, 512, 512)}})
    opened = Opened.file("https://example.org/a.nc", path, None)
    np.testing.assert_array_equal(opened.values("v", {}), values)
    assert opened._blocks["v"] is not None
    with path.open("r+b") as file:
        if damage == "garbled":
            file.seek(opened._blocks["v"].known[1, 0, 0].offset)
            file.write(b"\0" * 1000)
        else:
            file.truncate(opened._blocks["v"].known[3, 0, 0].offset + 10)
    with pytest.raises(Refused) as caught:
        opened.values("v", {})
    assert caught.value.findings[0].rule.id == "input-damaged"
    assert "https://example.org/a.nc" in caught.value.findings[0].message
