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
