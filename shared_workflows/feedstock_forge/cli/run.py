"""`feedstock run`."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import click

from .. import datasets, meta, recipes
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
def command(recipe: str | None, folder: Path, prune: bool, mode: str, target: str | None) -> None:
    """Run a recipe here, with no server at hand.

    RECIPE is its id in meta.yaml; a feedstock with one recipe needs no name. Try it on a few inputs first:

        feedstock run --prune
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "botocore", "aiohttp"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    file = meta.read(folder)
    for hint in file.hints:
        click.echo(f"{hint.place}: hint[{hint.id}] {hint.message}; {hint.fix}", err=True)
    recipe_id, bake, store = recipes.recipe(folder, file, recipe)
    if target is None or not target.rstrip("/").endswith((".icechunk", ".zarr")):
        base = target or str(Path("datasets").resolve())
        target = datasets.url(base, file.meta.id, file.meta.version, recipe_id, store, pruned=prune)
    click.echo(f"{recipe_id}: {'pruned ' if prune else ''}{mode} run into {target}", err=True)
    began = time.monotonic()
    bake(target=target, mode=mode, prune=prune)
    click.echo(f"{target}")
    click.echo(f"done in {time.monotonic() - began:.1f} s", err=True)
