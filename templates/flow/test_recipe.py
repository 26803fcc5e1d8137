"""The recipe, pruned, on this machine: Prefect brings a server of its own for the test."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr
{%- if cookiecutter.store == "icechunk" %}
from icechunk import Repository, local_filesystem_storage
{%- endif %}
from prefect.testing.utilities import prefect_test_harness

sys.path.insert(0, str(Path(__file__).parents[1] / "feedstock"))

import recipe


@pytest.fixture(autouse=True)
def server() -> Iterator[None]:
    """Keep the runs of the test apart from your own."""
    with prefect_test_harness(server_startup_timeout=120):
        yield


def test_the_recipe_writes_a_dataset(tmp_path: Path) -> None:
    target = str(tmp_path / "dataset.{{ cookiecutter.store }}")
    recipe.{{ cookiecutter.__recipe_name }}(target=target, prune=True)
{% if cookiecutter.store == "icechunk" %}
    store = Repository.open(local_filesystem_storage(target)).readonly_session("main").store
    written = xr.open_zarr(store, consolidated=False)
{%- else %}
    written = xr.open_zarr(target, consolidated=False)
{%- endif %}
    assert written["example"].values.tolist() == [0, 1, 2]
