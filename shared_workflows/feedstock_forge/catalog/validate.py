"""Whether a document is valid STAC, told without a network: every schema comes with a package, pystac's or this one.

https://github.com/radiantearth/stac-spec/tree/v1.1.0
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import pystac
from pystac.validation.stac_validator import JsonSchemaSTACValidator

DATACUBE = "https://stac-extensions.github.io/datacube/v2.2.0/schema.json"
XARRAY_ASSETS = "https://stac-extensions.github.io/xarray-assets/v1.0.0/schema.json"
_SCHEMAS = {DATACUBE: "datacube-v2.2.0.json", XARRAY_ASSETS: "xarray-assets-v1.0.0.json"}

# The datacube schema lets a reference system be PROJJSON; no entry says one, so its large schema is not needed.
_PROJJSON = "https://proj.org/schemas/v0.4/projjson.schema.json"

_KINDS = {
    "Catalog": pystac.STACObjectType.CATALOG,
    "Collection": pystac.STACObjectType.COLLECTION,
    "Feature": pystac.STACObjectType.ITEM,
}


@cache
def _validator() -> JsonSchemaSTACValidator:
    validator = JsonSchemaSTACValidator()
    for uri, name in _SCHEMAS.items():
        text = files(__package__).joinpath("schemas", name).read_text(encoding="utf-8")
        validator.schema_cache[uri] = json.loads(text)
    anything = {"$schema": "http://json-schema.org/draft-07/schema#", "$id": _PROJJSON, "type": "object"}
    validator.schema_cache[_PROJJSON] = anything
    return validator


def problem(document: Any) -> str | None:
    """What keeps a document from being valid STAC of the kind that it says it is, or ``None``."""
    if not isinstance(document, dict) or document.get("type") not in _KINDS:
        return "it is no STAC Catalog, Collection or Item"
    version = pystac.get_stac_version()
    if document.get("stac_version") != version:
        return f"its `stac_version` is {document.get('stac_version')!r}, not {version!r}"
    extensions = document.get("stac_extensions", [])
    unknown = [extensions]
    if isinstance(extensions, list):
        unknown = [uri for uri in extensions if not isinstance(uri, str) or uri not in _SCHEMAS]
    if unknown:
        return f"it uses the extension {unknown[0]}, which is not known here"
    try:
        _validator().validate(document, _KINDS[document["type"]], version, extensions)
    except pystac.STACValidationError as error:
        cause = error.__cause__
        where = ".".join(str(part) for part in getattr(cause, "absolute_path", ()))
        what = str(getattr(cause, "message", error)).splitlines()[0]
        return f"{where}: {what}" if where else what
    return None
