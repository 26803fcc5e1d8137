"""The recipe on tiny inputs that the test makes itself: change them until they look like your files."""

import sys
from pathlib import Path

import apache_beam as beam
import numpy as np
import pandas as pd
import xarray as xr
from feedstock_forge.beam import run
from pangeo_forge_recipes.patterns import ConcatDim, FilePattern

sys.path.insert(0, str(Path(__file__).parents[1] / "feedstock"))

import recipe


def tiny(first: str) -> xr.Dataset:
    """Three days on a grid of 2 by 3."""
    time = pd.date_range(first, periods=3, freq="D")
    values = np.arange(18.0).reshape(3, 2, 3)
    coordinates = {"time": time, "lat": [-45.0, 45.0], "lon": [0.0, 120.0, 240.0]}
    return xr.Dataset({"value": (("time", "lat", "lon"), values, {"units": "1"})}, coords=coordinates)


def test_the_recipe_bakes_tiny_inputs(tmp_path: Path) -> None:
    paths = []
    for month in ("2020-01-01", "2020-02-01", "2020-03-01"):
        paths.append(str(tmp_path / f"{month}.nc"))
        tiny(month).to_netcdf(paths[-1])
    pattern = FilePattern(lambda time: paths[time], ConcatDim("time", keys=[0, 1, 2]))

    target = str(tmp_path / "dataset.zarr")
    run(beam.Create(pattern.items()) | recipe.steps, target, prune=True)

    written = xr.open_zarr(target)
    expected = xr.concat([tiny("2020-01-01"), tiny("2020-02-01")], "time")  # a pruned run takes two inputs
    xr.testing.assert_equal(written.load(), expected)
