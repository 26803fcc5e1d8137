"""`feedstock catalog`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from .. import meta
from ..bake import Provenance
from ..catalog import sources
from ..findings import Finding, Refused, Severity, rule, text
from . import EXIT_PARTLY, EXIT_REFUSED
from .options import bakeries_option, folder_option, read_bakeries

NO_CATALOG = rule("catalog-extra-missing", "Reading datasets and drawing them takes more than the light core.")


@click.group("catalog")
def command() -> None:
    """Describe datasets as STAC, and make a website of them.

    A release run writes the entry of its dataset by itself, below `catalog/` in the target. `build` makes a website of
    the entries of any number of targets, `check` says what is wrong with them, `entry` writes one by hand.
    """


@command.command("entry")
@click.argument("dataset")
@click.option("--version", metavar="TAG", help="The release. [default: the newest that the dataset holds]")
@folder_option
def entry(dataset: str, version: str | None, folder: Path) -> None:
    """Write the entry of one DATASET, as its release run would have.

    DATASET is its URL or path. Run this in a clone of the feedstock that made it: the title, the licence and the people
    come from its meta.yaml.

        feedstock catalog entry s3://bucket/noaa-oisst/v1/avhrr-only.icechunk
    """
    _require("flows", "cf_xarray", "icechunk", "obstore", "pystac", "xarray")
    from ..catalog import entry as entries

    file = meta.read(folder)
    for hint in file.hints:
        click.echo(text(hint), err=True)
    address = entries.parse(_url(dataset))
    entries.refuse_other(file.meta, address)
    made = Provenance(feedstock=file.meta.id, recipe=address.recipe, version=version)
    click.echo(entries.write(file.meta, made, address.url).url)


@command.command("build")
@click.argument("source", nargs=-1, required=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("site"), show_default=True,
    help="The website's folder: a new one, or one that this command has made.",
)  # fmt: skip
@click.option("--title", default="Datasets", show_default=True, help="The website's title.")
@click.option("--pictures/--no-pictures", default=True, help="Draw a quicklook of each dataset.  [default: draw]")
@bakeries_option
def build(source: tuple[str, ...], output: Path, title: str, pictures: bool, bakeries_folder: Path | None) -> int:
    """Make or renew the website of the datasets at each SOURCE.

    SOURCE is a target, by URL or path, or the id of a bakery, which stands for all its targets.

    Only what has changed is written, and pages of datasets that are gone are removed. The website needs no server: put
    the folder anywhere, or open its index.html. Exit status: 3 if some entries could not be shown.
    """
    _require("catalog", "cf_xarray", "icechunk", "jinja2", "matplotlib", "obstore", "pystac", "xarray")
    from ..catalog import site

    found = sources.read(sources.resolve(map(_url, source), read_bakeries(bakeries_folder)))
    built = site.build(
        found.entries, output, title=title, pictures=pictures, say=lambda line: click.echo(line, err=True)
    )
    _say([*found.findings, *built.findings])
    files = f"{built.written} written, {built.unchanged} unchanged, {built.removed} removed"
    click.echo(f"{output / 'index.html'}: {_count(built.datasets, 'dataset')}; files: {files}")
    return EXIT_PARTLY if found.findings else 0


@command.command("check")
@click.argument("source", nargs=-1, required=True)
@bakeries_option
def check(source: tuple[str, ...], bakeries_folder: Path | None) -> int:
    """Check the entries at each SOURCE, without changing anything.

    Each entry must be valid STAC and its dataset must open; each dataset must have an entry, and the copy of it beside
    the dataset must be equal. SOURCE is a target, by URL or path, or the id of a bakery.
    """
    _require("flows", "cf_xarray", "icechunk", "obstore", "pystac", "xarray")
    found = sources.check(sources.resolve(map(_url, source), read_bakeries(bakeries_folder)))
    _say(found.findings)
    click.echo(f"{_count(len(found.entries), 'entry', 'entries')} checked, {_count(len(found.findings), 'finding')}")
    return EXIT_REFUSED if found.findings else 0


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _url(word: str) -> str:
    """A path as this process sees it, for an entry must not depend on where a command was typed."""
    is_path = "://" not in word and ("/" in word or word.startswith((".", "~")) or Path(word).is_dir())
    return str(Path(word).expanduser().absolute()) if is_path else word


def _say(findings: list[Finding]) -> None:
    order = list(Severity)
    for finding in sorted(findings, key=lambda finding: order.index(finding.severity)):
        click.echo(text(finding), err=True)


def _require(extra: str, *modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        fix = f"install it: `pip install 'feedstock-forge[{extra}]'`"
        raise Refused(NO_CATALOG.at(None, f"{missing[0].replace('_', '-')} is not installed here", fix))
