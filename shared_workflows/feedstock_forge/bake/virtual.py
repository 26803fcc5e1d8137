"""References instead of copies: a dataset that says where in the provider's files each of its chunks lies.

The steps are those of a bake. Only coordinates and what is small are copied; for the rest the Icechunk repository
keeps the URL, offset and length of each chunk, with the container that says how readers reach it.
"""

from __future__ import annotations

import datetime
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, unquote, urlsplit

import dask
import icechunk
import numpy as np
import xarray as xr
import zarr
from icechunk import IcechunkStore as IcechunkSession
from zarr.abc.store import Store as ZarrStore

from ..findings import Finding, Refused, refuse_errors, rule
from . import oven
from .fetch import FORBIDDEN, MISSING, PROTOCOL, UNREACHABLE, local_path, not_a_url, patience, shown
from .inputs import HDF5, Description, Opened, Preprocess, Variable, first_line, not_netcdf, reading
from .steps import MOST_FINDINGS
from .stores import IcechunkStore, Store

if TYPE_CHECKING:
    from obspec_utils.registry import ObjectStoreRegistry

ICECHUNK_ONLY = rule("virtual-needs-icechunk", "Plain Zarr has no place for references to other files.")
NO_LIBRARY = rule("virtual-library-missing", "References are found by VirtualiZarr.")
KEPT_URL = rule("virtual-url-private", "A reference is published and kept, and with it whatever its URL holds.")
NOT_REFERABLE = rule("virtual-not-referable", "A reference needs chunks that Zarr can read where they lie.")
COMPUTED = rule("virtual-computed", "A reference leads to what the file holds, not to what was made of it.")
CHUNKS = rule("virtual-chunks", "Chunks stay as they lie in the files, and one array has chunks of one kind.")
UNREADABLE = rule("virtual-unreadable", "Readers must get from the references what the files hold.")

_HEAD = 512

# Whoever refers to a file takes it as it is compressed.
warnings.filterwarnings("ignore", "Numcodecs codecs are not in the Zarr version 3 specification")


@dataclass(frozen=True, slots=True)
class _Source:
    """An input whose chunks are known."""

    group: Any
    """VirtualiZarr's ManifestGroup: where the chunks of each variable lie."""
    identity: str
    """What tells the file from one that was changed."""
    unchanged_since: datetime.datetime
    """Whoever reads a reference is told if the file was changed after this moment."""
    names: dict[str, str]
    """What each variable that is referred to is called in the file."""
    layouts: dict[str, dict[str, Any]]
    """How each of them is chunked and compressed, as xarray's encoding for Zarr."""


