"""A dataset's quicklook: the first time of its first variable on a grid, as a small picture without any text.

What the legend says (variable, units, range of values, time) is kept inside the PNG, so a picture that is there need
not be drawn again.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import xarray as xr

from ..findings import Refused, Severity, Who, rule
from .dataset import gridded

NO_PICTURE = rule(
    "catalog-no-quicklook",
    "A page without a picture is a page still; somebody may want to know why.",
    severity=Severity.HINT,
    who=Who.OPERATOR,
)

MOST_CELLS = 720
"""Cells along each side of the picture; of more, every few are taken."""
MOST_READ = 2 << 30
"""Bytes of a variable that are read for a picture, at most."""
MOST_VARIABLES = 8
"""Variables that are looked at for one that shows something."""
WIDTH = 960
"""Pixels."""
COLOURS = "viridis"

_KEY = "Comment"


@dataclass(frozen=True, slots=True)
class Legend:
    """What a picture shows: values from ``low`` to ``high``, in ``unit``, at ``when`` if there are times."""

    variable: str
    name: str
    unit: str
    low: float
    high: float
    when: str
    width: int
    height: int


def draw(dataset: xr.Dataset) -> bytes:
    """Draw the quicklook as a PNG. Memory stays bounded whatever the size of the dataset: it is read in strides.

    Raises :class:`Refused` if no variable on a grid has a value in its first slice, or there is too much to read.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    name, y, x, part, when = _chosen(dataset)
    values = np.ma.masked_invalid(np.asarray(part.values, dtype="float64"))
    low, high = (float(bound) for bound in np.percentile(values.compressed(), [2, 98]))
    if low == high:
        low, high = float(values.min()), float(values.max())
    horizontal, vertical = _edges(part, x), _edges(part, y)
    height = round(WIDTH * _aspect(part, x, y, horizontal, vertical))
    figure = Figure(figsize=(WIDTH / 100, height / 100), dpi=100, frameon=False)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.pcolormesh(horizontal, vertical, values, cmap=mpl.colormaps[COLOURS], vmin=low, vmax=high, rasterized=True)
    axes.set_xlim(min(horizontal), max(horizontal))
    axes.set_ylim(min(vertical), max(vertical))
    attrs = dataset[name].attrs
    label = next((attrs[key] for key in ("long_name", "standard_name") if isinstance(attrs.get(key), str)), name)
    unit = attrs.get("units")
    unit = unit.replace("degree_Celsius", "°C").replace("degrees_Celsius", "°C") if isinstance(unit, str) else ""
    legend = Legend(name, label.replace("_", " "), "" if unit == "1" else unit, low, high, when, WIDTH, height)
    file = io.BytesIO()
    # Without the library's version inside, the same dataset gives the same bytes.
    figure.savefig(file, format="png", transparent=True, metadata={_KEY: json.dumps(asdict(legend)), "Software": None})
    return file.getvalue()


def _chosen(dataset: xr.Dataset) -> tuple[str, str, str, xr.DataArray, str]:
    """The first variable that shows something: ice is mostly nought, and a mask mostly one."""
    chosen = None
    for name, y, x in islice(gridded(dataset), MOST_VARIABLES):
        part, when = _slice(dataset, name, y, x)
        values = part.values[np.isfinite(part.values)]
        if values.size == 0:
            continue
        chosen = chosen or (name, y, x, part, when)
        if np.unique(values, return_counts=True)[1].max() * 2 < values.size:
            return name, y, x, part, when
    if chosen is None:
        message = "the dataset has no variable on a horizontal grid with a value in its first slice"
        fix = "nothing to do, unless its coordinates lack the attributes by which CF tells latitude and longitude"
        raise Refused(NO_PICTURE.at(None, message, fix))
    return chosen


def legend(png: bytes) -> Legend | None:
    """What a picture of :func:`draw` shows; ``None`` for any other."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(png)) as image:
            return Legend(**json.loads(image.info[_KEY]))
    except (OSError, KeyError, TypeError, ValueError):
        return None


def _slice(dataset: xr.Dataset, name: str, y: str, x: str) -> tuple[xr.DataArray, str]:
    """Every few cells of the variable's first slice, (y, x), and its time."""
    variable = dataset[name]
    chunks = dict(zip(variable.dims, variable.encoding.get("chunks") or variable.shape, strict=True))
    # A chunk is read whole, however little of it is wanted.
    cells = math.prod(dataset.sizes[dim] if dim in (x, y) else chunks[dim] for dim in variable.dims)
    if cells * variable.dtype.itemsize > MOST_READ:
        message = f"the first slice of `{name}` would take {cells * variable.dtype.itemsize >> 20} MiB to read"
        raise Refused(NO_PICTURE.at(None, message, "nothing to do; smaller chunks would allow it"))
    strides = {dim: slice(None, None, math.ceil(dataset.sizes[dim] / MOST_CELLS)) for dim in (y, x)}
    part = variable.isel({dim: 0 for dim in variable.dims if dim not in (x, y)}).isel(strides).transpose(y, x)
    when = next(
        (
            str(value.values.astype("datetime64[s]") if value.dtype.kind == "M" else value.values)
            for value in part.coords.values()
            if value.ndim == 0 and (value.dtype.kind == "M" or hasattr(value.values.item(), "calendar"))
        ),
        "",
    )
    return part, when.replace("T", " ").removesuffix(" 00:00:00")


def _edges(part: xr.DataArray, dim: str) -> Any:
    """The edges of the cells along a dimension, from its coordinate where that is a proper one."""
    size = part.sizes[dim]
    if dim in part.coords and part[dim].dtype.kind in "fiu" and size > 1:
        centres = np.asarray(part[dim].values, dtype="float64")
        steps = np.diff(centres)
        if np.isfinite(centres).all() and ((steps > 0).all() or (steps < 0).all()):
            middle = centres[:-1] + steps / 2
            return np.concatenate([[centres[0] - steps[0] / 2], middle, [centres[-1] + steps[-1] / 2]])
    return np.arange(size + 1, dtype="float64")


def _aspect(part: xr.DataArray, x: str, y: str, horizontal: Any, vertical: Any) -> float:
    """Height by width: true to the coordinates where both are in one unit, else to the number of cells."""
    if all(dim in part.coords for dim in (x, y)):
        aspect = abs(vertical[-1] - vertical[0]) / abs(horizontal[-1] - horizontal[0])
    else:
        aspect = part.sizes[y] / part.sizes[x]
    return float(min(max(aspect, 0.3), 1.2))


def gradient(stops: int = 9) -> list[str]:
    """The colours from low to high, as CSS writes them."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in mpl.colormaps[COLOURS](np.linspace(0, 1, stops))]
