"""A published dataset as the catalog sees it: opened to read, and described by the CF conventions.

https://cfconventions.org: which coordinates are latitude, longitude and time, what a variable is called, its units.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, cast

import cf_xarray  # noqa: F401 - gives datasets their `cf`
import icechunk
import numpy as np
import xarray as xr
import zarr
from zarr.storage import LocalStore, ObjectStore

from ..bake.stores import object_storage
from ..findings import Refused, Who, rule
from .storage import Folder

UNREADABLE = rule("catalog-dataset-unreadable", "An entry says of a dataset what the dataset says.", who=Who.OPERATOR)

WHOLE_EARTH = (-180.0, -90.0, 180.0, 90.0)
MOST_VALUES = 200
"""Values of a dimension without numbers that an entry lists."""
MOST_COORDINATES = 50_000_000
"""Elements of a two-dimensional coordinate that are read for its extent; of a larger one, every few."""

BBox = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Published:
    """A published dataset, opened to read; nothing of its variables is loaded."""

    url: str
    store: Literal["icechunk", "zarr"]
    dataset: xr.Dataset
    tag: str | None = None
    snapshot: str | None = None
    when: datetime.datetime | None = None
    """When the state was published, where the store knows."""
    consolidated: bool = False
    newest_tag: str | None = None
    """The tag of the newest release, where the store keeps releases."""
    refers_to: tuple[str, ...] = ()
    """Where a virtual dataset's values are: prefixes that a reader has to allow. Nothing here reads them."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a dataset says of itself, ready for STAC."""

    bbox: BBox | None
    start: str | None
    end: str | None
    calendar: str | None
    dimensions: dict[str, dict[str, Any]]
    """The datacube extension's ``cube:dimensions``."""
    variables: dict[str, dict[str, Any]]
    """The datacube extension's ``cube:variables``, each with shape, chunks, data type and bytes too."""
    standard_names: list[str] = field(default_factory=list)


def open_published(url: str, tag: str | None = None) -> Published:
    """Open the dataset at ``url``; an Icechunk repository at its ``tag``, if it has that, else at its newest state.

    Raises :class:`Refused` if there is none or it cannot be read.
    """
    kind = url.rstrip("/").rpartition(".")[2]
    try:
        if kind == "icechunk":
            return _open_icechunk(url, tag)
        if kind == "zarr":
            return _open_zarr(url)
    except Refused:
        raise
    except (icechunk.IcechunkError, OSError, ValueError, KeyError) as error:
        gist = next((line.strip(" x|") for line in str(error).splitlines() if line.strip(" x|")), type(error).__name__)
        fix = "look at the URL, and at what the user or credentials of this process may read"
        raise Refused(UNREADABLE.at(None, f"{url} cannot be opened: {gist}", fix)) from error
    fix = "name the dataset's own URL, which ends in .icechunk or .zarr"
    raise Refused(UNREADABLE.at(None, f"{url} does not say how the dataset is stored", fix))


def _open_icechunk(url: str, tag: str | None) -> Published:
    folder = Folder(url)
    if folder.path is not None:
        if not folder.path.is_dir():
            raise FileNotFoundError(f"there is no folder {folder.path}")
        make = partial(icechunk.local_filesystem_storage, str(folder.path))
    else:
        make = partial(object_storage, url)
    repository = icechunk.Repository.open(make())
    tags = repository.list_tags()
    name = tag.replace("/", "-") if tag else None
    if name not in tags:
        name = None
    where: dict[str, Any] = {"tag": name} if name else {"branch": "main"}
    info = next(iter(repository.ancestry(**where)))
    session = repository.readonly_session(**where)
    dataset = xr.open_zarr(session.store, consolidated=False, chunks=None, decode_timedelta=False)
    by_time = {tag: next(iter(repository.ancestry(tag=tag))).written_at for tag in tags} if tag is None else {}
    newest = max(by_time, key=lambda tag: by_time[tag], default=None)
    prefixes = tuple(sorted(repository.config.virtual_chunk_containers or {}))
    return Published(url, "icechunk", dataset, name, info.id, info.written_at, newest_tag=newest, refers_to=prefixes)


def _open_zarr(url: str) -> Published:
    folder = Folder(url)
    if folder.path is not None and not folder.path.is_dir():
        raise FileNotFoundError(f"there is no folder {folder.path}")
    store: Any = LocalStore(folder.path, read_only=True) if folder.path else ObjectStore(folder.store, read_only=True)
    # Not the older format: an array of objects there may be pickled, and to read it is to run what somebody wrote.
    group = zarr.open_group(store, mode="r", zarr_format=3)
    consolidated = group.metadata.consolidated_metadata is not None
    dataset = xr.open_zarr(store, zarr_format=3, consolidated=consolidated, chunks=None, decode_timedelta=False)
    return Published(url, "zarr", dataset, consolidated=consolidated)


