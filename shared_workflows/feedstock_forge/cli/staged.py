"""`feedstock staged`."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import click

from ..findings import Place, Refused, text
from ..github import GitHub
from ..staged import comment, preview, queue, trial, turn
from .options import bakeries_option, read_bakeries

repository_option = click.option(
    "--repository", envvar="GITHUB_REPOSITORY", required=True, help="`owner/name`. [$GITHUB_REPOSITORY]"
)


@click.group("staged")
def command() -> None:
    """Look after pull requests that propose recipes."""


@command.command("report")
@click.argument("pull", type=click.IntRange(min=1), required=False)
@click.option("--head", default="", help="The open pull request from here instead, as `owner:branch`.")
@repository_option
@click.option("--began", is_flag=True, help="The check of a new commit has begun.")
@click.option("--trial", "file", type=click.Path(path_type=Path), help="The check has ended; what its trial wrote.")
@click.option("--commit", default="", help="The commit that was checked; nothing is said of another one.")
@bakeries_option
def report(
    pull: int | None,
    head: str,
    repository: str,
    began: bool,
    file: Path | None,
    commit: str,
    bakeries_folder: Path | None,
) -> None:
    """Tell a pull request how its recipes fare, and let it bear the label of whose turn it is.

    With --began or --trial the one comment and the check `recipe check` are brought up to date; without, only the
    label: for reviews and comments. What the trial says is shown and never believed: lint, the labels asked for and
    who decides are looked up here, from the files.
    """
    if bool(pull) == bool(head):
        raise click.UsageError("name a pull request by its number, or by --head")
    if began and file:
        raise click.UsageError("--began and --trial do not go together")
    bakeries = read_bakeries(bakeries_folder)
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
    with GitHub.from_environment(os.environ, say=_say) as client:
        rows = [client.pull(repository, pull)] if pull else client.open_pulls(repository, head)
        if not rows:
            click.echo(f"no open pull request of {repository} comes from {head}")
        for row in rows:
            number, at = int(row["number"]), str(row["head"]["sha"])
            if commit and at != commit:
                click.echo(
                    f"{repository}#{number} has moved on from {commit[:12]} to {at[:12]}: nothing to say of that"
                )
                continue
            if row["state"] != "open":
                click.echo(f"{repository}#{number} is {row['state']}: nobody waits for it")
                continue
            if began or file:
                look = preview.look(client, repository, row, server, bakeries)
                tried = _trial(file, at) if file else None
                page = comment.publish(client, look, tried)
                state, why = comment.verdict(look, tried)
                click.echo(f"{repository}#{number}: {state}: {why}")
                if page:
                    click.echo(page)
            stands = turn.standing(client, repository, row)
            turn.label(client, repository, number, stands.turn, [str(item["name"]) for item in row["labels"]])
            click.echo(f"{repository}#{number}: {stands.turn}: {stands.because}")


def _trial(file: Path, commit: str) -> trial.Trial | Refused:
    try:
        if not file.exists():
            fix = "look at the log of the check; push again, or ask for `/lint`, to run it again"
            message = "the check ended without saying what came of the trial"
            raise Refused(trial.UNREADABLE.at(Place(file.name), message, fix))
        return trial.read(file, commit)
    except Refused as refused:
        for finding in refused.findings:
            click.echo(text(finding), err=True)
        return refused


@command.command("queue")
@repository_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "html"]),
    default="table",
    show_default=True,
    help="How to print it; `html` is a page that stands by itself.",
)
def show_queue(repository: str, form: str) -> None:
    """List the recipes that wait, for whom and how long: first what reviewers can act on, longest waiting on top."""
    with GitHub.from_environment(os.environ, say=_say) as client:
        waiting = queue.read(client, repository)
    now = datetime.datetime.now(datetime.UTC)
    if form == "json":
        click.echo(queue.as_json(waiting, now), nl=False)
    elif form == "html":
        click.echo(queue.page(waiting, repository, now), nl=False)
    else:
        click.echo(queue.table(waiting, now), nl=False)


def _say(line: str) -> None:
    click.echo(line, err=True)
