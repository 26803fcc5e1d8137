"""The bake itself: fetch, check, write, publish."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, product
from pathlib import Path
from typing import Any, ClassVar, cast

import dask.array
import numpy as np
import xarray as xr
import zarr
from pydantic import TypeAdapter, ValidationError
from zarr.abc.store import Store as ZarrStore
from zarr.codecs import BloscCodec

from .. import __version__
from ..findings import Finding, Refused, Who, refuse_errors, rule
from ..models import did_you_mean
from ..quantities import Memory, format_size
from . import PRUNED_INPUTS, Provenance, cluster, record
from .fetch import Fetcher, fetching, local_path, shown
from .inputs import (
    Description,
    Opened,
    Preprocess,
    Variable,
    common_attrs,
    compare,
    encode_like,
    first_line,
    in_order,
)
from .places import FOREIGN
from .progress import Keeper, fingerprint, identity
from .steps import MOST_FINDINGS, Stopped, in_threads, run_log, step
from .stores import Store, claim, storage_errors

NO_INPUTS = rule("inputs-empty", "There is nothing to bake.")
REPEATED = rule("inputs-repeated", "An input that is named twice would come twice in the dataset.")
CHANGED = rule(
    "inputs-changed", "An update only appends: what is published stays as it was released.", who=Who.MAINTAINER
)
MODE = rule("mode-unknown", "A run writes all, or appends what is new.")
CHUNKS = rule("chunks-invalid", "A chunk is a number of elements along a dimension of the dataset.")
REPLACED = rule("input-replaced", "A dataset is made of one state of its inputs.")
TAG_TAKEN = rule("release-tag-taken", "A release is one state for ever: its tag cannot move.", who=Who.MAINTAINER)

# Against Zarr's default, Zstandard: smaller for packed integers and for floats, and several times faster both ways.
_COMPRESSORS = (BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),)
_LARGEST = (2 << 30) - 1
_CHUNK = 16 << 20
_BOX = 32 << 20
_MEMORY = 512 << 20
_FETCHING = 4
_OPEN = 64

log = logging.getLogger("feedstock_forge.bake")


def run(
    inputs: list[str],
    target: str,
    *,
    concat_dim: str,
    mode: str,
    prune: bool,
    chunks: dict[str, int],
    preprocess: Preprocess | None,
    provenance: Provenance | None,
    chunk_size: str = "16 MiB",
    kind: type[Bake] | None = None,
) -> None:
    """Do what :func:`feedstock_forge.bake.bake` says, or what another ``kind`` of bake makes of it."""
    refuse_errors(_check_arguments(inputs, mode, chunks))
    largest = _bytes(chunk_size)
    started = time.monotonic()
    with run_log(), claim(target) as store:
        if mode == "complete" and not prune and provenance and is_released(store, provenance):
            return
        # All of it replaces whatever is there, even what cannot be read.
        published = _published(store, target) if mode == "update" or prune else None
        first = 0
        if published is not None:
            first = _resume_at(published, inputs, target) if mode == "update" else 0
            if mode == "complete" and prune:
                record.refuse_shrinking(published.inputs, target)
        wanted = inputs[:PRUNED_INPUTS] if prune else inputs
        if first >= len(wanted):
            log.info("nothing new: %s holds all %s inputs", target, first)
            return
        store.ensure_writable()
        base = published if first else None
        stop = threading.Event()
        with fetching(stop) as fetcher, cluster.joined() as workers:
            bake = (kind or Bake)(wanted[first:], concat_dim, preprocess, fetcher, stop)
            bake.workers = workers
            bake.largest_chunk = largest
            bake.fetch()
            step("check the inputs against each other", lambda: bake.check(base))
            made = record.of(wanted, prune, provenance, len(inputs))
            what = f"append inputs {first + 1} to {len(wanted)}" if first else f"write {len(wanted)} inputs"
            message, metadata = commit_of(mode, provenance, what, prune)
            metadata["inputs"] = len(wanted)
            tag = provenance.version if provenance and mode == "complete" and not prune else None
            commit = provenance.commit if provenance else None
            if kind is None and (preprocess is None or commit):
                asked = [wanted, mode, prune, first, chunks, largest, commit if preprocess else None]
                bake.keeper = Keeper(store, bake.fingerprint(asked), len(bake.urls), bake.identity)

            def write() -> None:
                with storage_errors(target):
                    bake.write(bake.begin(store, keep=bool(first)), base, chunks, made)

            def publish() -> None:
                with storage_errors(target):
                    store.publish(message, metadata, tag)

            step("write the dataset", write)
            bake.refuse_replaced()
            step("publish the dataset", publish)
        log.info("published %s: %s in %.1f s", target, message, time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class Published:
    """The published dataset and what it says of itself."""

    dataset: Opened
    inputs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Box:
    """A part of one variable that is written at once: whole chunks, ``index`` in elements of the dataset."""

    variable: str
    index: dict[str, slice]


class Bake:
    """The inputs of one run, and what becomes of them: copied into the store, whole chunks at a time."""

    here: ClassVar[tuple[str, ...]] = ("paths",)
    """What it knows of inputs, by their numbers, that serves on this machine only."""

    def __init__(
        self,
        urls: Sequence[str],
        concat_dim: str,
        preprocess: Preprocess | None,
        fetcher: Fetcher,
        stop: threading.Event,
    ) -> None:
        self.urls = urls
        self.concat_dim = concat_dim
        self.preprocess = preprocess
        self.fetcher = fetcher
        self.stop = stop
        self.workers: cluster.Workers | None = None
        """Of the Dask cluster, if there is one: they fetch, look and write."""
        self.paths: dict[int, Path] = {}
        """The files of the inputs that are on this machine."""
        self.identities: dict[int, str] = {}
        """What the inputs were when somebody looked at them, if they lie where others may change them."""
        self.descriptions: list[Description] = []
        self.reference: Description
        self.coordinates: list[np.ndarray[Any, Any] | None] = []
        """The coordinate of each input as the dataset stores it."""
        self.shared: dict[str, np.ndarray[Any, Any]] = {}
        """The stored values of what the inputs are not joined along, as the first one has them."""
        self.opening = threading.Lock()
        self.most_open = _OPEN
        self.largest_chunk = _CHUNK
        """Bytes."""
        self.attrs: dict[str, Any] = {}
        self.variable_attrs: dict[str, dict[str, Any]] = {}
        """What is true of all inputs, and of the dataset that they are appended to."""
        self.keeper: Keeper | None = None
        """Keeps the progress for the next run, if that can know that it has the same work to do."""

    def fetch(self) -> None:
        """Fetch and describe every input. Raises :class:`Refused` with what is wrong with each."""

        def one(numbered: tuple[int, str]) -> Description:
            number, url = numbered

            def look() -> Description:
                description, size = self.look(number, url)
                log.info("input %d of %d: %s from %s", number + 1, len(self.urls), format_size(size), shown(url))
                return description

            return step(f"input {number + 1} of {len(self.urls)}: {shown(url)}", look)

        at_once = _FETCHING if self.workers is None else cluster.ASKED_AT_ONCE
        self.descriptions = in_threads(one, enumerate(self.urls), at_once, self.stop)

    def look(self, number: int, url: str) -> tuple[Description, int]:
        """Fetch one input and describe it, here or on a worker; returns its size in bytes too.

        Raises :class:`Refused`.
        """
        if self.workers is not None:
            found = self.workers.look(self, number)
            self.take(found.known)
            return found.description, found.size
        path = self.paths[number] = self.fetcher.fetch(url)
        if local_path(url) is not None:
            self.identities[number] = identity(url, path)
        opened = Opened.file(url, path, self.preprocess)
        try:
            return self.describe(number, opened), path.stat().st_size
        finally:
            opened.close()

    def describe(self, number: int, opened: Opened) -> Description:
        """Describe one input, and keep what the first one shares with all. Raises :class:`Refused`."""
        description = opened.describe(self.concat_dim)
        if number == 0:
            self.shared = {
                name: opened.values(name, {}, variable).astype(variable.dtype)
                for name, variable in description.variables.items()
                if variable.digest is not None
            }
        return description

    def known(self, number: int) -> dict[str, dict[Any, Any]]:
        """What the recipe's process has to know of an input that this worker has looked at. Raises ``OSError``."""
        return {"identities": {number: self.identity(number)}, "shared": self.shared if number == 0 else {}}

    def take(self, known: dict[str, dict[Any, Any]]) -> None:
        """Know what a worker knows of an input."""
        for name, values in known.items():
            getattr(self, name).update(values)

    def identity(self, number: int) -> str:
        """What tells the file of this input from one that was changed. Raises ``OSError``."""
        return self.identities.get(number) or identity(self.urls[number], self.paths[number])

    def check(self, base: Published | None) -> None:
        """Hold the inputs against each other, and against the dataset that they are appended to.

        Raises :class:`Refused` with everything that keeps them from being joined.
        """
        described = [base.dataset.describe(self.concat_dim)] if base else []
        described += self.descriptions
        self.reference = described[0]
        differing = (finding for other in described[1:] for finding in compare(self.reference, other, self.concat_dim))
        refuse_errors(islice(differing, MOST_FINDINGS))
        refuse_errors(islice(in_order(described, self.concat_dim), MOST_FINDINGS))
        like = self.reference.variables.get(self.concat_dim)
        for description in self.descriptions:
            stored = description.stored
            if (
                like is not None
                and description.coordinate is not None
                and _units_differ(description, like, self.concat_dim)
            ):
                stored = encode_like(description.coordinate, like, self.concat_dim, description.name)
            self.coordinates.append(stored)
        self.attrs, self.variable_attrs = common_attrs(described)

    def fingerprint(self, asked: list[Any]) -> str:
        """Of how the dataset is written, once the inputs are checked: equal if chunk for chunk it is written alike from
        inputs that hold the same values. ``asked`` is what the run was asked for."""
        lengths = [description.length for description in self.descriptions]
        variables = {
            name: (variable.dims, variable.shape, variable.dtype, variable.encoding, variable.digest)
            for name, variable in self.reference.variables.items()
        }
        coordinates = [None if each is None else fingerprint(each) for each in self.coordinates]
        layout = [self.concat_dim, lengths, variables, coordinates, self.attrs, self.variable_attrs]
        return fingerprint([__version__, zarr.__version__, xr.__version__, np.__version__, asked, layout])

    def begin(self, store: Store, *, keep: bool) -> ZarrStore:
        """What the next state of the dataset is written into: what an earlier run has begun, what is published, or an
        empty store."""
        if self.keeper is not None and self.keeper.takes_up():
            return store.take_up()
        return store.begin(keep=keep, fork=self.keeper is not None or self.workers is not None)

    def write(self, store: ZarrStore, base: Published | None, chunks: dict[str, int], made: dict[str, Any]) -> None:
        """Write every chunk into ``store`` that is not there yet: a new dataset, or what follows ``base``."""
        start = self.reference.length if base else 0
        stops = np.cumsum([start, *(description.length for description in self.descriptions)]).tolist()
        done = self.keeper.done if self.keeper else 0
        if done:
            arrays = self._take_up(store, made)
        elif base:
            arrays = self._extend(store, stops[-1], {**self.attrs, **made})
        else:
            arrays = self._lay_out(store, stops[-1], chunks, {**self.attrs, **made})
        self.shared.clear()  # a grid may be large, and is written
        arrays = {name: array for name, array in arrays.items() if self.copies(self.reference.variables[name])}
        boxes = list(self._boxes(arrays, start, stops[-1]))
        total = sum(array.nbytes // max(array.shape[self._axis(name)], 1) for name, array in arrays.items())
        log.info("writing %s in %d parts", format_size(total * (stops[-1] - start)), len(boxes))
        spans = [self._inputs_of(box, stops) for box in boxes]
        written = _Progress(len(boxes), done)
        if self.keeper:
            # The coordinate is known already, and counts as part of the work.
            own = [box.variable == self.concat_dim and self.coordinates[0] is not None for box in boxes]
            self.keeper.start([span[:0] if known else span for span, known in zip(spans, own, strict=True)])

        def one(numbered: tuple[int, Box]) -> None:
            number, box = numbered
            size = self.put(box, stops, arrays[box.variable])
            finished(range(number, number + 1), [size])

        def finished(numbers: range, sizes: Iterable[int]) -> None:
            for size in sizes:
                written.add(size)
            if self.keeper:
                self.keeper.finish(numbers)

        # As read, as gathered, as compressed; and what `preprocess` makes on the way.
        is_copy = all(description.is_plain for description in self.descriptions)
        threads = _threads(boxes, arrays, copies=3 if is_copy else 8)
        # Opening costs more than reading a small input, and neighbouring boxes share theirs; but each that is open
        # takes memory for the blocks that its library keeps.
        most = max((len(span) for box, span in zip(boxes, spans, strict=True) if len(box.index) > 1), default=1)
        self.most_open = min(threads * most, _OPEN)
        if self.workers is not None and cluster.takes(store):
            self.workers.write(self, store, boxes, spans, done, stops, finished)
            return
        self.kept_open = lru_cache(self.most_open)(self.open)
        try:
            in_threads(one, islice(enumerate(boxes), done, None), threads, self.stop)
        finally:
            # Or the files of a run that failed would be closed by the garbage collector, whenever it comes: in a thread
            # of the next run that holds a lock for another file, it would wait for that lock for ever.
            self.kept_open.cache_clear()

    def put(self, box: Box, stops: list[int], array: zarr.Array[Any]) -> int:
        """Copy a box from the inputs into its array; returns the bytes of its values."""
        values = self._gather(box, stops)
        if self.stop.is_set():
            raise Stopped
        array[tuple(box.index[dim] for dim in self.reference.variables[box.variable].dims)] = values
        return values.nbytes

    def __getstate__(self) -> dict[str, Any]:
        """What a worker of a cluster needs; it has files of its own."""
        own = ("fetcher", "stop", "workers", "opening", "kept_open", "keeper", "shared", *self.here)
        return {key: value for key, value in vars(self).items() if key not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.stop, self.opening, self.workers, self.keeper = threading.Event(), threading.Lock(), None, None
        self.shared = {}
        self.kept_open = lru_cache(self.most_open)(self.open)

    def copies(self, variable: Variable) -> bool:  # noqa: ARG002 - another kind of bake chooses
        """Whether the values of a variable that is joined are copied into the store."""
        return True

    def storage(self, name: str, shape: tuple[int, ...], chunks: dict[str, int]) -> dict[str, Any]:
        """How the array of a variable that is joined is chunked and compressed, as xarray's encoding for Zarr."""
        variable = self.reference.variables[name]
        lengths = self._chunk_shape(variable, shape, chunks)
        if (size := math.prod(lengths) * variable.dtype.itemsize) > _LARGEST:
            what = (
                f"`{name}` would have chunks of {format_size(size)}, and its compressor takes less than 2 GiB at once"
            )
            raise Refused(CHUNKS.at(None, what, "write smaller numbers into `chunks`, or a smaller `chunk_size`"))
        return {"chunks": lengths, "compressors": _COMPRESSORS}

    def opened(self, number: int) -> Opened:
        """The input of this number, opened once for all threads as long as it is in use."""
        with self.opening:
            return self.kept_open(number)

    def _inputs_of(self, box: Box, stops: list[int]) -> range:
        """The numbers of the inputs that hold a part of the box; ``stops`` is where each ends in the dataset."""
        wanted = box.index[self.concat_dim]
        return range(bisect_right(stops, wanted.start) - 1, bisect_left(stops, wanted.stop))

    def open(self, number: int) -> Opened:
        """Open the input of this number."""
        # What `preprocess` left alone need not go through it again.
        preprocess = None if self.descriptions[number].is_plain else self.preprocess
        if number not in self.paths or local_path(self.urls[number]) is not None:
            self._fetch_again(number)
        return Opened.file(self.urls[number], self.paths[number], preprocess)

    def refuse_replaced(self) -> None:
        """Raise :class:`Refused` if an input of this machine is gone, or another file than the one that was written."""
        for number in self.identities if self.workers is None else ():
            self._fetch_again(number)

    def _fetch_again(self, number: int) -> None:
        """Take an input that was looked at before. Raises :class:`Refused` if it is another file by now."""
        url = self.urls[number]
        path = self.paths[number] = self.fetcher.fetch(url)
        known = self.identities.get(number)
        if known is not None and identity(url, path) != known:
            raise replaced(url)

    def _axis(self, name: str) -> int:
        dims = self.reference.variables[name].dims
        return dims.index(self.concat_dim)

    def _joined(self) -> list[str]:
        return [name for name, variable in self.reference.variables.items() if variable.digest is None]

    def _lay_out(
        self, store: ZarrStore, length: int, chunks: dict[str, int], attrs: dict[str, Any]
    ) -> dict[str, zarr.Array[Any]]:
        """Create every array, with the values of those that are the same in all inputs."""
        sizes = {
            dim: size
            for variable in self.reference.variables.values()
            for dim, size in zip(variable.dims, variable.shape, strict=True)
        } | {self.concat_dim: length}
        unknown = sorted(set(chunks) - set(sizes))
        refuse_errors(
            CHUNKS.at(None, f"chunks names `{name}`, which is no dimension", did_you_mean(name, sorted(sizes)))
            for name in unknown
        )
        variables, encoding = {}, {}
        for name, variable in self.reference.variables.items():
            # Or xarray would give every array of floats a fill value.
            encoding[name] = {} if "_FillValue" in self.variable_attrs[name] else {"_FillValue": None}
            shape = tuple(sizes[dim] for dim in variable.dims)
            if variable.digest is None:
                # Stands for the shape and type only: nothing of it is ever computed.
                data: Any = dask.array.zeros(shape, dtype=variable.dtype, chunks=-1)
                encoding[name] |= self.storage(name, shape, chunks)
            else:
                data = self.shared[name]
            variables[name] = xr.Variable(variable.dims, data, self.variable_attrs[name])
        # Without indexes, or xarray would compute the coordinates to make them.
        coords = xr.Coordinates({name: variable for name, variable in variables.items() if name in sizes}, indexes={})
        data_vars = {name: variable for name, variable in variables.items() if name not in sizes}
        dataset = xr.Dataset(data_vars, coords, attrs)
        dataset.to_zarr(cast(Any, store), mode="w", zarr_format=3, consolidated=False, compute=False, encoding=encoding)
        group = zarr.open_group(store, mode="r+")
        return {name: cast("zarr.Array[Any]", group[name]) for name in self._joined()}

    def _extend(self, store: ZarrStore, length: int, attrs: dict[str, Any]) -> dict[str, zarr.Array[Any]]:
        """Lengthen the arrays of a published dataset, and drop the attributes that are no longer true."""
        group = zarr.open_group(store, mode="r+")
        arrays = {}
        for name in self._joined():
            array = cast("zarr.Array[Any]", group[name])
            shape = list(array.shape)
            shape[self._axis(name)] = length
            array.resize(tuple(shape))
            # `_FillValue` is stored in a form of its own; what is kept is what is there.
            array.attrs.put({key: value for key, value in array.attrs.items() if key in self.variable_attrs[name]})
            arrays[name] = array
        group.attrs.put({**{key: value for key, value in group.attrs.items() if key in attrs}, **record.own(attrs)})
        return arrays

    def _take_up(self, store: ZarrStore, made: dict[str, Any]) -> dict[str, zarr.Array[Any]]:
        """The arrays that an earlier run has begun; the dataset is made by this one."""
        # What was consolidated when the dataset was published does not know how long its arrays are to be.
        group = zarr.open_group(store, mode="r+", use_consolidated=False)
        others = {key: value for key, value in group.attrs.items() if key in made or not record.own({key: value})}
        group.attrs.put({**others, **made})
        return {name: cast("zarr.Array[Any]", group[name]) for name in self._joined()}

    def _chunk_shape(self, variable: Variable, shape: tuple[int, ...], chunks: dict[str, int]) -> tuple[int, ...]:
        lengths = {
            dim: max(1, min(chunks.get(dim, size), size)) for dim, size in zip(variable.dims, shape, strict=True)
        }
        if variable.dims == (self.concat_dim,):
            # A coordinate is read whole by every reader: one chunk serves it best, for as long as it stays small.
            return (max(1, _CHUNK // 16 // variable.dtype.itemsize),)
        if self.concat_dim in chunks:
            lengths[self.concat_dim] = chunks[self.concat_dim]
        room = self.largest_chunk // variable.dtype.itemsize
        for dim in [self.concat_dim, *sorted(lengths, key=lambda dim: -lengths[dim])]:
            others = math.prod(length for other, length in lengths.items() if other != dim)
            if dim not in chunks and others * lengths[dim] > room:
                # Of the parts that fit, those of nearly one length: a short last chunk is as costly as a whole one.
                parts = math.ceil(lengths[dim] / max(1, room // others))
                lengths[dim] = math.ceil(lengths[dim] / parts) if dim != self.concat_dim else max(1, room // others)
        return tuple(lengths[dim] for dim in variable.dims)

    def _boxes(self, arrays: dict[str, zarr.Array[Any]], start: int, stop: int) -> Iterator[Box]:
        """Cut what is to be written into boxes of whole chunks, in the order of the inputs.

        A box is one chunk long in ``concat_dim`` and as large as memory allows in the others, so that each input is
        read once and from front to back.
        """
        cuts: list[tuple[int, Box]] = []
        for name, array in arrays.items():
            dims, axis = self.reference.variables[name].dims, self._axis(name)
            lengths = list(array.chunks)
            for other in reversed(range(len(dims))):
                if other != axis:
                    room = _BOX // max(1, math.prod(lengths) * array.dtype.itemsize)
                    lengths[other] = min(max(1, room) * lengths[other], array.shape[other])
            spans = [
                list(_spans(start if other == axis else 0, stop if other == axis else size, length))
                for other, (size, length) in enumerate(zip(array.shape, lengths, strict=True))
            ]
            cuts += ((index[axis].start, Box(name, dict(zip(dims, index, strict=True)))) for index in product(*spans))
        return (box for _, box in sorted(cuts, key=lambda cut: cut[0]))

    def _gather(self, box: Box, stops: list[int]) -> np.ndarray[Any, Any]:
        """The stored values of a box, from the inputs that hold them."""
        like, axis = self.reference.variables[box.variable], self._axis(box.variable)
        wanted, numbers = box.index[self.concat_dim], self._inputs_of(box, stops)
        if len(numbers) == 1:
            return self._part(box, numbers[0], stops)
        values = np.empty([cut.stop - cut.start for cut in (box.index[dim] for dim in like.dims)], like.dtype)
        for number in numbers:
            low, high = max(stops[number], wanted.start), min(stops[number + 1], wanted.stop)
            there = slice(low - wanted.start, high - wanted.start)
            values[(slice(None),) * axis + (there,)] = self._part(box, number, stops)
        return values

    def _part(self, box: Box, number: int, stops: list[int]) -> np.ndarray[Any, Any]:
        """The stored values of a box that one input holds."""
        begin, wanted = stops[number], box.index[self.concat_dim]
        here = slice(max(begin, wanted.start) - begin, min(stops[number + 1], wanted.stop) - begin)
        coordinate = self.coordinates[number]
        if box.variable == self.concat_dim and coordinate is not None:
            return coordinate[here]
        like = self.reference.variables[box.variable]
        return self.opened(number).values(box.variable, {**box.index, self.concat_dim: here}, like)


class _Progress:
    """Says how far the writing is, at every tenth."""

    def __init__(self, total: int, done: int) -> None:
        self.total = total
        self.done = done
        self.bytes = 0
        self.lock = threading.Lock()

    def add(self, size: int) -> None:
        """Count one part of ``size`` bytes as written."""
        with self.lock:
            self.done += 1
            self.bytes += size
            if self.done * 10 // self.total > (self.done - 1) * 10 // self.total:
                log.info("wrote %s, %d %%", format_size(self.bytes), self.done * 100 // self.total)


def _check_arguments(inputs: list[str], mode: str, chunks: dict[str, int]) -> Iterator[Finding]:
    if not inputs:
        yield NO_INPUTS.at(None, "the recipe has no inputs", "put at least one URL into INPUTS")
    for url in sorted({url for url in inputs if inputs.count(url) > 1} if len(set(inputs)) < len(inputs) else ()):
        yield REPEATED.at(None, f"{shown(url)} comes {inputs.count(url)} times", "name each input once")
    if mode not in ("complete", "update"):
        yield MODE.at(None, f"there is no mode `{mode}`", did_you_mean(mode, ["complete", "update"]))
    for dim, length in chunks.items():
        if isinstance(length, bool) or not isinstance(length, int) or length < 1:
            yield CHUNKS.at(None, f"a chunk of {length!r} along `{dim}`", "write a whole number of elements, 1 or more")


def _bytes(chunk_size: str) -> int:
    try:
        return TypeAdapter(Memory).validate_python(chunk_size)
    except ValidationError as error:
        what = f"chunk_size: {error.errors(include_url=False)[0]['msg']}"
        raise Refused(CHUNKS.at(None, what, "write a number and a unit, such as `16 MiB`")) from None


def _published(store: Store, target: str) -> Published | None:
    zarr_store = store.published()
    if zarr_store is None:
        return None
    try:
        raw = xr.open_zarr(cast(Any, zarr_store), decode_cf=False, consolidated=False, chunks=None)
    except Exception as error:  # xarray, Zarr and the store have their own ways to fail at what is damaged
        fix = "publish a release, which writes everything anew"
        what = f"{target} holds a dataset that cannot be read: {first_line(error)}"
        raise Refused(FOREIGN.at(None, what, fix)) from error
    return Published(Opened("the published dataset", raw), record.inputs_of(raw.attrs))


def _resume_at(published: Published, inputs: list[str], target: str) -> int:
    """How many of the inputs the dataset holds. Raises :class:`Refused` if they are not the first ones."""
    count = published.inputs.get("count", 0)
    if 0 < count <= len(inputs) and published.inputs.get("sha256") == record.fingerprint(inputs[:count]):
        return int(count)
    if not count:
        what = f"{target} does not say what it was made from"
    else:
        what = f"{target} was made from {count} inputs, which are not the first {count} of INPUTS any more"
    fix = "publish a release, which writes everything anew; or only append to INPUTS"
    raise Refused(CHANGED.at(None, what, fix))


def is_released(store: Store, provenance: Provenance) -> bool:
    """Whether this very release was baked before; then it is only made sure that it bears its tag."""
    version = provenance.version
    if version is None:
        return False
    tagged, head = store.tagged(version), store.head()
    if tagged is not None:
        if tagged.metadata.get("commit") == provenance.commit:
            log.info("nothing to do: release %s is baked", version)
            return True
        message = f"release {version} was baked from commit {tagged.metadata.get('commit')}, not {provenance.commit}"
        raise Refused(TAG_TAKEN.at(None, message, "publish a release with a new version"))
    made = head.metadata if head else {}
    if made.get("version") == version and made.get("commit") == provenance.commit and not made.get("pruned"):
        store.tag(version)
        log.info("release %s was baked by a run that was killed before it could tag it; tagged now", version)
        return True
    return False


def commit_of(mode: str, provenance: Provenance | None, what: str, prune: bool) -> tuple[str, dict[str, Any]]:
    """The message and metadata of the commit of a run that did ``what``."""
    known = record.known(provenance) if provenance else {}
    source = " ".join(known[key] for key in ("version", "commit") if key in known)
    message = f"{mode}: {what}" + (f" ({source})" if source else "")
    return message, {**known, "mode": mode, "pruned": prune}


def replaced(url: str) -> Refused:
    """The refusal for an input that is another file than when it was looked at."""
    message = f"{shown(url)} is not the file any more that it was when this run began"
    return Refused(REPLACED.at(None, message, "run it again when the provider is done with it"))


def _spans(start: int, stop: int, length: int) -> Iterator[slice]:
    """Cut ``start`` to ``stop`` at the multiples of ``length``."""
    while start < stop:
        end = min(stop, (start // length + 1) * length)
        yield slice(start, end)
        start = end


def _units_differ(description: Description, like: Any, name: str) -> bool:
    own = description.variables[name]
    return any(own.encoding.get(key) != like.encoding.get(key) for key in ("units", "calendar"))


def _threads(boxes: Sequence[Box], arrays: dict[str, zarr.Array[Any]], copies: int) -> int:
    """As many threads as keep the processors busy, or fewer where the boxes in their hands would not fit in memory.

    ``copies`` is how many of its box each holds at once.
    """

    def size(box: Box) -> int:
        itemsize: int = arrays[box.variable].dtype.itemsize
        elements: int = math.prod(cut.stop - cut.start for cut in box.index.values())
        return elements * itemsize

    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    room = _MEMORY // (copies * max(map(size, boxes), default=1))
    return max(1, min(processors + 1, 16, room))
