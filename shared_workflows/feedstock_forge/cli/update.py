"""`feedstock update`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .. import lifecycle
from .. import template as templates
from ..findings import text
from ..lifecycle import State
from . import EXIT_PARTLY, EXIT_REFUSED


@click.command("update")
@click.argument("feedstocks", nargs=-1, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--template", metavar="ADDRESS", help="The template. [default: where the first feedstock's came from]")
@click.option("--to", "version", metavar="VERSION", help="A release or commit. [default: the newest release]")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option(
    "--jobs", type=click.IntRange(min=1), default=os.cpu_count() or 1, show_default=True, help="How many at a time."
)
def command(feedstocks: tuple[Path, ...], template: str | None, version: str | None, dry_run: bool, jobs: int) -> int:
    """Put a newer version of the template into FEEDSTOCKS, each on a branch of its own. [default: this folder]

    Your files and your working tree stay as they are: look at the branch, merge it or delete it. What you and the
    template both changed stays yours, and is named.

    Ends with 0 if all went well, with 3 if files are left to you or some feedstocks were refused, with 1 if all were.
    """
    folders = [folder.resolve() for folder in feedstocks or (Path(),)]
    outcomes = []
    with templates.fetched(template or lifecycle.source(folders[0]), version) as fetched:
        for number, outcome in enumerate(lifecycle.update(folders, fetched, dry_run=dry_run, jobs=jobs), start=1):
            outcomes.append(outcome)
            click.echo(f"[{number}/{len(folders)}] {outcome.folder.name}: {_say(outcome)}")
            for name in outcome.files if dry_run else ():
                click.echo(f"    {name}")
            for name in outcome.conflicts:
                click.echo(f"    left to you: {name} (changed here and in the template)")
            for finding in outcome.findings:
                click.echo(text(finding), err=True)
    refused = [outcome for outcome in outcomes if outcome.state is State.REFUSED]
    if len(refused) == len(outcomes):
        return EXIT_REFUSED
    return EXIT_PARTLY if refused or any(outcome.conflicts for outcome in outcomes) else 0


def _say(outcome: lifecycle.Outcome) -> str:
    match outcome.state:
        case State.CURRENT:
            return f"has {outcome.version} already"
        case State.AHEAD:
            return f"has {outcome.version}, which is newer"
        case State.WAITING:
            return f"the branch {outcome.branch} waits for you"
        case State.PLANNED:
            return f"would get {outcome.version} in {len(outcome.files)} files"
        case State.UPDATED:
            return f"{outcome.version} is on the branch {outcome.branch}, {len(outcome.files)} files"
        case State.REFUSED:
            return "refused"
