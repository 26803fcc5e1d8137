"""The flow that every deployment runs: it runs one recipe of the cloned feedstock, and tells Prefect what came of it.

This module is a worker's; it imports Prefect, and nothing of the feedstock's. The recipe runs in a process of its own,
with an environment of its own, where Prefect's credentials are not.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from . import catalog, engines, environments, limits, meta, recipe_process
from .bake import Provenance
from .findings import Refused, text
from .git import Repository
from .one_writer import one_writer
from .recipe_process import Job
from .staged.folders import as_feedstock

_REPOSITORY_FOLDER = Path()
"""Prefect's worker changes into the clone before it imports this flow."""


@flow(name="bake-recipe")
def bake_recipe(
    recipe: str,
    target: str,
    repository: str,
    commit: str,
    version: str,
    mode: Literal["complete", "update"] = "complete",
    prune: bool = False,
) -> str | State[str]:
    """Run one recipe of the feedstock in the working directory; returns the URL of the dataset.

    ``repository``, ``commit`` and ``version`` are written into the dataset as where it came from. A release is entered
    into the catalog; where that fails, the run has still completed, and its state's message says what is missing.
    """
    logger = get_run_logger()

    def say(line: str) -> None:
        logger.info("%s", line)

    try:
        _check_out(commit)
        say(f"baking {recipe} of {repository} at {version} ({mode}) into {target}")
        with as_feedstock(_REPOSITORY_FOLDER) as folder:
            file = meta.read(folder, repository=repository)
            origin = Provenance(
                feedstock=file.meta.id,
                recipe=recipe,
                repository=repository,
                commit=commit,
                version=version,
                mode=mode,
                run=flow_run.get_id() or "",
            )
            allowed = limits.from_environment(os.environ)
            if words := limits.words(allowed):
                say(f"the run may take {words}")
            engine = engines.from_environment(os.environ)
            label = os.environ.get(limits.LABEL_VARIABLE, "")
            python = environments.python_for(folder, say, engines.requirements(engine), allowed, label)
            job = Job(str(folder.resolve()), recipe, target, mode, prune, origin, engine, allowed, label)
            with one_writer(target):
                recipe_process.run(python, job, say)
                missing = catalog.record(file.meta, origin, target) if origin.is_release and not prune else None
    except Refused as refused:
        for finding in refused.findings:
            logger.error("%s", text(finding))
        raise
    if missing:
        logger.error("%s", text(missing))
        return Completed(message=missing.message, data=target)
    return target


def _check_out(commit: str) -> None:
    """Move the clone to the run's own commit.

    The deployment clones the commit it was last registered with, and a newer release may have come between the start
    of a run and a worker picking it up. Raises :class:`Refused` with git's own words if it cannot be had.
    """
    clone = Repository(_REPOSITORY_FOLDER)
    if clone.resolve("HEAD") != commit:
        clone.run("fetch", "--quiet", "--depth=1", "origin", commit)
        clone.run("checkout", "--quiet", "--detach", commit)
