"""`feedstock create`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..findings import Refused, text
from ..git import NOT_A_REPOSITORY, Repository
from ..github import GitHub, token_of
from ..report import summarise
from . import EXIT_PARTLY, EXIT_REFUSED


@click.command("create")
@click.argument("recipes", nargs=-1)
@click.option(
    "-C", "--staged", "folder", type=click.Path(path_type=Path, file_okay=False, exists=True), default=Path(),
    help="A full clone of the staged recipes. [default: this folder]",
)  # fmt: skip
@click.option("--repository", envvar="GITHUB_REPOSITORY", help="Its `owner/name`. [default: by git's origin]")
@click.option("--template", metavar="OWNER/NAME", help="The forge. [default: what the staged recipes came from]")
@click.option("--to", "version", metavar="VERSION", help="Of the template. [default: that of the staged recipes]")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
def command(
    recipes: tuple[str, ...],
    folder: Path,
    repository: str | None,
    template: str | None,
    version: str | None,
    dry_run: bool,
) -> int:
    """Make a feedstock of every merged recipe, or of RECIPES, and take them out of the staged ones.

    Each gets a repository on GitHub with the template's files, the recipe and its history, rules for its default
    branch, and its maintainers invited. Recipes are taken as they are in the last commit. Nothing of a recipe is run.

    Stopped at any point, the same command goes on where it stopped.

    Ends with 0 if all went well, with 3 if something is left to people, with 1 if every recipe was refused.
    """
    from ..staged import create, folders
    from ..staged.feedstock import Template, of_staged

    server = (os.environ.get("GITHUB_SERVER_URL") or "https://github.com").rstrip("/")
    clone = Repository(folder.resolve(), token_of(os.environ), server)
    commit = clone.resolve("HEAD")
    if commit is None:
        message = f"{folder} is no git repository with a commit"
        raise Refused(NOT_A_REPOSITORY.at(None, message, "name a clone of the staged recipes: -C FOLDER"))
    name = repository or clone.name
    if name is None:
        raise click.UsageError("git knows no origin here: name the repository with --repository OWNER/NAME")
    wanted = folders.choose(clone, commit, recipes)
    if wanted and not clone.token and not dry_run:
        fix = (
            "give the workflow the organisation's App (docs/staged-recipes.md), or set GITHUB_TOKEN to a person's token"
        )
        raise Refused(create.NO_TOKEN.at(None, f"there is no token to create {len(wanted)} repositories with", fix))
    known = of_staged(folder)
    source = Template(template or known.forge, server, version or known.version)
    staged = create.Staged(name, clone, commit, server)
    with GitHub.from_environment(os.environ, say=_say) as client:
        outcomes = create.create(client, staged, wanted, source, dry_run=dry_run, say=_say)
    if not outcomes:
        click.echo("no recipe waits: there is nothing to create")
    for outcome in outcomes:
        click.echo(f"{outcome.name}: {outcome.state}: {server}/{outcome.repository}")
        for finding in outcome.findings:
            click.echo(text(finding), err=True)
    if not dry_run:
        summarise(create.summary(outcomes, server), os.environ)
    refused = [outcome for outcome in outcomes if outcome.state is create.State.REFUSED]
    if refused and len(refused) == len(outcomes):
        return EXIT_REFUSED
    return EXIT_PARTLY if any(outcome.findings for outcome in outcomes) else 0


def _say(line: str) -> None:
    click.echo(line, err=True)
