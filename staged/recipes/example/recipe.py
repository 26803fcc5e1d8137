"""NOAA Optimum Interpolation Sea Surface Temperature: one NetCDF file a day into one dataset.

Edit the choices; `feedstock run -C recipes/example --prune` tries them on the first two files.
"""

import datetime

import xarray as xr

from feedstock_forge.bake import bake

FIRST, LAST = datetime.date(1981, 9, 1), datetime.date(1981, 12, 31)
DAYS = [FIRST + datetime.timedelta(n) for n in range((LAST - FIRST).days + 1)]

# The source files, oldest first. New ones are added at the end: a merge appends them to the dataset.
FOLDER = "https://www.ncei.noaa.gov/data/sea-surface-temperature-optimum-interpolation/v2.1/access/avhrr"
INPUTS = [f"{FOLDER}/{day:%Y%m}/oisst-avhrr-v02r01.{day:%Y%m%d}.nc" for day in DAYS]

# The dimension along which the files follow each other.
CONCAT_DIM = "time"

# How large a chunk is, before compression.
CHUNK_SIZE = "16 MiB"


def tidy(ds: xr.Dataset) -> xr.Dataset:
    """Rename, drop or correct what one file holds, before the files are joined."""
    return ds


def example(target: str, mode: str = "complete", prune: bool = False) -> None:
    """Bake the inputs into the dataset at `target`: all of them, those that are new, or only the first few."""
    bake(INPUTS, target, mode=mode, prune=prune, concat_dim=CONCAT_DIM, chunk_size=CHUNK_SIZE, preprocess=tidy)
