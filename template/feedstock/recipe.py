{%- if cookiecutter.kind == "xarray" -%}
"""{{ cookiecutter.title | replace('\\', '\\\\') | replace('"', '\\"') }}: NetCDF files into one dataset.

Edit the choices; `feedstock run --prune` tries them on the first few inputs.
"""

import xarray as xr
from feedstock_forge.bake import bake

# The source files, oldest first. New ones are added at the end: a merge appends them to the dataset.
INPUTS = [
    f"https://data.example.org/{{ cookiecutter.id }}/{year}-{month:02}.nc"
    for year in range(2020, 2024)  # 2020 to 2023
    for month in range(1, 13)
]

# The dimension along which the files follow each other.
CONCAT_DIM = "time"

# How many steps of a dimension go into one chunk. Dimensions that are not named here are not split.
CHUNKS = {"time": 30}


def tidy(ds: xr.Dataset) -> xr.Dataset:
    """Rename, drop or correct what one file holds, before the files are joined."""
    return ds


def {{ cookiecutter.__recipe_name }}(target: str, mode: str = "complete", prune: bool = False) -> None:
    """Bake the inputs into the dataset at `target`: all of them, those that are new, or only the first few."""
    bake(INPUTS, target, mode=mode, prune=prune, concat_dim=CONCAT_DIM, chunks=CHUNKS, preprocess=tidy)
{%- else -%}
"""{{ cookiecutter.title | replace('\\', '\\\\') | replace('"', '\\"') }}: a Prefect flow of your own."""
{% if cookiecutter.store == "icechunk" %}
import icechunk
{%- endif %}
import xarray as xr
from prefect import flow, task


@task(retries=2, retry_delay_seconds=10)
def read(prune: bool) -> xr.Dataset:
    """Read the source data; with `prune`, no more than is needed to try the recipe."""
    return xr.Dataset({"example": ("x", range(3 if prune else 10))})


@task
def write(ds: xr.Dataset, target: str) -> None:
    """Write the dataset, whole or not at all."""
{%- if cookiecutter.store == "icechunk" %}
    # For a bucket use icechunk.s3_storage(…): https://icechunk.io
    repository = icechunk.Repository.open_or_create(icechunk.local_filesystem_storage(target.removeprefix("file://")))
    session = repository.writable_session("main")
    ds.to_zarr(session.store, mode="w", zarr_format=3, consolidated=False)
    session.commit("write the dataset")
{%- else %}
    ds.to_zarr(target, mode="w", zarr_format=3, consolidated=False)
{%- endif %}


@flow
def {{ cookiecutter.__recipe_name }}(target: str, mode: str = "complete", prune: bool = False) -> None:
    """Make the dataset at `target`. `mode` is "complete" after a release and "update" after a merge."""
    write(read(prune), target)
{%- endif %}