class References(oven.Bake):
    """The inputs of one run, and what becomes of them: references, and copies of what is small."""

    here = ("sources",)

    def __init__(
        self,
        urls: Sequence[str],
        concat_dim: str,
        preprocess: Preprocess | None,
        fetcher: Any,
        stop: threading.Event,
    ) -> None:
        super().__init__([_absolute(url) for url in urls], concat_dim, preprocess, fetcher, stop)
        self.registry = _registry(self.urls)
        self.sources: dict[int, _Source] = {}

    def look(self, number: int, url: str) -> tuple[Description, int]:
        """Find the chunks of one input and describe it, here or on a worker; returns its size in bytes too.

        Raises :class:`Refused`.
        """
        if self.workers is not None:
            return super().look(number, url)
        oven.log.info("looking for the chunks of %s", shown(url))
        size = self._find(number)
        source, opened = self.sources[number], self.open(number)
        with _provider_errors(url):
            description = self.describe(number, opened)
        referred = [name for name, variable in description.variables.items() if not self.copies(variable)]
        refuse_errors(finding for name in referred for finding in self._untouched(opened, name, description))
        source.names.update({name: opened.untouched[name] for name in referred})
        source.layouts.update({name: _layout(opened.raw.variables[source.names[name]]) for name in referred})
        return description, size

    def known(self, number: int) -> dict[str, dict[Any, Any]]:
        """What the recipe's process has to know of an input, which needs to know of its chunks, too."""
        return {**super().known(number), "sources": {number: self.sources[number]}}

    def identity(self, number: int) -> str:
        """What tells the file of this input from one that was changed."""
        return self.sources[number].identity

    def open(self, number: int) -> Opened:
        """Open the input of this number through its references."""
        if number not in self.sources:  # another machine has looked at it
            self._find(number)
            if self.identity(number) != self.identities[number]:
                raise oven.replaced(self.urls[number])
        store, lazy = _read_by(self.sources[number].group, self.registry), None
        with _provider_errors(self.urls[number]), reading(self.urls[number]):
            raw = xr.open_zarr(store, zarr_format=3, consolidated=False, decode_cf=False, chunks=None)
            if self.preprocess is not None:
                with dask.config.set({"array.chunk-size": "4MiB"}):
                    lazy = xr.open_zarr(store, zarr_format=3, consolidated=False, decode_cf=False, chunks={})
            return Opened(self.urls[number], raw, self.preprocess, lazy)

    def copies(self, variable: Variable) -> bool:
        """Whether it is small (one-dimensional), or times, whose units may differ between inputs."""
        return variable.digest is not None or variable.is_time or len(variable.dims) == 1

    def storage(self, name: str, shape: tuple[int, ...], chunks: dict[str, int]) -> dict[str, Any]:
        """As the first input stores it, for what is referred to."""
        if self.copies(self.reference.variables[name]):
            return super().storage(name, shape, chunks)
        return self.sources[0].layouts[name]

    def check(self, base: oven.Published | None) -> None:
        """Hold the inputs against each other, their chunks too. Raises :class:`Refused`."""
        super().check(base)
        refuse_errors(islice(self._misfits(base), MOST_FINDINGS))

    def begin(self, store: Store, *, keep: bool) -> ZarrStore:
        """What the next state is written into, which knows where its references lead."""
        assert isinstance(store, IcechunkStore)  # noqa: S101 - no other kind of target comes this far
        return store.begin(keep=keep, fork=self.workers is not None, containers=_containers(self.urls))

    def write(
        self, store: ZarrStore, base: oven.Published | None, chunks: dict[str, int], made: dict[str, Any]
    ) -> None:
        """Write the copies, then every reference into ``store``; then read some of them back."""
        super().write(store, base, chunks, made)
        start = self.reference.length if base else 0
        group, count = zarr.open_group(store, mode="r"), 0
        starts = np.cumsum([start, *(description.length for description in self.descriptions)]).tolist()
        for number, source in self.sources_in_order():
            for name, original in source.names.items():
                array = cast("zarr.Array[Any]", group[name])
                manifest = source.group[original].manifest
                count += self._refer(cast(IcechunkSession, store), name, array, manifest, number, starts)
            if number in (0, len(self.urls) - 1):
                self._read_back(group, number, starts[number])
        oven.log.info("wrote %d references", count)

    def sources_in_order(self) -> Iterator[tuple[int, _Source]]:
        """Each input's number and source."""
        return ((number, self.sources[number]) for number in range(len(self.urls)))

    def _find(self, number: int) -> int:
        """Find the chunks of one input; returns its size in bytes. Raises :class:`Refused`."""
        url = self.urls[number]
        size, identity, modified = _refuse_other_files(url, self.registry)
        group = _chunks_of(url, size, self.registry)
        refuse_errors(_gaps(url, _read_by(group, self.registry), self.concat_dim))
        self.sources[number] = _Source(group, identity, modified, {}, {})
        return size

    def _refer(
        self, store: IcechunkSession, name: str, array: zarr.Array[Any], manifest: Any, number: int, starts: list[int]
    ) -> int:
        axis = self._axis(name)
        offset = starts[number] // array.chunks[axis]
        chunks = [
            icechunk.VirtualChunkSpec(
                index=[at + offset if dim == axis else at for dim, at in enumerate(index)],
                location=chunk["path"],
                offset=chunk["offset"],
                length=chunk["length"],
                last_updated_at_checksum=self.sources[number].unchanged_since,
            )
            for index, chunk in (manifest.iter_refs() if array.size else ())
        ]
        if failed := store.set_virtual_refs(name, chunks):
            what = f"{len(failed)} chunks of `{name}` in {shown(self.urls[number])} lie where no container leads"
            raise Refused(UNREADABLE.at(None, what, "report this as a fault of the forge's"))
        return len(chunks)

    def _read_back(self, group: zarr.Group, number: int, start: int) -> None:
        """Read the first chunk of each variable as a reader does. Raises :class:`Refused` if it is not the file's."""
        opened, url = self.open(number), self.urls[number]
        for name in self.sources[number].names:
            array, axis = cast("zarr.Array[Any]", group[name]), self._axis(name)
            dims = self.reference.variables[name].dims
            here = {dim: slice(0, chunk) for dim, chunk in zip(dims, array.chunks, strict=True)}
            there = dict(here)
            length = min(array.chunks[axis], self.descriptions[number].length)
            here[self.concat_dim] = slice(0, length)
            there[self.concat_dim] = slice(start, start + length)
            try:
                with _provider_errors(url):
                    original = opened.values(name, here)
                found = np.asarray(array[tuple(there[dim] for dim in dims)])
            except (icechunk.IcechunkError, OSError, ValueError, RuntimeError) as error:
                what = f"`{name}` cannot be read from {shown(url)} through its references: {error}"
                raise Refused(UNREADABLE.at(None, what.split("\n")[0], _COPY)) from error
            if original.tobytes() != found.tobytes():
                what = f"`{name}` of {shown(url)} reads otherwise through its references"
                raise Refused(UNREADABLE.at(None, what, _COPY))

    def _untouched(self, opened: Opened, name: str, description: Description) -> Iterator[Finding]:
        """What keeps a variable from being referred to: `preprocess` has computed it, or turned it."""
        source = opened.untouched.get(name)
        if source is None or opened.raw.variables[source].dims != description.variables[name].dims:
            what = f"`preprocess` changes the values of `{name}` in {shown(opened.name)}"
            fix = "let it only rename, drop and describe, or copy the data: `bake` instead of `bake_virtual`"
            yield COMPUTED.at(None, what, fix)

    def _misfits(self, base: oven.Published | None) -> Iterator[Finding]:
        """Where the chunks of an input do not continue those before it."""
        for name, variable in self.reference.variables.items():
            if self.copies(variable):
                continue
            first = _layout(base.dataset.raw.variables[name]) if base else self.sources[0].layouts[name]
            whom = shown(self.reference.name)
            length = first["chunks"][self._axis(name)]
            before = [("the published dataset", self.reference.length)] if base else []
            described = before + [(shown(each.name), each.length) for each in self.descriptions]
            for number, url in enumerate(self.urls):
                own = self.sources[number].layouts[name]
                if differing := [key for key in first if repr(own[key]) != repr(first[key])]:
                    key = differing[0]
                    what = f"`{name}` of {shown(url)} has {key} {own[key]} instead of {first[key]} as in {whom}"
                    yield CHUNKS.at(None, what, _COPY)
            for who, steps in described[:-1]:
                if steps % length:
                    what = f"`{name}` has chunks of {length} steps, which do not divide the {steps} steps of {who}"
                    yield CHUNKS.at(None, what, _COPY)


