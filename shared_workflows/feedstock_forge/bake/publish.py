"""The next state of a dataset that a recipe writes by itself: published at the end, or not at all."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import dask
import zarr
from zarr.abc.store import Store as ZarrStore
from zarr.errors import GroupNotFoundError

from ..findings import Refused, rule
from . import Provenance, record
from .oven import commit_of, is_released
from .steps import run_log
from .stores import claim, storage_errors

NOT_WRITTEN = rule("dataset-not-written", "What holds no data must not take the place of a dataset.")

log = logging.getLogger("feedstock_forge.bake")


@contextmanager
def run(target: str, *, keep: bool, prune: bool, provenance: Provenance | None) -> Iterator[ZarrStore]:
    """Do what :func:`feedstock_forge.bake.publishing` says."""
    with run_log(), claim(target) as store:
        release = provenance if provenance and provenance.is_release and not prune else None
        done = release is not None and is_released(store, release)
        if not done:
            store.ensure_writable()
        with storage_errors(target):
            state = store.begin(keep=keep and store.published() is not None)
        # The workers of a cluster would write into copies of an Icechunk session that nobody commits.
        with dask.config.set(scheduler="threads"):
            yield state
        if done:
            return
        _describe(state, target, provenance)
        mode = (provenance and provenance.mode) or "complete"
        message, metadata = commit_of(mode, provenance, "write the dataset", prune)
        with storage_errors(target):
            store.publish(message, metadata, release.version if release else None)
        log.info("published %s: %s", target, message)


def _describe(state: ZarrStore, target: str, provenance: Provenance | None) -> None:
    """Write into the root attributes where the dataset comes from. Raises :class:`Refused` if there is none."""
    try:
        group = zarr.open_group(state, mode="r+", zarr_format=3, use_consolidated=False)
    except GroupNotFoundError:
        group = None
    if group is None or not any(True for _ in group.members()):
        fix = 'write it in the block: `ds.to_zarr(store, mode="w", zarr_format=3, consolidated=False)`'
        raise Refused(NOT_WRITTEN.at(None, f"nothing was written for {target}", fix))
    if provenance:
        group.attrs[record.PROVENANCE] = record.known(provenance)