def describe(dataset: xr.Dataset) -> Description:
    """Describe a dataset; only its coordinates are read."""
    axes, coordinates = _roles(dataset)
    bbox = _bbox(dataset, coordinates) or _bbox_of_attributes(dataset.attrs)
    times = coordinates.get("time") or axes.get("T")
    start, end, calendar = _times(dataset, times)
    dimensions = {str(name): _dimension(dataset, str(name), axes, coordinates) for name in dataset.sizes}
    variables = {str(name): _variable(dataset, str(name)) for name in dataset.variables if name not in dataset.sizes}
    names = {
        str(variable.attrs["standard_name"])
        for variable in dataset.data_vars.values()
        if _words(variable, "standard_name")
    }
    return Description(bbox, start, end, calendar, dimensions, variables, sorted(names))


def gridded(dataset: xr.Dataset) -> Iterator[tuple[str, str, str]]:
    """The variables on a horizontal grid, each as (variable, its y dimension, its x dimension)."""
    axes, coordinates = _roles(dataset)
    ys = {dim for name in (coordinates.get("latitude"), axes.get("Y")) if name for dim in dataset[name].dims[:1]}
    xs = {dim for name in (coordinates.get("longitude"), axes.get("X")) if name for dim in dataset[name].dims[-1:]}
    for name, variable in dataset.data_vars.items():
        y = next((str(dim) for dim in variable.dims if dim in ys), None)
        x = next((str(dim) for dim in variable.dims if dim in xs and dim != y), None)
        if y and x and variable.dtype.kind in "fiu" and variable.size:
            yield str(name), y, x


def _roles(dataset: xr.Dataset) -> tuple[dict[str, str], dict[str, str]]:
    """The first variable of each axis and of each kind of coordinate."""
    found = cast(Any, dataset).cf
    return (
        {str(axis): str(names[0]) for axis, names in found.axes.items() if names},
        {str(kind): str(names[0]) for kind, names in found.coordinates.items() if names},
    )


def _numbers(dataset: xr.Dataset, name: str) -> np.ndarray[Any, Any] | None:
    """The finite values of a coordinate, or of every few of its elements where it is large."""
    variable = dataset[name]
    if variable.dtype.kind not in "fiu":
        return None
    step = math.ceil(math.sqrt(variable.size / MOST_COORDINATES)) or 1
    values = np.asarray(variable.isel({dim: slice(None, None, step) for dim in variable.dims}).values, dtype="float64")
    values = values[np.isfinite(values)]
    return values if values.size else None


def _bbox(dataset: xr.Dataset, coordinates: dict[str, str]) -> BBox | None:
    """(west, south, east, north) in degrees, longitudes from -180 to 180; across the date line, west is the larger.

    GeoJSON's order and its rule for the date line: https://datatracker.ietf.org/doc/html/rfc7946#section-5
    """
    if "latitude" not in coordinates or "longitude" not in coordinates:
        return None
    lat, lon = _numbers(dataset, coordinates["latitude"]), _numbers(dataset, coordinates["longitude"])
    if lat is None or lon is None:
        return None
    south, north = max(-90.0, float(lat.min())), min(90.0, float(lat.max()))
    if south > north:
        return None
    # One value for each place; a grid all around the world has no gap larger than between any two neighbours.
    around = np.unique(np.mod(lon, 360.0))
    gaps = np.diff(np.append(around, around[0] + 360.0))
    widest = int(gaps.argmax())
    if len(around) > 2 and gaps[widest] <= 1.5 * float(np.median(gaps)):
        return (-180.0, _rounded(south), 180.0, _rounded(north))
    west, east = around[(widest + 1) % len(around)], around[widest]
    return (_rounded(_signed(west)), _rounded(south), _rounded(_signed(east)), _rounded(north))


def _signed(longitude: float) -> float:
    return float((longitude + 180.0) % 360.0 - 180.0)


def _rounded(degrees: float) -> float:
    # Centimetres are enough, and 32-bit floats have no more.
    return round(float(degrees), 6) + 0.0


def _bbox_of_attributes(attrs: dict[Any, Any]) -> BBox | None:
    """What the dataset says of itself: https://wiki.esipfed.org/Attribute_Convention_for_Data_Discovery."""
    keys = ("geospatial_lon_min", "geospatial_lat_min", "geospatial_lon_max", "geospatial_lat_max")
    try:
        west, south, east, north = (float(attrs[key]) for key in keys)
    except (KeyError, TypeError, ValueError):
        return None
    if not (-90 <= south <= north <= 90 and all(map(math.isfinite, (west, east)))):
        return None
    if east - west >= 360:
        return (-180.0, south, 180.0, north)
    return (_rounded(_signed(west)), south, _rounded(_signed(east)) if _signed(east) != -180 else 180.0, north)


