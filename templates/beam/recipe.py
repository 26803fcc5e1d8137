"""{{ cookiecutter.title | replace('\\', '\\\\') | replace('"', '\\"') }}: a pipeline of pangeo-forge-recipes.

Edit the choices; `feedstock run --prune` tries them on the first few inputs.
"""

import apache_beam as beam
from pangeo_forge_recipes.patterns import ConcatDim, FilePattern
from pangeo_forge_recipes.transforms import OpenURLWithFSSpec, OpenWithXarray, StoreToZarr

# The source files, oldest first.
INPUTS = [
    f"https://data.example.org/{{ cookiecutter.id }}/{year}-{month:02}.nc"
    for year in range(2020, 2024)  # 2020 to 2023
    for month in range(1, 13)
]

pattern = FilePattern(lambda time: INPUTS[time], ConcatDim("time", keys=list(range(len(INPUTS)))))

# What becomes of each. Where the store goes is not said here: every run has a target of its own.
steps = (
    OpenURLWithFSSpec()
    | OpenWithXarray(file_type=pattern.file_type)
    | StoreToZarr(
        store_name="{{ cookiecutter.id }}.zarr",
        combine_dims=pattern.combine_dim_keys,
        target_chunks={"time": 30},
    )
)

{{ cookiecutter.__recipe_name }} = beam.Create(pattern.items()) | steps
