"""Where entries come from: targets, and the entries found below them, read as the word of strangers.

A recipe runs beside the credentials that write its dataset, so it could have written anything here. What is wrong is
left out and said; where a dataset lies follows from where its entry lies, never from what the entry says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .. import datasets
from ..bakery import Bakeries
from ..findings import Finding, Place, Refused, Severity, Who, rule

BROKEN = rule(
    "catalog-entry-broken",
    "What is not valid STAC cannot be shown, and other programs could not read it.",
    severity=Severity.WARNING,
    who=Who.OPERATOR,
)
MISSING = rule(
    "catalog-entry-missing",
    "Nobody finds a dataset that has no entry.",
    severity=Severity.WARNING,
    who=Who.OPERATOR,
)
DIFFERS = rule(
    "catalog-entry-differs",
    "The entry beside the dataset is for whoever finds the dataset first, and says the same.",
    severity=Severity.WARNING,
    who=Who.OPERATOR,
)
GONE = rule(
    "catalog-dataset-gone",
    "Who follows an entry should find its dataset.",
    severity=Severity.WARNING,
    who=Who.OPERATOR,
)
NO_SOURCE = rule("catalog-source-missing", "A website of nothing is mostly a mistyped URL.")

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Source:
    """A target whose datasets the website shows, and how everybody else may read them."""

    url: str
    public_url: str | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry that is valid STAC."""

    source: Source
    address: datasets.Address
    collection: dict[str, Any]
    items: dict[str, dict[str, Any]]
    """The items by the names of their files, oldest first."""

    @property
    def newest(self) -> dict[str, Any]:
        """The item of the newest release."""
        return list(self.items.values())[-1]

    @property
    def data(self) -> dict[str, Any]:
        """The dataset as the newest item's asset."""
        asset: dict[str, Any] = self.newest["assets"]["data"]
        return asset

    @property
    def tag(self) -> str | None:
        """The newest release's tag in its Icechunk repository."""
        tag = self.data.get("icechunk:tag")
        return tag if isinstance(tag, str) and self.address.store == "icechunk" else None


@dataclass(slots=True)
class Found:
    """What was found at some sources."""

    entries: list[Entry] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def resolve(words: Iterable[str], bakeries: Bakeries) -> list[Source]:
    """The sources that a person names: a target by URL or path, or a bakery by its id, which means all its targets.

    Raises :class:`Refused` for a bakery that there is not.
    """
    found: dict[str, Source] = {}
    for word in words:
        if "/" in word or word.startswith((".", "~")):
            found.setdefault(word, Source(word.rstrip("/")))
        else:
            for target in bakeries.read(word).bakery.targets.values():
                found[target.url] = Source(target.url.rstrip("/"), target.public_url, _region(target.region))
    return list(found.values())


def _region(region: str | None) -> str | None:
    """The cloud's own name of a region: bakeries write ``aws.us-west-2``."""
    return region.split(".", 1)[-1] if region else None


def read(sources: Iterable[Source]) -> Found:
    """Every entry below the sources, in a fixed order, and what is wrong with those that are left out.

    Raises :class:`Refused` if a source cannot be read, or there is nothing that looks like one.
    """
    from .entry import CATALOG
    from .storage import Folder

    found = Found()
    for source in sources:
        folder = Folder(f"{source.url}/{CATALOG}")
        root = Folder(source.url)
        if root.path is not None and not root.path.is_dir():
            raise Refused(NO_SOURCE.at(None, f"there is no folder {root.path}", "name a target, or the id of a bakery"))
        for address in _addresses(folder, source):
            try:
                found.entries.append(_entry(source, address))
            except Refused as refused:
                # Storage that cannot be reached says nothing of its entries, and nobody's page must go for it.
                if any(finding.severity is Severity.ERROR for finding in refused.findings):
                    raise
                found.findings.extend(refused.findings)
    return found


