"""Recipes of pangeo-forge-recipes: Apache Beam pipelines that end in a Zarr store, run as the community wrote them.

Such a recipe is an object, ``beam.Create(…) | OpenURLWithFSSpec() | … | StoreToZarr(store_name=…, …)``, which leaves
open where the store is: ``target_root`` is what pangeo-forge-recipes calls required at runtime. The run fills it in,
cuts the inputs for a trial, and publishes all or nothing.

Nothing here imports Beam before a recipe has; xarray, Zarr and Icechunk of the present are not needed, since
pangeo-forge-recipes goes with those of the past.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from .bake import PRUNED_INPUTS, Provenance, places, provenance, record
from .bake.fetch import shown
from .bake.steps import MOST_FINDINGS, in_threads
from .engines import BEAM_VARIABLE
from .findings import Finding, Refused, Who, refuse_errors, rule

NO_STORE = rule("beam-no-store", "The run says where the dataset goes, and a pipeline has one place to be told.")
NO_INPUTS = rule("beam-no-inputs", "A trial run needs to know which inputs are the first.")
RUNNER = rule("beam-runner", "A pipeline runs where the bakery's engine says.", who=Who.OPERATOR)
UNREADABLE = rule("beam-input-unreadable", "One input that cannot be opened leaves a gap in the dataset.")
UNLIKE = rule("beam-inputs-differ", "Inputs are joined along one dimension, and agree in all others.")
UNSORTED = rule("beam-time-unsorted", "Readers select spans of time, which only works where it increases.")
PUBLISHED = rule("beam-target-published", "On object storage nothing replaces a folder at once.", who=Who.MAINTAINER)

# What marks a folder as a Zarr store, of version 2 or 3.
_MARKS = (".zgroup", "zarr.json")
# Steps of pangeo-forge-recipes that fail where an input is at fault, as Beam names them in what it raises.
_READING = ("Open with Xarray", "DetermineSchema")
_OPENING = 8

log = logging.getLogger("feedstock_forge.bake")


def is_pipeline(value: object) -> bool:
    """Whether an object that was imported is a Beam pipeline."""
    beam = sys.modules.get("apache_beam")
    return beam is not None and isinstance(value, beam.PTransform)


def recipe(pipeline: Any) -> Callable[..., None]:
    """The pipeline as a recipe like any other: a callable of ``target``, ``mode`` and ``prune``."""

    def bake(target: str, mode: str = "complete", prune: bool = False) -> None:
        run(pipeline, target, mode=mode, prune=prune, provenance=provenance.get())

    bake.__doc__ = "A pipeline of pangeo-forge-recipes."
    return bake


def run(
    pipeline: Any, target: str, *, mode: str = "complete", prune: bool = False, provenance: Provenance | None = None
) -> None:
    """Run the pipeline and publish what it writes at ``target``, whose name ends in ``.zarr``.

    ``update`` does nothing where the dataset was made from these very inputs, and otherwise the same as ``complete``:
    a pipeline writes all of its dataset. Raises :class:`Refused`; the published dataset is then what it was before.
    """
    if not target.rstrip("/").endswith(".zarr"):
        message, fix = f"{target} is no Zarr store, which is what a pipeline writes", "write `store: zarr` in meta.yaml"
        raise Refused(NO_STORE.at(None, message, fix))
    inputs = _inputs(pipeline)
    if prune:
        if not inputs:
            fix = "let it begin with beam.Create(pattern.items())"
            raise Refused(NO_INPUTS.at(None, "the pipeline does not begin with a list of inputs", fix))
        pipeline = _changed(pipeline, _pruned)
        inputs = _inputs(pipeline)
    path = places.path_of(target)
    if path is None:
        _run_on_object_storage(pipeline, target, inputs, mode, prune, provenance)
        return
    with places.claimed(path) as folder:
        places.refuse_foreign(path, *_MARKS)
        published = record.inputs_of(_attributes(path))
        if _is_done(published, inputs, target, mode, prune):
            return
        staged = folder / "store"
        _run(_targeted(pipeline, str(folder), staged.name), target)
        with places.storage_errors(target):
            _refuse_disorder(str(staged))
            _write_down(str(staged), record.of(inputs, prune, provenance))
            places.move_into_place(staged, path)
    log.info("published %s", target)


def _run_on_object_storage(
    pipeline: Any, target: str, inputs: list[str], mode: str, prune: bool, provenance: Provenance | None
) -> None:
    """Write a dataset where there is none, or only what an earlier run did not finish."""
    import fsspec

    with places.storage_errors(target):
        mapper = fsspec.get_mapper(target)
        published = record.inputs_of(json.loads(mapper.get(".zattrs", b"{}")))
    if _is_done(published, inputs, target, mode, prune):
        return
    if published:
        fix = "raise the major `version` in meta.yaml, which makes a new dataset beside it"
        raise Refused(PUBLISHED.at(None, f"{target} is published, and readers would see it half written", fix))
    root, _, name = target.rstrip("/").rpartition("/")
    _run(_targeted(pipeline, root, name), target)
    with places.storage_errors(target):
        _refuse_disorder(target)
        _write_down(target, record.of(inputs, prune, provenance))
    log.info("published %s", target)


def _is_done(published: dict[str, Any], inputs: list[str], target: str, mode: str, prune: bool) -> bool:
    """Whether an update has nothing to do. Raises :class:`Refused` if a trial would replace the dataset."""
    same = inputs and published.get("sha256") == record.fingerprint(inputs) and published.get("pruned") == prune
    if mode == "update" and same:
        log.info("nothing new: %s holds all %d inputs", target, len(inputs))
        return True
    if prune:
        record.refuse_shrinking(published, target)
    return False


def _attributes(path: Path) -> dict[str, Any]:
    file = path / ".zattrs"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _refuse_disorder(store: str) -> None:
    """Raise :class:`Refused` unless every coordinate of times increases: a pipeline joins its inputs unseen."""
    import fsspec
    import zarr

    group: Any = zarr.open_group(fsspec.get_mapper(store), mode="r")  # of the Zarr that goes with the pipeline
    for name, array in group.arrays():
        units = str(array.attrs.get("units", ""))
        if array.attrs.get("_ARRAY_DIMENSIONS") != [name] or " since " not in units:
            continue
        times = array[:]
        steps = times[1:] > times[:-1]
        if not steps.all():
            before = int(steps.argmin())
            message = f"`{name}` goes from {times[before]} to {times[before + 1]} ({units}) at its place {before + 1}"
            fix = f"put the keys of ConcatDim in the order of `{name}`, and leave out or cut off what comes twice"
            raise Refused(UNSORTED.at(None, message, fix))


def _write_down(store: str, made: dict[str, Any]) -> None:
    """Write the record into the finished store, and its metadata into one file, for readers to open it at once."""
    import fsspec
    import zarr

    mapper = fsspec.get_mapper(store)
    zarr.open_group(mapper, mode="r+").attrs.update(made)
    zarr.consolidate_metadata(mapper)


def _run(pipeline: Any, target: str) -> None:
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions

    engine = json.loads(os.environ.get(BEAM_VARIABLE) or "{}")
    name, options = engine.get("runner") or "DirectRunner", engine.get("options") or {}
    try:
        whole = apache_beam.Pipeline(runner=_runner(name), options=PipelineOptions.from_dictionary(options))
    except (ValueError, ImportError, AttributeError) as error:
        raise _unusable(name, str(error)) from error
    except SystemExit:  # of argparse, which has printed why
        raise _unusable(name, "it refuses its options, as the lines before this one say") from None
    for noisy in ("apache_beam", "pangeo_forge_recipes"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    log.info("running the pipeline on %s into %s", name, target)
    began = time.monotonic()
    try:
        with whole as root:
            root | pipeline
    except Exception as error:
        if any(step in str(error) for step in _READING):
            log.info("looking for the inputs at fault")
            _refuse_inputs(pipeline)
        raise
    log.info("the pipeline took %.1f s", time.monotonic() - began)


def _unusable(runner: str, why: str) -> Refused:
    message = f"the runner {runner} cannot be used: {why}"
    return Refused(RUNNER.at(None, message, "correct `engine` in the bakery's bakery.yaml"))


def _refuse_inputs(pipeline: Any) -> None:
    """Raise :class:`Refused` with the inputs that cannot be opened or joined: what a pipeline raises names none.

    They are opened once more, by the openers of pangeo-forge-recipes, as the pipeline would.
    """
    from pangeo_forge_recipes.openers import open_url, open_with_xarray
    from pangeo_forge_recipes.transforms import OpenURLWithFSSpec, OpenWithXarray, StoreToZarr
    from pangeo_forge_recipes.types import CombineOp

    _, *steps, store = _parts(pipeline)
    fetching = steps.pop(0) if steps and isinstance(steps[0], OpenURLWithFSSpec) else None
    if not steps or not isinstance(steps[0], OpenWithXarray):
        return  # other steps may make of the inputs what they like
    opening = steps[0]

    def sizes(url: str) -> dict[str, int]:
        try:
            file = open_url(url, None, fetching.secrets, fetching.open_kwargs) if fetching else url
            kwargs = opening.xarray_open_kwargs
            with open_with_xarray(file, file_type=opening.file_type, xarray_open_kwargs=kwargs) as ds:
                return {str(dim): size for dim, size in ds.sizes.items()}
        except Exception as error:
            message = f"{shown(url)} cannot be opened: {type(error).__name__}: {error}"
            fix = "look at what is there: a page in place of a file, or one that is cut off; or correct the URL"
            raise Refused(UNREADABLE.at(None, message, fix)) from error

    inputs = _inputs(pipeline)
    found = dict(zip(inputs, in_threads(sizes, inputs, _OPENING, threading.Event()), strict=True))
    if len(steps) > 1 or not isinstance(store, StoreToZarr):
        return  # or of what is in them
    joined = {dimension.name for dimension in store.combine_dims}
    merged = any(dimension.operation is CombineOp.MERGE for dimension in store.combine_dims)
    refuse_errors(islice(_differing(found, joined, merged), MOST_FINDINGS))


def _differing(sizes: dict[str, dict[str, int]], joined: set[str], merged: bool) -> Iterator[Finding]:
    """What keeps inputs with dimensions of these sizes from being joined along ``joined``.

    Files of different variables, which are ``merged``, need not have the same dimensions.
    """
    for dim in sorted(set().union(*sizes.values()) - joined):
        having = {url: theirs.get(dim, 0) for url, theirs in sizes.items() if dim in theirs or not merged}
        first, *others = having
        for url in others:
            if having[url] != having[first]:
                message = f"{shown(url)} has {having[url]} along `{dim}`, {shown(first)} has {having[first]}"
                yield UNLIKE.at(None, message, "leave it out, or bring it to the others' grid in a step")


def _runner(name: str) -> Any:
    """Beam's runner of this name; the direct one without the program that it would fetch from the network first."""
    if name.lower().removesuffix("runner") != "direct":
        return name
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    return FnApiRunner()


