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

# How large a chunk is, before compression.
CHUNK_SIZE = "{{ cookiecutter.chunk_size }}"

# How many steps of a dimension go into one chunk, where you know better: {"time": 30, "lat": 180, "lon": 360}
CHUNKS: dict[str, int] = {}


def tidy(ds: xr.Dataset) -> xr.Dataset:
    """Rename, drop or correct what one file holds, before the files are joined."""
    return ds


def {{ cookiecutter.__recipe_name }}(target: str, mode: str = "complete", prune: bool = False) -> None:
    """Bake the inputs into the dataset at `target`: all of them, those that are new, or only the first few."""
    bake(
        INPUTS,
        target,
        mode=mode,
        prune=prune,
        concat_dim=CONCAT_DIM,
        chunk_size=CHUNK_SIZE,
        chunks=CHUNKS,
        preprocess=tidy,
    )
