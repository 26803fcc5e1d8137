from __future__ import annotations

import urllib.request
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from demo import provider
from feedstock_forge.bake import bake


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return provider.write_inputs(tmp_path_factory.mktemp("ocean"))


def test_writes_two_years_of_monthly_files_that_follow_the_conventions(files: list[Path]) -> None:
    assert len(files) == 24
    with xr.open_dataset(files[1]) as month:
        assert month.attrs["Conventions"] == "CF-1.11"
        assert dict(month.sizes) == {"time": 28, "lat": 45, "lon": 90}
        assert month.time.values[0] == np.datetime64("2022-02-01T12:00")
        assert month.sst.attrs["standard_name"] == "sea_surface_temperature"
        assert month.sst.encoding["dtype"] == "int16"
        assert month.sst.encoding["scale_factor"] == 0.01
        assert -2 < month.sst.min() < 0 < 28 < month.sst.max() < 36
        assert 0.2 < float(month.sst.isnull().mean()) < 0.5, "land"
        assert set(np.unique(month.ice > 0)) == {False, True}


def test_writes_the_same_files_every_time(files: list[Path], tmp_path: Path) -> None:
    again = provider.month(provider.MONTHS[3])
    again.to_netcdf(tmp_path / "again.nc", engine="h5netcdf", unlimited_dims=["time"])
    with xr.open_dataset(files[3]) as one, xr.open_dataset(tmp_path / "again.nc") as other:
        xr.testing.assert_identical(one, other)


def test_serves_them_over_http(files: list[Path]) -> None:
    with (
        provider.serve(files[0].parent) as url,
        urllib.request.urlopen(f"{url}/{files[0].name}") as answer,  # noqa: S310 - http on this machine
    ):
        assert answer.read() == files[0].read_bytes()


@pytest.mark.parametrize("store", ["icechunk", "zarr"])
def test_the_check_accepts_a_true_dataset_and_names_what_differs_in_a_false_one(
    files: list[Path], tmp_path: Path, store: str
) -> None:
    target = f"{tmp_path}/ocean.{store}"
    bake([str(path) for path in files[:2]], target, concat_dim="time")
    assert provider.check(target, files[:2]) == []
    assert "steps" in " ".join(provider.check(target, files[:1]))
    assert "`sst` differs" in " ".join(provider.check(target, [files[0], files[2]]))