def _layout(variable: xr.Variable) -> dict[str, Any]:
    return {key: variable.encoding[key] for key in ("chunks", "filters", "serializer", "compressors", "fill_value")}


_COPY = "copy the data: `bake` instead of `bake_virtual`; or leave the input out"


def run(inputs: list[str], target: str, **choices: Any) -> None:
    """Do what :func:`feedstock_forge.bake.bake_virtual` says."""
    if not target.rstrip("/").endswith(".icechunk"):
        fix = "end it in .icechunk, and write `store: icechunk` in meta.yaml"
        raise Refused(ICECHUNK_ONLY.at(None, f"{target} cannot hold references", fix))
    try:
        import virtualizarr  # noqa: F401
    except ImportError as error:
        fix = "add `virtualizarr>=2.5,<3` to feedstock/requirements.txt and install it"
        raise Refused(NO_LIBRARY.at(None, f"VirtualiZarr cannot be imported: {error}", fix)) from None
    refuse_errors(islice(_unfit(inputs), MOST_FINDINGS))
    oven.run(inputs, target, chunks={}, kind=References, **choices)
    containers = ", ".join(_containers([_absolute(url) for url in inputs]))
    oven.log.info("readers of %s have to allow access to %s", target, containers)


def _unfit(inputs: list[str]) -> Iterator[Finding]:
    for url in inputs:
        if local_path(url) is not None:
            continue
        try:
            parts, port = urlsplit(url), urlsplit(url).port
        except ValueError as error:
            yield from not_a_url(url, error).findings
            continue
        if not parts.hostname:
            yield from not_a_url(url, "it names no host").findings
        elif parts.query or "@" in parts.netloc:
            fix = "use a URL that is open to readers, or copy the data: `bake` instead of `bake_virtual`"
            yield KEPT_URL.at(None, f"{shown(url)} holds a query or a password", fix)
        elif port and icechunk.__version__.startswith("1."):
            # https://github.com/earth-mover/icechunk/pull/2219
            what = f"Icechunk {icechunk.__version__} does not keep the port of {shown(url)}"
            fix = "use Python 3.12 or newer and Icechunk 2, or copy the data: `bake` instead of `bake_virtual`"
            yield NOT_REFERABLE.at(None, what, fix)


