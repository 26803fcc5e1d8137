"""{{ cookiecutter.title | replace('\\', '\\\\') | replace('"', '\\"') }}: a Prefect flow of your own."""

import xarray as xr
from feedstock_forge.bake import publishing
from prefect import flow, task


@task(retries=2, retry_delay_seconds=10)
def read(prune: bool) -> xr.Dataset:
    """Read the source data; with `prune`, no more than is needed to try the recipe."""
    return xr.Dataset({"example": ("x", range(3 if prune else 10))})


@task
def write(ds: xr.Dataset, target: str, prune: bool) -> None:
    """Write the dataset, whole or not at all: readers see it when the block has ended."""
    with publishing(target, prune=prune) as store:
        ds.to_zarr(store, mode="w", zarr_format=3, consolidated=False)


@flow
def {{ cookiecutter.__recipe_name }}(target: str, mode: str = "complete", prune: bool = False) -> None:
    """Make the dataset at `target`. `mode` is "complete" after a release and "update" after a merge."""
    write(read(prune), target, prune)
