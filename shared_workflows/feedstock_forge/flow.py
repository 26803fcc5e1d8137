"""The flow that every deployment runs: it imports one recipe of the cloned feedstock and calls it.

This module is a worker's; it imports Prefect. A recipe that is a flow itself runs as a subflow, a plain callable as
part of this flow.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Literal

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from . import meta, recipes
from .bake import Provenance, provenance
from .findings import Refused, text
from .one_writer import one_writer

_REPOSITORY_FOLDER = Path()
"""Prefect's worker changes into the clone before it imports this flow."""


@flow(name="bake-recipe", log_prints=True)
def bake_recipe(
    recipe: str,
    target: str,
    repository: str,
    commit: str,
    version: str,
    mode: Literal["complete", "update"] = "complete",
    prune: bool = False,
) -> str:
    """Run one recipe of the feedstock in the working directory; returns the URL of the dataset.

    ``repository``, ``commit`` and ``version`` are written into the dataset as where it came from.
    """
    logger = get_run_logger()
    _check_out(commit)
    logger.info("baking %s of %s at %s (%s) into %s", recipe, repository, version, mode, target)
    try:
        file = meta.read(_REPOSITORY_FOLDER, repository=repository)
        _, bake, _ = recipes.recipe(_REPOSITORY_FOLDER, file, recipe)
        token = provenance.set(
            Provenance(
                feedstock=file.meta.id,
                recipe=recipe,
                repository=repository,
                commit=commit,
                version=version,
                mode=mode,
                run=flow_run.get_id() or "",
            )
        )
        try:
            with one_writer(target):
                bake(target=target, mode=mode, prune=prune)
        finally:
            provenance.reset(token)
    except Refused as refused:
        for finding in refused.findings:
            logger.error("%s", text(finding))
        raise
    return target


def _check_out(commit: str) -> None:
    """Move the clone to the run's own commit.

    The deployment clones the commit it was last registered with, and a newer release may have come between the start
    of a run and a worker picking it up.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    if git("rev-parse", "HEAD") != commit:
        git("fetch", "--quiet", "--depth=1", "origin", commit)
        git("checkout", "--quiet", "--detach", commit)
