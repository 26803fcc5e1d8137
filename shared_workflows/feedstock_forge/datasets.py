"""Where datasets live: ``<target>/<feedstock>/v<major>/<recipe>.<store>``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from .meta import Store

_PLACE = re.compile(
    r"(.*)/([a-z0-9-]+)/v(0|[1-9]\d{0,8})/([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\.(icechunk|zarr)/?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of a dataset's URL."""

    target: str
    feedstock: str
    major: int
    recipe: str
    store: Store

    @property
    def url(self) -> str:
        """The URL that has these parts."""
        return f"{self.target}/{self.folder}.{self.store}"

    @property
    def folder(self) -> str:
        """The dataset's place below any target, without its ending."""
        return f"{self.feedstock}/v{self.major}/{self.recipe}"


def address(url: str) -> Address | None:
    """The parts of a dataset's URL, or ``None`` if it is not laid out as the URLs of datasets are."""
    found = _PLACE.fullmatch(url)
    if found is None:
        return None
    target, feedstock, major, recipe, store = found.groups()
    return Address(target, feedstock, int(major), recipe, cast(Store, store))


def url(target: str, feedstock: str, version: str, recipe: str, store: Store, *, pruned: bool = False) -> str:
    """The URL of a dataset below a target.

    ``version`` is the ``MAJOR.MINOR`` of ``meta.yaml``: a minor overwrites, a major keeps the old dataset. A pruned run
    writes beside the dataset, never over it.
    """
    ending = f"pruned.{store}" if pruned else store
    return f"{target.rstrip('/')}/{feedstock}/v{version.split('.')[0]}/{recipe}.{ending}"
