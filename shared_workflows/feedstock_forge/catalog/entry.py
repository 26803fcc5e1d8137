"""The entry of one dataset: a STAC Collection, and an Item for each release that can still be opened.

It lies below ``<target>/catalog/``, in a folder of its own, and once more beside the dataset. The collection is written
after its newest item and names it, so a reader finds an entry as it was or as it is, never half of one.

https://github.com/radiantearth/stac-spec/tree/v1.1.0
"""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import replace
from typing import Any

import pystac
from pystac.extensions.datacube import DatacubeExtension
from pystac.extensions.xarray_assets import XarrayAssetsExtension

from .. import datasets, licences
from ..bake import Provenance
from ..findings import Place, Refused, Who, rule
from ..meta import Meta
from . import opening
from .dataset import WHOLE_EARTH, BBox, Description, Published, describe, open_published
from .storage import Folder
from .validate import problem

MISPLACED = rule("catalog-dataset-misplaced", "A dataset's URL says which feedstock and recipe it is of.")
OTHER = rule("catalog-dataset-other", "An entry says of a dataset what the meta.yaml says that made it.")
UNRELEASED = rule("catalog-dataset-unreleased", "The catalog holds releases, which do not change any more.")
INVALID = rule("catalog-entry-invalid", "Other programs read entries as STAC says.", who=Who.OPERATOR)

CATALOG = "catalog"
"""The folder of a target that holds the entries of its datasets."""

COLLECTION = "collection.json"
MEDIA_TYPES = {"icechunk": "application/vnd.zarr+icechunk", "zarr": "application/vnd.zarr; version=3"}
MOST_RUNS = 1000


def place(address: datasets.Address) -> Folder:
    """Where a dataset's entry lies in its target's catalog."""
    return Folder(f"{address.target}/{CATALOG}/{address.folder}")


def beside(address: datasets.Address) -> Folder:
    """Where the entry lies beside the dataset."""
    return Folder(f"{address.target}/{address.folder}.stac")


def parse(url: str) -> datasets.Address:
    """The parts of a dataset's URL. Raises :class:`Refused` if it has others."""
    address = datasets.address(url)
    if address is None:
        fix = "name a dataset as a run writes it: <target>/<feedstock>/v<major>/<recipe>.<icechunk|zarr>"
        raise Refused(MISPLACED.at(None, f"{url} is not the URL of a feedstock's dataset", fix))
    return address


def write(meta: Meta, made: Provenance, url: str) -> Folder:
    """Write the entry of the dataset at ``url``, as it was baked and released by ``made``; returns where.

    What the dataset itself says of its origin counts before ``made``: a release that was baked before is not baked
    again. Writing the same run's entry again changes nothing. Raises :class:`Refused` if the dataset cannot be read or
    the entry cannot be written.
    """
    address = parse(url)
    published = open_published(url, made.version)
    if made.version is None:
        made = replace(made, version=_newest_release(published))
        published = open_published(url, made.version)
    described = describe(published.dataset)
    run = _run(published, made)
    asset = _asset(published)
    collection = _collection(meta, address, described, asset, run)
    item = _item(collection["id"], address, described, asset, run)
    item_name = f"{_file_name(run['version'])}.json"
    collection["links"].append(_link("item", item_name))
    folder, other = place(address), beside(address)
    for name, document in ((item_name, item), (COLLECTION, collection)):
        if wrong := problem(document):
            raise Refused(INVALID.at(Place(f"{folder.url}/{name}"), f"{url}: {wrong}", "open an issue at the forge"))
    copied = document_of(other.read(COLLECTION))
    before: dict[str, Any] | None = None

    def merge(data: bytes | None) -> bytes:
        nonlocal before
        before = document_of(data)
        older = [known for known in (before, copied) if known]
        return _bytes(_merged(collection, older, keep_items=published.store == "icechunk"))

    folder.write(item_name, _bytes(item))
    written = json.loads(folder.update(COLLECTION, merge))
    _copy(folder, other, written)
    stale = {name for known in (before, copied) if known for name in item_names(known)} - set(item_names(written))
    for name in sorted(stale):
        folder.remove(name)
        other.remove(name)
    return folder


