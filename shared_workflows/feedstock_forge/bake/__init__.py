"""What a recipe calls to bake its inputs into one dataset: an Icechunk repository or a Zarr v3 store.

A recipe names its inputs and a few choices; :func:`bake` fetches, checks, writes and publishes. Nothing is published
before every input has been checked and every chunk written, so a run that fails or is killed leaves the dataset as
it was; the next one goes on from what it had written, if that took long. The same call works on a laptop and inside a
Prefect flow run, where its steps show as task runs.

Importing this module stays cheap, because planning imports every recipe: xarray, Zarr and Icechunk load in the call.
"""

from __future__ import annotations

import logging
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, SupportsIndex

from ..findings import Refused, rule

if TYPE_CHECKING:
    import xarray as xr
    from zarr.abc.store import Store

Mode = Literal["complete", "update"]

PRUNED_INPUTS = 2
"""How many inputs a pruned run takes: two, so that joining them is tried too."""

NO_LIST = rule("inputs-invalid", "Inputs are joined in the order in which a list names them, one by one.")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a dataset comes from; written into its root attributes and its commits."""

    feedstock: str
    recipe: str
    repository: str | None = None
    commit: str | None = None
    version: str | None = None
    mode: str | None = None
    run: str | None = None

    @property
    def is_release(self) -> bool:
        """Whether the run makes all of a release, which has a tag for a version, and not a commit."""
        return self.mode == "complete" and self.version is not None and self.version != self.commit


provenance: ContextVar[Provenance | None] = ContextVar("provenance", default=None)
"""Set by whoever runs the recipe; nothing in the recipe needs to know it."""


@contextmanager
def coming_from(made: Provenance | None) -> Iterator[None]:
    """Say of every dataset that is baked in the block where it comes from."""
    token = provenance.set(made)
    try:
        yield
    finally:
        provenance.reset(token)


def bake(
    inputs: Iterable[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    *,
    concat_dim: str,
    mode: str = "complete",
    prune: bool = False,
    chunks: Mapping[str, SupportsIndex] | None = None,
    chunk_size: str = "16 MiB",
    preprocess: Callable[[xr.Dataset], xr.Dataset] | None = None,
) -> None:
    """Bake ``inputs`` into the dataset at ``target``, joined along ``concat_dim`` in the order given.

    ``inputs`` are URLs or paths of NetCDF files. ``target`` is a URL or path ending in ``.icechunk`` or ``.zarr``.
    ``complete`` writes everything anew; ``update`` appends the inputs that the dataset does not hold yet, and is the
    same as ``complete`` where there is no dataset. ``prune`` takes only the first :data:`PRUNED_INPUTS` inputs.
    ``chunks`` gives the length of a chunk along some dimensions, in elements; along the others a chunk is as long as
    ``chunk_size`` (before compression) allows, and of these ``concat_dim`` is the first to be split. ``preprocess``
    gets each input as a decoded, lazily loaded dataset and returns the one to write; it may run more than once for an
    input.

    Values, packing, fill values, units and calendars are kept: what is written decodes to what was read. Attributes
    that differ between inputs are left out, since they cannot be true of the whole.

    Raises :class:`~feedstock_forge.findings.Refused` with everything found to be wrong; the published dataset is then
    what it was before.
    """
    from .oven import run

    run(
        _named(inputs),
        os.fspath(target),
        concat_dim=concat_dim,
        mode=mode,
        prune=prune,
        chunks={dim: _whole(length) for dim, length in (chunks or {}).items()},
        chunk_size=chunk_size,
        preprocess=preprocess,
        provenance=provenance.get(),
    )


def bake_virtual(
    inputs: Iterable[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    *,
    concat_dim: str,
    mode: str = "complete",
    prune: bool = False,
    preprocess: Callable[[xr.Dataset], xr.Dataset] | None = None,
) -> None:
    """Write a dataset at ``target`` that refers to the chunks of ``inputs`` where they lie, and copies no data.

    ``inputs`` are NetCDF 4 (HDF5) files at ``https``, ``http`` or ``s3`` URLs that readers can reach, or paths.
    ``target`` is a URL or path ending in ``.icechunk``. Coordinates, times and one-dimensional variables are copied.
    All files must be chunked and compressed alike, with chunks along ``concat_dim`` that divide each file's length.
    ``preprocess`` may rename, drop and describe variables and change those that are copied. The rest is as for
    :func:`bake`.

    Raises :class:`~feedstock_forge.findings.Refused`; the published dataset is then what it was before.
    """
    from .virtual import run

    run(
        _named(inputs),
        os.fspath(target),
        concat_dim=concat_dim,
        mode=mode,
        prune=prune,
        preprocess=preprocess,
        provenance=provenance.get(),
    )


def publishing(
    target: str | os.PathLike[str], *, keep: bool = False, prune: bool = False
) -> AbstractContextManager[Store]:
    """For a recipe that writes its dataset by itself: the Zarr store to write into, published when the block ends.

    ::

        with publishing(target, prune=prune) as store:
            ds.to_zarr(store, mode="w", zarr_format=3, consolidated=False)

    ``target`` is a URL or path ending in ``.icechunk`` or ``.zarr``. The store is empty, or with ``keep`` holds what is
    published, to append to or to change. Readers see the old dataset until the block ends, and the new one then: one
    Icechunk commit, with a tag if the run is a release's, or one exchange of folders. A block that raises or is killed
    leaves the dataset as it was. A release that was baked before stays as it is, whatever the block writes. ``prune``
    says that the run is a trial, which no release is. Arrays of Dask are computed in this process, in threads.

    Raises :class:`~feedstock_forge.findings.Refused` if the target cannot be written, another run is at it, or the
    block writes nothing.
    """
    from .publish import run

    return run(os.fspath(target), keep=keep, prune=prune, provenance=provenance.get())


def _named(inputs: Iterable[str | os.PathLike[str]]) -> list[str]:
    """The inputs as URLs and paths. Raises :class:`Refused` if they are not named one by one."""
    fix = "write a list of URLs or paths, also for a single one: INPUTS = [...]"
    if isinstance(inputs, str | bytes | os.PathLike) or not isinstance(inputs, Iterable):
        raise Refused(NO_LIST.at(None, f"`inputs` is a {type(inputs).__name__}, not a list", fix))
    named = list(inputs)
    for each in named:
        if not isinstance(each, str | os.PathLike):
            raise Refused(NO_LIST.at(None, f"`inputs` holds a {type(each).__name__}, not a URL or a path", fix))
    return [os.fspath(each) for each in named]


def _whole(length: SupportsIndex) -> int:
    """A length that NumPy has computed as Python's own; what is none stays as it is, for the run to refuse."""
    try:
        return length if isinstance(length, bool) else operator.index(length)
    except TypeError:
        return length  # type: ignore[return-value]
