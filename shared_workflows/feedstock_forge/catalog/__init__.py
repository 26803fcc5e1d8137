"""The catalog: what there is, described as STAC, and a website made of it.

A release run writes an entry for its dataset, a STAC Collection with an Item for each release that can still be
opened, beside the dataset and below ``<target>/catalog/``. :mod:`.site` makes a website of the entries of any number of
targets, which is a static STAC catalog too.

Importing this package stays cheap: pystac, xarray, Zarr and matplotlib load in the call.
"""

from __future__ import annotations

from ..bake import Provenance
from ..findings import Finding, Refused, Severity, Who, rule
from ..meta import Meta

ENTRY_FAILED = rule(
    "catalog-entry-failed",
    "The dataset is published and good; only nobody finds it in the catalog yet.",
    severity=Severity.WARNING,
    who=Who.OPERATOR,
)


def record(meta: Meta, made: Provenance, target: str) -> Finding | None:
    """Write the entry of the release that has just been baked into ``target``.

    Returns what kept it from being written, if something did, and never raises for it: the run has published a good
    dataset, and stays a success.
    """
    fix = f"feedstock catalog entry {target}, in a clone of the feedstock, with the storage's credentials"
    try:
        from . import entry

        entry.write(meta, made, target)
    except Refused as refused:
        return ENTRY_FAILED.at(None, f"{target} has no up-to-date catalog entry: {refused}", fix)
    except Exception as error:
        message = f"{target} has no up-to-date catalog entry: {type(error).__name__}: {error}"
        return ENTRY_FAILED.at(None, message, fix)
    return None