def _targeted(pipeline: Any, root: str, name: str) -> Any:
    """The pipeline with the place of its store filled in. Raises :class:`Refused` if it has not exactly one store."""
    from pangeo_forge_recipes.transforms import StoreToZarr

    stores = [part for part in _parts(pipeline) if isinstance(part, StoreToZarr)]
    if len(stores) != 1:
        _refuse_stores(len(stores))

    def targeted(part: Any) -> Any:
        if not isinstance(part, StoreToZarr):
            return part
        return dataclasses.replace(part, target_root=root, store_name=name, append_dim=None)

    return _changed(pipeline, targeted)


def _refuse_stores(count: int) -> NoReturn:
    fix = "let it end in one StoreToZarr(store_name=…, combine_dims=…); or write a function that takes `target`"
    raise Refused(NO_STORE.at(None, f"the pipeline has {count or 'no'} StoreToZarr among its steps", fix))


def _parts(transform: Any) -> Iterator[Any]:
    """The steps of a pipeline, one by one."""
    # What `"label" >>` makes keeps its step in `transform` and passes for it; what `|` makes keeps them in `_parts`.
    if _is_labelled(transform):
        yield from _parts(transform.transform)
    elif hasattr(transform, "_parts"):
        for part in transform._parts:
            yield from _parts(part)
    else:
        yield transform