def _absolute(url: str) -> str:
    """As Icechunk and VirtualiZarr take it: a URL that spells out what has a meaning in URLs, also where a path or the
    key of an object holds that."""
    path = local_path(url)
    if path is not None:
        # Links stay as they are named, where no `..` goes up from one: no URL can hold that.
        return (path.resolve() if ".." in path.parts else path.absolute()).as_uri()
    return f"s3://{quote(url.removeprefix('s3://'))}" if url.startswith("s3://") else url


def _origin(url: str) -> str:
    """What comes before the path: ``https://host``, ``s3://bucket``, ``file://``."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _registry(urls: Sequence[str]) -> ObjectStoreRegistry[Any]:
    """How to read each URL. Raises :class:`Refused` if there is no way."""
    import obstore.store
    from obspec_utils.registry import ObjectStoreRegistry

    seconds = patience()
    retrying: Any = {"max_retries": 50, "retry_timeout": datetime.timedelta(seconds=seconds)}
    client: Any = {"allow_http": True, "connect_timeout": "10s", "timeout": f"{max(seconds, 30):g}s"}
    make: dict[str, Callable[[str], Any]] = {
        "file": lambda _: obstore.store.LocalStore(),
        "http": lambda origin: obstore.store.HTTPStore.from_url(origin, client_options=client, retry_config=retrying),
        "s3": lambda origin: obstore.store.S3Store.from_url(
            origin, client_options=client, retry_config=retrying, skip_signature=_anonymous()
        ),
    }
    make["https"] = make["http"]
    registry: ObjectStoreRegistry[Any] = ObjectStoreRegistry()
    for origin, url in {_origin(url): url for url in reversed(urls)}.items():
        scheme = urlsplit(origin).scheme
        if scheme not in make:
            fix = "use https, http, s3 or file, or copy the data: `bake` instead of `bake_virtual`"
            raise Refused(PROTOCOL.at(None, f"{shown(url)} cannot be referred to", fix))
        registry.register(origin, _ByPath(make[scheme](origin)))
    return registry


@dataclass(frozen=True, slots=True)
class _ByPath:
    """What VirtualiZarr asks of one of obstore's stores, by the path of a URL: obstore takes names as they are."""

    store: Any

    def head(self, path: str) -> Any:
        return self.store.head(unquote(path))

    def get(self, path: str, **choices: Any) -> Any:
        return self.store.get(unquote(path), **choices)

    def get_ranges(self, path: str, **ranges: Any) -> Any:
        return self.store.get_ranges(unquote(path), **ranges)

    async def get_range_async(self, path: str, **span: Any) -> Any:
        return await self.store.get_range_async(unquote(path), **span)


def _containers(urls: Sequence[str]) -> dict[str, tuple[icechunk.VirtualChunkContainer, Any]]:
    """What a repository has to say of where its references lead, by prefix; and what it takes to read there."""
    prefixes = {f"{_origin(url)}/" for url in urls if not url.startswith("file://")}
    if local := [path for url in urls if (path := local_path(url)) is not None]:
        folder = Path(os.path.commonpath([path.parent for path in local]))
        # Icechunk compares the prefix with locations that it has escaped.
        while quote(str(folder)) != str(folder):
            folder = folder.parent
        if folder == Path("/"):
            what = f"no folder above {shown(urls[0])} can be named to readers"
            raise Refused(NOT_REFERABLE.at(None, what, "move the files into a folder with a name of plain letters"))
        prefixes.add(f"file://{folder}/")
    return {prefix: _container(prefix) for prefix in sorted(prefixes)}


def _container(prefix: str) -> tuple[icechunk.VirtualChunkContainer, Any]:
    if prefix.startswith("file://"):
        return icechunk.VirtualChunkContainer(
            prefix, icechunk.local_filesystem_store(prefix.removeprefix("file://"))
        ), None
    if prefix.startswith("http"):
        options = {"allow_http": "true"} if prefix.startswith("http://") else {}
        return icechunk.VirtualChunkContainer(prefix, icechunk.http_store(options)), None
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    store = icechunk.s3_store(
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        endpoint_url=endpoint,
        allow_http=bool(endpoint and endpoint.startswith("http://")),
        s3_compatible=endpoint is not None,
        force_path_style=endpoint is not None,
        anonymous=_anonymous(),
    )
    credentials = icechunk.s3_anonymous_credentials() if _anonymous() else icechunk.s3_from_env_credentials()
    return icechunk.VirtualChunkContainer(prefix, store), credentials