def _times(dataset: xr.Dataset, name: str | None) -> tuple[str | None, str | None, str | None]:
    """The first and last time, as STAC writes them, and the calendar if it is not everybody's."""
    if name is None or dataset[name].size == 0:
        return None, None, None
    values = dataset[name].values.ravel()
    if values.dtype.kind == "M":
        values = values[~np.isnat(values)]
        if not values.size:
            return None, None, None
        return _stamp(values.min()), _stamp(values.max()), None
    if values.dtype == object and hasattr(values[0], "calendar"):
        first, last = min(values), max(values)
        calendar = str(first.calendar)
        return (
            _stamp(first),
            _stamp(last),
            None if calendar in ("standard", "gregorian", "proleptic_gregorian") else calendar,
        )
    return None, None, None


def _stamp(moment: Any) -> str | None:
    """RFC 3339 in UTC; of a calendar with other months, the nearest day that everybody has."""
    if isinstance(moment, np.datetime64):
        text = str(np.datetime_as_string(moment, unit="s"))
        return f"{text}Z" if len(text) == 19 else None
    if not 1 <= moment.year <= 9999:
        return None
    next_month = (
        datetime.date(moment.year + moment.month // 12, moment.month % 12 + 1, 1) if moment.year < 9999 else None
    )
    last = (next_month - datetime.timedelta(1)).day if next_month else 28
    day = min(moment.day, last)
    return f"{moment.year:04}-{moment.month:02}-{day:02}T{moment.hour:02}:{moment.minute:02}:{moment.second:02}Z"


def _dimension(dataset: xr.Dataset, name: str, axes: dict[str, str], coordinates: dict[str, str]) -> dict[str, Any]:
    """A dimension of the datacube extension: https://github.com/stac-extensions/datacube/blob/v2.2.0/README.md"""
    size = dataset.sizes[name]
    variable = dataset.variables.get(name)
    described: dict[str, Any] = {}
    if variable is None:
        return {"type": "count", "extent": [0, max(size - 1, 0)]}
    if long_name := _words(variable, "long_name"):
        described["description"] = long_name
    if name in (axes.get("T"), coordinates.get("time")):
        start, end, _ = _times(dataset, name)
        if start or end:
            return {"type": "temporal", "extent": [start, end], **described}
    numbers = _numbers(dataset, name)
    if numbers is None:
        values = [str(value) for value in variable.values[:MOST_VALUES]]
        return {"type": "label", "values": values or [""], **described}
    extent = [float(numbers.min()), float(numbers.max())]
    step = _step(numbers, size)
    if name in (axes.get("X"), coordinates.get("longitude")):
        described = {"type": "spatial", "axis": "x", "extent": extent, **described}
    elif name in (axes.get("Y"), coordinates.get("latitude")):
        described = {"type": "spatial", "axis": "y", "extent": extent, **described}
    elif name in (axes.get("Z"), coordinates.get("vertical")):
        described = {"type": "spatial", "axis": "z", "extent": extent, **described}
    else:
        described = {"type": "other", "extent": extent, **described}
    if step is not None:
        described["step"] = step
    if (unit := _words(variable, "units")) and described.get("axis") not in ("x", "y"):
        described["unit"] = unit
    return described


def _step(numbers: np.ndarray[Any, Any], size: int) -> float | None:
    """The distance of equally spaced values."""
    if size < 2 or len(numbers) != size:
        return None
    steps = np.diff(numbers)
    step = float(steps.mean())
    return round(step, 9) if step and np.allclose(steps, step, rtol=1e-3) else None


def _variable(dataset: xr.Dataset, name: str) -> dict[str, Any]:
    """A variable of the datacube extension, with what a reader wants to know before opening it."""
    variable = dataset.variables[name]
    role = "auxiliary" if name in dataset.coords else "data"
    described: dict[str, Any] = {"dimensions": [str(dim) for dim in variable.dims], "type": role}
    for key, source in (("description", "long_name"), ("unit", "units"), ("standard_name", "standard_name")):
        if words := _words(variable, source):
            described[key] = words
    stored = variable.encoding.get("dtype", variable.dtype)
    described["data_type"] = str(stored)
    described["shape"] = list(variable.shape)
    described["chunks"] = [int(length) for length in variable.encoding.get("chunks") or variable.shape]
    described["bytes"] = int(variable.size * np.dtype(stored).itemsize) if np.dtype(stored).kind != "O" else None
    return {key: value for key, value in described.items() if value is not None}


def _words(variable: Any, key: str) -> str | None:
    value = variable.attrs.get(key, variable.encoding.get(key))
    return value.strip()[:500] if isinstance(value, str) and value.strip() else None
