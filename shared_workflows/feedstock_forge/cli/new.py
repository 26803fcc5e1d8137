"""`feedstock new`."""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import click

from ..findings import Refused


def _pairs(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for word in given:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise click.BadParameter(f"`{word}` is no KEY=VALUE, such as id=noaa-oisst")
        pairs[name] = value
    return pairs


@click.command("new")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--template", "address", metavar="ADDRESS", help="The template. [default: where this came from]")
@click.option("--to", "version", metavar="VERSION", help="A release or commit. [default: the newest release]")
@click.option("--data", "data", multiple=True, metavar="KEY=VALUE", callback=_pairs, help="An answer; repeat it.")
@click.option(
    "--data-file", "file", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
    help="Answers in YAML; those of --data count more.",
)  # fmt: skip
@click.option("--defaults", is_flag=True, help="Ask nothing: what has a default takes it.")
def command(
    folder: Path | None,
    address: str | None,
    version: str | None,
    data: dict[str, str],
    file: Path | None,
    defaults: bool,
) -> None:
    """Make a feedstock from the template, in FOLDER. [default: the feedstock's name]

    It asks what it needs to know; each question has an example. The files are those of `copier copy`, so that both
    `copier update` and `feedstock update` bring newer versions. FOLDER is new or empty; stopped before it is whole,
    nothing is there.

    \b
    Example:
      feedstock new --template gh:pangeo-forge/feedstock-forge
      feedstock new --data id=noaa-oisst --data kind=virtual
    """
    # Importing Copier is most of the work; git reads the template at the same time.
    Thread(target=_import_copier, daemon=True).start()
    from .. import new, template
    from ..yaml_file import read_yaml

    answers: dict[str, Any] = (read_yaml(file).data if file else {}) | data
    left = new.Open.DEFAULT if defaults else new.Open.ASK if _at_a_terminal() else new.Open.REFUSE
    spelled = new.spelled(address) if address else new.installed_from()
    instead = _ask_for_another if left is new.Open.ASK else None
    with template.fetched(spelled, version) as fetched:
        if fetched.uncommitted:
            click.echo(f"left out: what is not committed in {spelled}", err=True)
        made = new.make(fetched, spelled, answers, folder, left=left, instead=instead)
    click.echo(made.words.strip("\n"))


def _import_copier() -> None:
    with suppress(Exception):  # which the import that needs it raises again
        importlib.import_module("feedstock_forge.rendering")


def _ask_for_another(refused: Refused) -> Path:
    click.echo(f"{refused.findings[0].message}: it stays as it is", err=True)
    try:
        return Path(click.prompt("Which folder instead", err=True))
    except click.Abort:
        raise KeyboardInterrupt from None


def _at_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()
