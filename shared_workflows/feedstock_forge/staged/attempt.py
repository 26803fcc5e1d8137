"""Trying a recipe: a pruned run, in an environment and a process of its own, and within limits.

What runs here is a stranger's code, so it runs where no secret is, and what it leaves is measured from outside.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from .. import datasets, environments, meta, recipe_process, recipes
from ..bake import Provenance
from ..bakery import Limits
from ..findings import Finding, Refused, visible
from ..limits import Room, Use, size_of
from ..meta import FOLDER, MetaFile, RecipeDict
from ..recipe_process import Job
from ..yaml_file import read_text
from . import folders
from .trial import MAX_RECIPES, MAX_REPR, Described, FolderTrial, Said, Tried

DESCRIBE_SECONDS = 60
MAX_LOG = 50_000
"""Characters of what a recipe prints that are passed on."""


def folder(path: Path, allowed: Limits, disk: int, say: Callable[[str], None]) -> FolderTrial:
    """Try the first few recipes of a recipe folder, each with so much memory and time and so many bytes of files.

    Never raises for what the recipe does.
    """
    name = path.resolve().name
    try:
        with folders.as_feedstock(path) as checkout:
            file = meta.read(checkout, repository=name)
            python = environments.python_for(checkout, say, allowed=allowed)
            found = [recipe for recipe, _ in recipes.inspect(checkout, file, python=python).recipes]
            tried = [_try(checkout, file, recipe, python, allowed, disk, say) for recipe in found[:MAX_RECIPES]]
    except Refused as refused:
        return FolderTrial(folder=name, findings=[Said.of(_placed(finding, name)) for finding in refused.findings])
    return FolderTrial(folder=name, recipes=len(found), tried=tried)


def _try(
    checkout: Path,
    file: MetaFile,
    recipe: str,
    python: Path,
    allowed: Limits,
    disk: int,
    say: Callable[[str], None],
) -> Tried:
    say(f"{file.meta.id}: trying {recipe}")
    use, listen = Use(), _listener(say)
    with tempfile.TemporaryDirectory(prefix="trial-", ignore_cleanup_errors=True) as scratch:
        base, store = Path(scratch).as_uri(), _store(file, recipe)
        target = datasets.url(base, file.meta.id, file.meta.version, recipe, store, pruned=True)
        origin = Provenance(feedstock=file.meta.id, recipe=recipe, mode="complete")
        job = Job(str(checkout), recipe, target, "complete", prune=True, provenance=origin, allowed=allowed)
        try:
            recipe_process.run(python, job, listen, room=Room(disk, (Path(scratch),)), use=use)
        except Refused as refused:
            met = any(finding.id.startswith("limit-") for finding in refused.findings)
            said = [Said.of(_placed(finding, file.meta.id)) for finding in refused.findings[:20]]
            outcome: Literal["stopped", "failed"] = "stopped" if met else "failed"
            return Tried(recipe=recipe, outcome=outcome, findings=said, seconds=use.runtime, memory=use.memory)
        where = Path(target.removeprefix("file://"))
        described = _describe(python, where)
        return Tried(
            recipe=recipe,
            outcome="completed",
            seconds=use.runtime,
            memory=use.memory,
            stored=size_of(where),
            inputs=described.inputs,
            of=described.of,
            repr=described.repr,
        )


def _listener(say: Callable[[str], None]) -> Callable[[str], None]:
    """Pass on what a recipe prints, set apart from what is said here, and no more than anybody reads."""
    left = MAX_LOG

    def listen(line: str) -> None:
        nonlocal left
        if left > 0:
            say(f"    | {visible(line[:left])}")
            if (left := left - len(line)) <= 0:
                say("    | … what it prints from here on is left out")

    return listen


def _store(file: MetaFile, recipe: str) -> meta.Store:
    declared = file.meta.recipes
    if isinstance(declared, RecipeDict):
        return declared.store
    return next(item.store for item in declared if item.id == recipe)


def _placed(finding: Finding, name: str) -> Finding:
    """The same finding, its place as the repository of staged recipes knows it."""
    if finding.place is None or not finding.place.file.startswith(f"{FOLDER}/"):
        return finding
    return replace(
        finding, place=replace(finding.place, file=folders.path_of(name) + finding.place.file[len(FOLDER) :])
    )


def _describe(python: Path, where: Path) -> Described:
    """What the dataset looks like, told by a process of its own: who wrote it is a stranger."""
    with tempfile.TemporaryDirectory() as scratch:
        reply = Path(scratch, "reply.json")
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [python, "-P", "-c", _LOOK, str(where), str(reply)],
                env=recipes.bare(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=DESCRIBE_SECONDS,
                check=False,
            )
        try:
            return Described.model_validate_json(read_text(reply, max_bytes=8 * MAX_REPR))
        except (Refused, ValueError):
            return Described()


_LOOK = f"import sys; from {__name__} import _look; _look(*sys.argv[1:])"


def _look(where: str, reply: str) -> None:
    """What the describing process does: open the dataset, and write down what it looks like."""
    import xarray as xr

    if where.endswith(".icechunk"):
        import icechunk

        repository = icechunk.Repository.open(icechunk.local_filesystem_storage(where))
        dataset = xr.open_zarr(repository.readonly_session("main").store, consolidated=False, chunks=None)
    else:
        dataset = xr.open_zarr(where, chunks=None)
    inputs = dataset.attrs.pop("feedstock_inputs", {})
    dataset.attrs.pop("feedstock_provenance", None)
    said = {"repr": repr(dataset)[:MAX_REPR], "inputs": inputs.get("count"), "of": inputs.get("of")}
    Path(reply).write_text(json.dumps(said), encoding="utf-8")