def refuse_other(meta: Meta, address: datasets.Address) -> None:
    """Raise :class:`Refused` unless the dataset can be of the feedstock that has this meta.yaml."""
    recipes = [recipe.id for recipe in meta.recipes] if isinstance(meta.recipes, list) else None
    wrong = None
    if address.feedstock != meta.id:
        wrong = f"the feedstock here is `{meta.id}`, the dataset is of `{address.feedstock}`"
    elif address.major != meta.major:
        wrong = f"the feedstock here is at version {meta.version}, the dataset is of version {address.major}"
    elif recipes is not None and address.recipe not in recipes:
        wrong = f"the feedstock here has no recipe `{address.recipe}`"
    if wrong:
        fix = "run it in a clone of the feedstock that made the dataset, at the release's tag"
        raise Refused(OTHER.at(Place(address.url), wrong, fix))


def _newest_release(published: Published) -> str:
    """The newest release that a dataset holds. Raises :class:`Refused` if it holds none."""
    said = _said(published)
    if said.get("mode") == "complete" and "version" in said and said["version"] != said.get("commit"):
        return said["version"]
    if published.newest_tag:
        return published.newest_tag
    fix = "name the release it is: --version v1.0.0"
    raise Refused(UNRELEASED.at(Place(published.url), "the dataset does not say which release it is", fix))


def _collection(
    meta: Meta, address: datasets.Address, described: Description, asset: pystac.Asset, run: dict[str, Any]
) -> dict[str, Any]:
    many = not isinstance(meta.recipes, list) or len(meta.recipes) > 1
    people = [person.model_dump(include={"name", "github", "orcid"}, exclude_none=True) for person in meta.maintainers]
    fields = {
        "feedstock:id": address.feedstock,
        "feedstock:recipe": address.recipe,
        "feedstock:repository": run.get("repository"),
        "feedstock:dataset_version": meta.version,
        "feedstock:maintainers": people,
        "feedstock:license": meta.provenance.license,
        "feedstock:extent_unknown": described.bbox is None or None,
        "feedstock:runs": [run],
    }
    license_name, license_link = _license(meta)
    collection = pystac.Collection(
        id=f"{address.feedstock}-v{address.major}-{address.recipe}",
        title=f"{meta.title}: {address.recipe}" if many else meta.title,
        description=meta.description,
        extent=pystac.Extent(
            pystac.SpatialExtent([list(described.bbox or WHOLE_EARTH)]),
            pystac.TemporalExtent([[_moment(described.start), _moment(described.end)]]),
        ),
        license=license_name,
        keywords=list(dict.fromkeys([address.feedstock, address.recipe, *described.standard_names])),
        providers=[
            pystac.Provider(one.name, one.description, [pystac.ProviderRole(role) for role in one.roles], one.url)
            for one in meta.provenance.providers
        ],
        extra_fields={key: value for key, value in fields.items() if value is not None},
    )
    if license_link:
        collection.add_link(license_link)
    if repository := run.get("repository"):
        about = f"https://github.com/{repository}"
        collection.add_link(pystac.Link("about", about, "text/html", "The feedstock that makes this dataset"))
    document = _described(collection, described, asset)
    return {**document, "links": [_link("root"), *(link.to_dict() for link in collection.links if link.rel != "root")]}