def _anonymous() -> bool:
    return not any(os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"))


def _refuse_other_files(url: str, registry: ObjectStoreRegistry[Any]) -> tuple[int, str, datetime.datetime]:
    """The size of an input, what tells it from a changed one, and when it was last changed.

    Raises :class:`Refused` if its chunks cannot be found.
    """
    opened = datetime.datetime.now(datetime.UTC)
    store, path = registry.resolve(url)
    with _provider_errors(url):
        found = store.get(path, options={"range": (0, _HEAD)})
        size, head = found.meta["size"], bytes(found.bytes())
    if not head.startswith(HDF5):
        finding = not_netcdf(url, size, head, "it has another format than NetCDF 4")
        if finding.id == "input-damaged":
            finding = NOT_REFERABLE.at(None, f"{shown(url)} is NetCDF 3, which is not read through references", _COPY)
        raise Refused(finding)
    # A server that does not say when gives the beginning of time. Icechunk rounds to seconds.
    modified = found.meta["last_modified"]
    identity = f"{size} {found.meta['e_tag'] or modified}"
    return size, identity, (modified if modified.year > 1970 else opened) + datetime.timedelta(seconds=1)


def _chunks_of(url: str, size: int, registry: ObjectStoreRegistry[Any]) -> Any:
    from virtualizarr.parsers import HDFParser

    with _provider_errors(url):
        try:
            store = HDFParser()(url, registry)
        except OSError as error:
            raise Refused(not_netcdf(url, size, HDF5, str(error))) from error
        except (ValueError, TypeError, NotImplementedError, KeyError, AttributeError) as error:
            what = f"the chunks of {shown(url)} cannot be referred to: {first_line(error)}"
            raise Refused(NOT_REFERABLE.at(None, what, _COPY)) from error
    # Without the store around it, which would make connections of its own wherever it is sent.
    return store._group


def _read_by(group: Any, registry: ObjectStoreRegistry[Any]) -> ZarrStore:
    """An input as a Zarr store, which is read through its references."""
    from virtualizarr.manifests import ManifestStore

    return ManifestStore(group, registry=registry)


def _gaps(url: str, store: ZarrStore, concat_dim: str) -> Iterator[Finding]:
    """Where a file ends before its dimensions do: along an unlimited one, what was never written lies nowhere."""
    lengths = [
        (name, dim, length)
        for name, array in zarr.open_group(store, mode="r").arrays()
        for dim, length in zip(cast(Any, array.metadata).dimension_names or (), array.shape, strict=True)
    ]
    longest = {dim: length for _, dim, length in sorted(lengths, key=itemgetter(2))}
    if longest.get(concat_dim) == 0:  # VirtualiZarr leaves out the coordinate, too
        yield NOT_REFERABLE.at(None, f"{shown(url)} holds nothing along `{concat_dim}`", _COPY)
    for name, dim, length in lengths:
        if length < longest[dim]:
            what = f"`{name}` of {shown(url)} was written for {length} of the {longest[dim]} steps of `{dim}`"
            yield NOT_REFERABLE.at(None, what, _COPY)


class _provider_errors:  # noqa: N801 - reads as what happens in the block
    """Turn what a provider's server answers into a refusal that names the URL."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        import obstore.exceptions as failures

        url = shown(self.url)
        if isinstance(error, FileNotFoundError | failures.NotFoundError):
            raise Refused(MISSING.at(None, f"there is no {url}", "correct it in INPUTS, or leave it out")) from error
        if isinstance(error, PermissionError | failures.PermissionDeniedError | failures.UnauthenticatedError):
            fix = "use a public URL, or let the run's credentials read it"
            raise Refused(FORBIDDEN.at(None, f"{url} may not be read", fix)) from error
        if isinstance(error, failures.NotSupportedError):
            what = f"the server of {url} only sends whole files, and a reference needs a part of one"
            raise Refused(NOT_REFERABLE.at(None, what, _COPY)) from error
        if isinstance(error, failures.BaseError):
            # What it tried and how often stands before the dash.
            reason = first_line(error).rpartition(" - ")[2].strip(" :")
            what = f"{url} could not be read in {patience():g} s of trying: {reason}"
            fix = "try again when the provider is back; FEEDSTOCK_PATIENCE=600 waits longer"
            raise Refused(UNREACHABLE.at(None, what, fix)) from error
