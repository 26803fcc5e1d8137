"""Inputs that are not what most are, though conventions allow them: kept as they are, or refused for what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr

from demo import provider
from feedstock_forge.bake import bake
from feedstock_forge.findings import Finding, Refused

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