def _item(
    collection: str, address: datasets.Address, described: Description, asset: pystac.Asset, run: dict[str, Any]
) -> dict[str, Any]:
    fields = {
        "title": f"{address.recipe} {run['version']}",
        "created": run["when"],
        "feedstock:version": run["version"],
        "feedstock:commit": run.get("commit"),
        "feedstock:run": run.get("run"),
        "feedstock:inputs": run.get("inputs"),
        "feedstock:calendar": described.calendar,
    }
    start, end = _moment(described.start), _moment(described.end)
    timed = start is not None and end is not None
    item = pystac.Item(
        id=f"{collection}-{_file_name(run['version'])}",
        geometry=_geometry(described.bbox) if described.bbox else None,
        bbox=list(described.bbox) if described.bbox else None,
        # STAC wants a time of every item; of a dataset without times, when it was made.
        datetime=None if timed else _moment(run["when"]),
        start_datetime=start if timed else None,
        end_datetime=end if timed else None,
        properties={key: value for key, value in fields.items() if value is not None},
        collection=collection,
    )
    return {**_described(item, described, asset), "links": [_link("root"), _link("parent"), _link("collection")]}


def _moment(text: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(text) if text else None


def _described(thing: pystac.Collection | pystac.Item, described: Description, asset: pystac.Asset) -> dict[str, Any]:
    """The document of a collection or an item, with the data cube that it is and the dataset as its asset."""
    DatacubeExtension.add_to(thing)
    fields = thing.extra_fields if isinstance(thing, pystac.Collection) else thing.properties
    fields["cube:dimensions"] = described.dimensions
    fields["cube:variables"] = described.variables
    XarrayAssetsExtension.add_to(thing)
    thing.add_asset("data", asset)
    return thing.to_dict(include_self_link=False)


def _asset(published: Published) -> pystac.Asset:
    snippet = opening.code(
        published.url, tag=published.tag, consolidated=published.consolidated, refers_to=published.refers_to
    )
    stored = Folder(published.url).bytes_stored()
    fields = {
        "feedstock:store": published.store,
        "feedstock:bytes": int(published.dataset.nbytes),
        "feedstock:bytes_stored": stored,
        "feedstock:refers_to": list(published.refers_to) or None,
        "icechunk:tag": published.tag,
        "icechunk:snapshot_id": published.snapshot,
        "xarray:open_kwargs": {"engine": "zarr", "consolidated": published.consolidated, "chunks": {}},
    }
    return pystac.Asset(
        published.url,
        title="Icechunk repository" if published.store == "icechunk" else "Zarr store",
        description=f"Open it in Python:\n\n```python\n{snippet}```\n",
        media_type=MEDIA_TYPES[published.store],
        roles=["data"],
        extra_fields={key: value for key, value in fields.items() if value is not None},
    )


def _license(meta: Meta) -> tuple[str, pystac.Link | None]:
    """What STAC takes: one SPDX id, or ``other``; and the link to the terms.

    https://github.com/radiantearth/stac-spec/blob/v1.1.0/commons/common-metadata.md#license
    """
    terms = licences.understand(meta.provenance.license)
    link = meta.provenance.license_link
    single = terms is not None and terms.license != licences.PROPRIETARY and not set(terms.license) & set(" ()")
    name = terms.license if terms and single else "other"
    if link:
        return name, pystac.Link("license", link.url, title=link.title)
    if terms and terms.url:
        return name, pystac.Link("license", terms.url)
    if single and not name.startswith(("LicenseRef", "DocumentRef")):
        return name, pystac.Link("license", f"https://spdx.org/licenses/{name}.html", "text/html")
    return name, None


def _geometry(bbox: BBox) -> dict[str, Any]:
    """The box as a polygon, or as two where it crosses the date line (RFC 7946, section 3.1.9)."""

    def ring(west: float, east: float) -> list[list[list[float]]]:
        _, south, _, north = bbox
        return [[[west, south], [east, south], [east, north], [west, north], [west, south]]]

    west, _, east, _ = bbox
    if west <= east:
        return {"type": "Polygon", "coordinates": ring(west, east)}
    return {"type": "MultiPolygon", "coordinates": [ring(west, 180.0), ring(-180.0, east)]}


def _run(published: Published, made: Provenance) -> dict[str, Any]:
    """The row of the run history for the run that made the dataset."""
    said = _said(published)
    # An update may have come since, whose commit and run are not those of the release.
    own = {
        key: value
        for key, value in (("repository", made.repository), ("commit", made.commit), ("run", made.run))
        if value
    }
    if said.get("version") == made.version:
        own |= {key: said[key] for key in ("repository", "commit", "run", "mode") if said.get(key)}
    inputs = published.dataset.attrs.get("feedstock_inputs")
    known = (
        {key: inputs[key] for key, kind in (("count", int), ("sha256", str)) if isinstance(inputs.get(key), kind)}
        if isinstance(inputs, dict)
        else {}
    )
    when = published.when or datetime.datetime.now(datetime.UTC)
    run = {
        "version": made.version or "unreleased",
        **own,
        "when": when.astimezone(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "inputs": known or None,
        "icechunk_tag": published.tag,
    }
    return {key: value for key, value in run.items() if value is not None}


def _said(published: Published) -> dict[str, str]:
    """What the dataset says of its origin."""
    said = published.dataset.attrs.get("feedstock_provenance")
    return {str(key): str(value) for key, value in said.items()} if isinstance(said, dict) else {}


def _merged(new: dict[str, Any], older: list[dict[str, Any]], *, keep_items: bool) -> dict[str, Any]:
    """The new collection with the runs of older ones, and with their items where those can still be opened.

    Plain Zarr keeps the newest state only, Icechunk each release by its tag.
    """
    # What was said of a run first stays: it is not the run's time that it was looked at again.
    runs: dict[tuple[str, str], dict[str, Any]] = {}
    for run in (run for known in [*older, new] for run in run_rows(known)):
        runs.setdefault(_key(run), run)
    ordered = sorted(runs.values(), key=lambda run: str(run.get("when", "")))[-MOST_RUNS:]
    kept = [name for known in older for name in item_names(known)] if keep_items else []
    names = list(dict.fromkeys([name for name in kept if name not in item_names(new)] + item_names(new)))
    links = [link for link in new["links"] if link["rel"] != "item"]
    return {**new, "feedstock:runs": ordered, "links": [*links, *(_link("item", name) for name in names)]}


def _key(run: dict[str, Any]) -> tuple[str, str]:
    """What tells runs apart: the id of the run, or of one on a laptop its version and commit."""
    return ("run", str(run["run"])) if run.get("run") else (str(run.get("version")), str(run.get("commit")))


def run_rows(collection: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a collection's run history, oldest first."""
    runs = collection.get("feedstock:runs")
    return [run for run in runs if isinstance(run, dict)] if isinstance(runs, list) else []


def item_names(collection: dict[str, Any]) -> list[str]:
    """The files of a collection's items, which lie beside it."""
    links = collection.get("links")
    items = (
        [link for link in links if isinstance(link, dict) and link.get("rel") == "item"]
        if isinstance(links, list)
        else []
    )
    names = [str(link.get("href")).removeprefix("./") for link in items]
    return [name for name in names if re.fullmatch(r"[\w+-][\w.+-]*\.json", name, re.ASCII) and name != COLLECTION]


def _copy(folder: Folder, other: Folder, collection: dict[str, Any]) -> None:
    """Put what a collection names, and then itself, into another folder."""
    names = item_names(collection)
    for number, name in enumerate(names, 1):
        if number == len(names) or other.read(name) is None:
            data = folder.read(name)
            if data is not None:
                other.write(name, data)
    other.write(COLLECTION, _bytes(collection))


def _link(rel: str, name: str = COLLECTION) -> dict[str, Any]:
    return {"rel": rel, "href": f"./{name}", "type": "application/geo+json" if rel == "item" else "application/json"}


def _file_name(version: str) -> str:
    """A release's tag as part of a file's name and an item's id."""
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-+") else "-" for letter in version)
    return kept.lstrip(".")[:100] or "unreleased"


def _bytes(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "replace")


def document_of(data: bytes | None) -> dict[str, Any] | None:
    """A document, or ``None`` where there is none or another hand broke it."""
    if data is None:
        return None
    try:
        document = json.loads(data)
        # What JSON can say and other programs cannot read: half a character, and numbers that no double holds.
        json.dumps(json.loads(data, parse_int=float), ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
