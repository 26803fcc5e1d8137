"""{{ cookiecutter.title | replace('\\', '\\\\') | replace('"', '\\"') }}: references to NetCDF files where they lie.

Edit the choices; `feedstock run --prune` tries them on the first few inputs.
"""

import xarray as xr
from feedstock_forge.bake import bake_virtual

# The source files, oldest first, where the dataset's readers can reach them: https, http or s3. New ones are added at
# the end: a merge appends them to the dataset.
INPUTS = [
    f"https://data.example.org/{{ cookiecutter.id }}/{year}-{month:02}.nc"
    for year in range(2020, 2024)  # 2020 to 2023
    for month in range(1, 13)
]

# The dimension along which the files follow each other.
CONCAT_DIM = "time"


def tidy(ds: xr.Dataset) -> xr.Dataset:
    """Rename, drop or describe what one file holds; its values stay where they are."""
    return ds


def {{ cookiecutter.__recipe_name }}(target: str, mode: str = "complete", prune: bool = False) -> None:
    """Refer at `target` to the inputs: all of them, those that are new, or only the first few."""
    bake_virtual(INPUTS, target, mode=mode, prune=prune, concat_dim=CONCAT_DIM, preprocess=tidy)