def _addresses(folder: Any, source: Source) -> Iterator[datasets.Address]:
    """Where there are entries; of a store of datasets each entry says itself which kind it is."""
    for feedstock in filter(_NAME.fullmatch, folder.folders()):
        for version in folder.folders(feedstock):
            for recipe in filter(_NAME.fullmatch, folder.folders(f"{feedstock}/{version}")):
                address = datasets.address(f"{source.url}/{feedstock}/{version}/{recipe}.icechunk")
                if address:
                    yield address


def _entry(source: Source, address: datasets.Address) -> Entry:
    from .entry import COLLECTION, document_of, item_names, place
    from .validate import problem

    folder = place(address)

    def document(name: str, kind: str) -> dict[str, Any]:
        data = folder.read(name)
        found = document_of(data)
        if data is None:
            wrong: str | None = "it is not there"
        elif found is None:
            wrong = "it is no JSON object, or holds text or numbers that are none"
        else:
            wrong = problem(found) if found.get("type") == kind else f"it is no STAC {kind}"
        if wrong or found is None:
            raise Refused(_broken(folder.url, name, str(wrong), address))
        return found

    collection = document(COLLECTION, "Collection")
    items = {name: document(name, "Feature") for name in item_names(collection)}
    if not items:
        raise Refused(_broken(folder.url, COLLECTION, "it names no item", address))
    data = list(items.values())[-1]["assets"].get("data", {})
    store = data.get("feedstock:store")
    if store not in ("icechunk", "zarr"):
        raise Refused(_broken(folder.url, COLLECTION, "it has no dataset as its asset `data`", address))
    address = datasets.Address(address.target, address.feedstock, address.major, address.recipe, store)
    return Entry(source, address, collection, items)


def _broken(folder: str, name: str, wrong: str, address: datasets.Address) -> Finding:
    fix = f"feedstock catalog entry {address.target}/{address.folder}.<icechunk|zarr>, in a clone of its feedstock"
    return BROKEN.at(Place(f"{folder}/{name}"), wrong, fix)


def check(sources: Iterable[Source]) -> Found:
    """As :func:`read`, and hold each entry against its dataset, and each dataset against the entries."""
    from .dataset import open_published
    from .entry import COLLECTION, beside, document_of

    found = read(sources)
    for entry in found.entries:
        again = f"feedstock catalog entry {entry.address.url}, in a clone of its feedstock"
        try:
            published = open_published(entry.address.url, entry.tag)
        except Refused as refused:
            fix = "bring the dataset back, or remove the entry's folder"
            found.findings += [GONE.at(Place(entry.address.url), item.message, fix) for item in refused.findings]
            continue
        if published.tag != entry.tag:
            message = f"the entry says that it has the tag `{entry.tag}`, and it has not"
            found.findings.append(GONE.at(Place(entry.address.url), message, again))
        if document_of(beside(entry.address).read(COLLECTION)) != entry.collection:
            place = Place(f"{beside(entry.address).url}/{COLLECTION}")
            found.findings.append(DIFFERS.at(place, "it is not what stands in the catalog", again))
    found.findings += _without_entry(sources, found)
    return found


def _without_entry(sources: Iterable[Source], found: Found) -> Iterator[Finding]:
    from .entry import CATALOG
    from .storage import Folder

    known = {entry.address.url for entry in found.entries}
    for source in sources:
        folder = Folder(source.url)
        for feedstock in folder.folders():
            for version in folder.folders(feedstock) if feedstock != CATALOG else ():
                for name in folder.folders(f"{feedstock}/{version}"):
                    address = datasets.address(f"{source.url}/{feedstock}/{version}/{name}")
                    if address is None or address.recipe.endswith(".pruned") or address.url in known:
                        continue
                    fix = f"feedstock catalog entry {address.url}, in a clone of its feedstock"
                    yield MISSING.at(Place(address.url), "the dataset has no entry that can be read", fix)