def _changed(transform: Any, change: Callable[[Any], Any]) -> Any:
    """A pipeline with each of its steps changed."""
    if _is_labelled(transform):
        return transform.label >> _changed(transform.transform, change)
    if hasattr(transform, "_parts"):
        return reduce(lambda one, other: one | other, (_changed(part, change) for part in transform._parts))
    return change(transform)


def _is_labelled(transform: Any) -> bool:
    return type(transform).__name__ == "_NamedPTransform"


def _inputs(pipeline: Any) -> list[str]:
    """The inputs that the pipeline begins with, as text; none if it begins otherwise."""
    import apache_beam

    first = next(_parts(pipeline))
    values = first.values if isinstance(first, apache_beam.Create) else ()
    return [str(value[1]) if isinstance(value, tuple) and len(value) == 2 else str(value) for value in values]


def _pruned(part: Any) -> Any:
    """A list of inputs cut to the first few along each dimension of concatenation."""
    import apache_beam
    from pangeo_forge_recipes.types import CombineOp, Index

    if not isinstance(part, apache_beam.Create):
        return part

    def is_early(number: int, value: Any) -> bool:
        index = value[0] if isinstance(value, tuple) and value else None
        if not isinstance(index, Index):
            return number < PRUNED_INPUTS
        along = [place.value for dimension, place in index.items() if dimension.operation is CombineOp.CONCAT]
        return all(place < PRUNED_INPUTS for place in along)

    kept = [value for number, value in enumerate(part.values) if is_early(number, value)]
    return apache_beam.Create(kept, reshuffle=part.reshuffle)
