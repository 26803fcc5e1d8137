"""Targets with a small dataset and its entry, and what a hostile hand could write into one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from feedstock_forge import meta
from feedstock_forge.bake import Provenance
from feedstock_forge.catalog import entry, site, sources

from . import feedstocks

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 1234 * 5678 }}'`${1}\u202e"


def sea(times: int = 3) -> xr.Dataset:
    """A small dataset on a grid; its first variable shows nothing."""
    lat, lon = np.arange(-80.0, 81, 20), np.arange(0.0, 360, 20)
    shape = (times, len(lat), len(lon))
    found = xr.Dataset(
        {
            "flag": (("time", "lat", "lon"), np.zeros(shape)),
            "sst": (("time", "lat", "lon"), np.arange(np.prod(shape)).reshape(shape) / 10.0),
        },
        {"time": np.arange(times), "lat": lat, "lon": lon},
    )
    found.sst.attrs = {"long_name": "sea surface temperature", "units": "degree_Celsius"}
    found.lat.attrs, found.lon.attrs = {"units": "degrees_north"}, {"units": "degrees_east"}
    found.time.attrs = {"units": "days since 2000-01-01", "standard_name": "time"}
    return found


def publish(target: Path, name: str = "ocean", version: str = "v1.0.0", times: int = 3, **declared: Any) -> Path:
    """Put a dataset and its entry below ``target``; returns the entry's folder there."""
    url = target / name / "v1/sst.zarr"
    sea(times).to_zarr(url, mode="w", zarr_format=3, consolidated=False)
    said = yaml.safe_load(feedstocks.META.format(id=name, recipes='[{id: sst, object: "recipe:sst"}]'))
    data = {**said, "bakeries": [], **declared}
    made = Provenance(name, "sst", f"pangeo-forge/{name}-feedstock", "c" * 40, version, "complete", f"run-{version}")
    entry.write(meta.Meta.model_validate(data), made, str(url))
    return target / "catalog" / name / "v1/sst"


def build(output: Path, *targets: Path, **options: Any) -> site.Built:
    found = sources.read([sources.Source(str(target)) for target in targets])
    built = site.build(found.entries, output, **options)
    built.findings += found.findings
    return built


def poison(document: dict[str, Any]) -> None:
    """Put hostile words wherever STAC leaves room for them."""
    evil = "javascript:alert(1)"
    if document["type"] == "Collection":
        document["providers"] = [{"name": HOSTILE, "description": HOSTILE, "url": evil}]
        document["license"] = "other"
        document["links"].append({"rel": "license", "href": evil})
        document["links"] = [link for link in document["links"] if "spdx" not in link["href"]]
        document["links"].append({"rel": "about", "href": "data:text/html,x"})
        document |= {
            "feedstock:license": HOSTILE,
            "feedstock:repository": f"x/{HOSTILE}",
            "feedstock:maintainers": [{"name": HOSTILE, "github": HOSTILE, "orcid": HOSTILE}, 7],
            "feedstock:runs": [{"version": HOSTILE, "when": 3, "run": [HOSTILE], "inputs": {"count": HOSTILE}}, "x"],
        }
    else:
        properties = document["properties"]
        properties |= {"feedstock:version": HOSTILE, "feedstock:commit": HOSTILE, "feedstock:inputs": 7}
        properties["cube:variables"][HOSTILE] = {
            "dimensions": [HOSTILE],
            "unit": HOSTILE,
            "shape": HOSTILE,
            "bytes": -1,
        }
        properties["cube:dimensions"][HOSTILE] = {"type": HOSTILE, "values": [HOSTILE]}
    document["assets"]["data"] |= {"href": "file:///etc/passwd", "title": HOSTILE, "feedstock:bytes": HOSTILE}
