"""`feedstock staged`."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import click

from ..bakery import Limits
from ..findings import Place, Refused, did_you_mean, text
from ..git import Repository
from ..github import GitHub
from ..quantities import Duration, Memory
from ..staged import comment, preview, queue, trial, turn
from ..staged.folders import NO_FOLDER, RECIPES, path_of
from . import EXIT_REFUSED
from .options import Amount, bakeries_option, read_bakeries

repository_option = click.option(
    "--repository", envvar="GITHUB_REPOSITORY", required=True, help="`owner/name`. [$GITHUB_REPOSITORY]"
)


@click.group("staged")
def command() -> None:
    """Look after pull requests that propose recipes."""


@command.command("check")
@click.argument("names", metavar="[RECIPE]...", nargs=-1)
@click.option(
    "-C", "--staged", "root", type=click.Path(path_type=Path, file_okay=False, exists=True), default=Path(),
    help="The staged recipes. [default: this folder]",
)  # fmt: skip
@click.option("--base", default="origin/main", show_default=True, help="What a pull request's changes are told from.")
@click.option("--commit", default="", help="The pull request's own commit, where HEAD is GitHub's merge of it.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write what came of it here.")
@click.option("--time", type=Amount(Duration), default="10 min", show_default=True, help="The most of one run.")
@click.option("--memory", type=Amount(Memory), default="6 GiB", show_default=True, help="The most of one run.")
@click.option("--disk", type=Amount(Memory), default="8 GiB", show_default=True, help="The most of one run.")
def check(
    names: tuple[str, ...],
    root: Path,
    base: str,
    commit: str,
    output: Path | None,
    time: int,
    memory: int,
    disk: int,
) -> int:
    """Try recipes: plan each and run it pruned, in an environment of its own and within limits.

    RECIPE names a folder in recipes/; without any, those that were changed since --base are tried. Lint is a command of
    its own: `feedstock lint`.

    Exit status: 0 if every recipe completed, 1 otherwise.
    """
    from ..staged import attempt

    clone = Repository(root.resolve())
    compared = "" if names else clone.run("diff", "--name-only", "-z", base, "HEAD")
    changes, outside = preview.changed(compared.split("\0")[:-1])
    findings = preview.whole(changes, outside)
    chosen = [name for name in names or changes if (root / path_of(name)).is_dir()][: trial.MAX_FOLDERS]
    missing = sorted(set(names) - set(chosen))
    if missing:
        known = [path.name for path in sorted((root / RECIPES).iterdir()) if path.is_dir()]
        raise Refused(NO_FOLDER.at(None, f"there is no folder {path_of(missing[0])}", did_you_mean(missing[0], known)))
    allowed = Limits.model_construct(memory=memory, runtime=time)  # both are amounts already
    tried: list[trial.FolderTrial] = []
    for name in chosen:
        if preview.is_folder(name):
            tried.append(attempt.folder(root / path_of(name), allowed, disk, _say))
        if output:
            # After each, so that a job that is stopped has told what came before.
            trial.write(trial.Trial(commit=commit or clone.resolve("HEAD") or "", folders=tried), output)
    if output and not chosen:
        trial.write(trial.Trial(commit=commit or clone.resolve("HEAD") or "", folders=[]), output)
    for finding in [*findings, *(said.finding() for item in tried for said in item.said)]:
        click.echo(text(finding), err=True)
    for item in tried:
        click.echo(f"{item.folder}: {'passed' if item.passed else 'failed'}")
    return EXIT_REFUSED if findings or not all(item.passed for item in tried) else 0


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


@command.command("answer")
@click.option("--event", type=click.Path(path_type=Path, dir_okay=False, exists=True), envvar="GITHUB_EVENT_PATH",
              required=True, help="The `issue_comment` event. [$GITHUB_EVENT_PATH]")  # fmt: skip
@click.option("--bakery", default="local", show_default=True, help="The development bakery, where recipes are tried.")
@click.option("--label", default="dev", show_default=True, help="Its label for that.")
@click.option("--wait", type=click.FloatRange(min=0), default=3600.0, show_default=True, help="Seconds to follow runs.")
@bakeries_option
def answer_comment(event: Path, bakery: str, label: str, wait: float, bakeries_folder: Path | None) -> int:
    """Answer a command in a comment on a recipe's pull request, and do what it asks for.

    Every command is answered on the pull request, also one that nobody knows or that its author may not give. What
    runs is registered by what the recipe's meta.yaml says at the commit that was looked at: nothing of it is imported
    here. Ends with 0 if it was answered, also with a no, and with 1 if what it started did not go well.
    """
    from ..staged import bakery_run, commands

    said = commands.read(event, os.environ.get("GITHUB_REPOSITORY", ""))
    asked = commands.parse(said.comment.body) if said else None
    if said is None or asked is None:
        click.echo("no command of a person's on a pull request: nothing to answer")
        return 0
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com").rstrip("/")
    repository, number = said.repository.full_name, said.issue.number
    page = f"{server}/{repository}/actions/runs/{os.environ.get('GITHUB_RUN_ID', '')}"
    bakeries, place = read_bakeries(bakeries_folder), commands.Place(bakery, label, server, page)
    with GitHub.from_environment(os.environ, say=_say) as client:

        def reply(words: str) -> None:
            body = f"{commands.marker(said)}\n{words}\n\n_For @{said.comment.user.login}._\n"
            click.echo(client.comment(repository, number, commands.marker(said), body))

        answer = commands.answer(client, said, asked, bakeries, place)
        reply(answer.text)
        for finding in answer.findings:
            click.echo(text(finding), err=True)
        if not answer.tests:
            return 0
        try:
            commands.refuse_moved(client, said, answer.commit)
            outcome = bakery_run.run(answer.tests, bakeries, wait, os.environ, _say)
        except Refused as refused:
            outcome = bakery_run.Ended(bakery_run.refusal(refused), False)
            for finding in refused.findings:
                click.echo(text(finding), err=True)
        reply(outcome.text)
    return 0 if outcome.well else EXIT_REFUSED


def _say(line: str) -> None:
    click.echo(line, err=True)
