"""The recipe on tiny inputs that the test makes itself: change them until they look like your files."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
{%- if cookiecutter.store == "icechunk" %}
from icechunk import Repository, local_filesystem_storage
{%- endif %}

sys.path.insert(0, str(Path(__file__).parents[1] / "feedstock"))

import recipe


def tiny(first: str) -> xr.Dataset:
    """Three days on a grid of 2 by 3."""
    time = pd.date_range(first, periods=3, freq="D")
    values = np.arange(18.0).reshape(3, 2, 3)
    coordinates = {"time": time, "lat": [-45.0, 45.0], "lon": [0.0, 120.0, 240.0]}
    return xr.Dataset({"value": (("time", "lat", "lon"), values, {"units": "1"})}, coords=coordinates)


def test_the_recipe_bakes_tiny_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    for month in ("2020-01-01", "2020-02-01", "2020-03-01"):
        paths.append(str(tmp_path / f"{month}.nc"))
        tiny(month).to_netcdf(paths[-1])
    monkeypatch.setattr(recipe, "INPUTS", paths)

    target = str(tmp_path / "dataset.{{ cookiecutter.store }}")
    recipe.{{ cookiecutter.__recipe_name }}(target=target, prune=True)
{% if cookiecutter.store == "icechunk" %}
    store = Repository.open(local_filesystem_storage(target)).readonly_session("main").store
    baked = xr.open_zarr(store, consolidated=False)
{%- else %}
    baked = xr.open_zarr(target, consolidated=False)
{%- endif %}
    expected = xr.concat([tiny("2020-01-01"), tiny("2020-02-01")], "time")  # a pruned run takes two inputs
    xr.testing.assert_equal(baked.load(), expected)
