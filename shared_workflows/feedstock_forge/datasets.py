"""Where datasets live: ``<target>/<feedstock>/v<major>/<recipe>.<store>``."""

from __future__ import annotations

from .meta import Store


def url(target: str, feedstock: str, version: str, recipe: str, store: Store, *, pruned: bool = False) -> str:
    """The URL of a dataset below a target.

    ``version`` is the ``MAJOR.MINOR`` of ``meta.yaml``: a minor overwrites, a major keeps the old dataset. A pruned run
    writes beside the dataset, never over it.
    """
    ending = f"pruned.{store}" if pruned else store
    return f"{target.rstrip('/')}/{feedstock}/v{version.split('.')[0]}/{recipe}.{ending}"
