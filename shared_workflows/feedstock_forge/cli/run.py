"""`feedstock run`."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path

import click

from .. import datasets, meta, recipes
from ..findings import text
from ..meta import Meta, Store
from ..plan import SECRETS
from ..staged.folders import as_feedstock
from .options import folder_option


@click.command("run")
@click.argument("recipe", required=False)
@folder_option
@click.option("--prune", is_flag=True, help="Take the first few inputs only.")
@click.option(
    "--mode", type=click.Choice(["complete", "update"]), default="complete", show_default=True,
    help="Write all, or append what is new.",
)  # fmt: skip
@click.option("--target", help="The dataset's URL, or a folder to put it in. [default: datasets/]")
@click.option("--all", "everything", is_flag=True, help="Run every recipe, one after the other.")
@click.option("--at-most", type=click.IntRange(min=1), help="With --all: no more than the first so many.")
def command(
    recipe: str | None,
    folder: Path,
    prune: bool,
    mode: str,
    target: str | None,
    everything: bool,
    at_most: int | None,
) -> None:
    """Run a recipe here, with no server at hand.

    RECIPE is its id in meta.yaml; a feedstock with one recipe needs no name. A folder of staged recipes will do, too
    (-C recipes/NAME). Try it on a few inputs first:

        feedstock run --prune
    """
    if (everything and recipe) or (at_most and not everything):
        raise click.UsageError("name a RECIPE, or pass --all (and --at-most)")
    # The name of what is followed goes to stdout; progress, like everything that a person reads, to stderr.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "botocore", "aiohttp"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    _alone(os.environ)
    folder = click.get_current_context().with_resource(as_feedstock(folder))
    file = meta.read(folder)
    for hint in file.hints:
        click.echo(text(hint), err=True)
    chosen = recipes.ids(folder, file)[:at_most] if everything else [recipe]
    for name in chosen:
        recipe_id, bake, store = recipes.recipe(folder, file, name)
        url = _url(target, file.meta, recipe_id, store, prune)
        click.echo(f"{recipe_id}: {'pruned ' if prune else ''}{mode} run into {url}", err=True)
        began = time.monotonic()
        recipes.run(folder, bake, recipe_id, target=url, mode=mode, prune=prune)
        click.echo(url)
        click.echo(f"{recipe_id}: done in {time.monotonic() - began:.1f} s", err=True)


def _alone(environment: MutableMapping[str, str]) -> None:
    """Keep a recipe that is a Prefect flow from any server but a temporary one of its own, which tells nobody of it."""
    for name in ("PREFECT_API_URL", *SECRETS):
        environment.pop(name, None)
    environment["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    # A new home takes its database longer to make than Prefect waits by default.
    environment.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")


def _url(target: str | None, declared: Meta, recipe: str, store: Store, prune: bool) -> str:
    if target and target.rstrip("/").endswith((".icechunk", ".zarr")):
        return target
    base = target or str(Path("datasets").resolve())
    return datasets.url(base, declared.id, declared.version, recipe, store, pruned=prune)
