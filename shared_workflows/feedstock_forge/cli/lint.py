"""`feedstock lint`: read feedstocks, recipes and bakeries, and say what is wrong with them."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import click

FORMATS = ("text", "json", "github", "markdown", "sarif")


@click.command("lint")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--fix", is_flag=True, help="Rewrite what is mechanical, then look again.")
@click.option("--fix-only", is_flag=True, help="Rewrite what is mechanical and say nothing of the rest.")
@click.option("--format", "format_", type=click.Choice(FORMATS), default="text", help="How to say it. [default: text]")
@click.option("--strict", is_flag=True, help="Let warnings count as errors.")
@click.option(
    "--bakeries", "bakeries_folder", type=click.Path(path_type=Path, file_okay=False),
    help="The bakery database. [default: $FEEDSTOCK_BAKERIES, else the one that came with the forge]",
)  # fmt: skip
@click.option("--repository", metavar="OWNER/NAME", help="The feedstock's repository, where git does not tell.")
@click.option("--release", metavar="TAG", help="Check that the version has moved for the release TAG.")
@click.option(
    "--template", type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Compare the generated files with what this checkout of the forge renders.",
)  # fmt: skip
@click.option("--explain", metavar="ID", help="Print the manual's section about a finding.")
def command(
    paths: tuple[Path, ...],
    fix: bool,
    fix_only: bool,
    format_: str,
    strict: bool,
    bakeries_folder: Path | None,
    repository: str | None,
    release: str | None,
    template: Path | None,
    explain: str | None,
) -> int:
    """Check feedstocks, staged recipes, bakeries and grants.

    PATHS are feedstock folders, folders of many, forges, or single files. [default: this folder]

    Ends with 0 if there is no error, and with 1 if there is one (with --strict: a warning).
    """
    # Pydantic finds plugins by reading the metadata of every installed package, and they would see every file.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.disable()
    from .. import bakery, lint
    from ..findings import Place, Severity
    from ..lint import formats

    gc.freeze()
    gc.enable()
    if explain is not None:
        click.echo(formats.explain(explain))
        return 0
    places = list(paths) or [Path()]
    folder = bakeries_folder or bakery.default_folder()
    known = bakery.Bakeries.at(folder) if bakeries_folder or folder.is_dir() else None
    options = lint.Options(bakeries=known, repository=repository, release=release, template=template)
    if fix or fix_only:
        rewritten = lint.fix(places, options)
        for file in rewritten:
            click.echo(f"rewrote {Place(str(file))}", err=True)
        if fix_only:
            return 0
    report = lint.lint(places, options)
    report.fixed = fix
    click.echo(formats.FORMATS[format_](report), nl=False)
    failing = (Severity.ERROR, Severity.WARNING) if strict else (Severity.ERROR,)
    return int(any(finding.severity in failing for finding in report.findings))
