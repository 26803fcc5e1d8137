"""`feedstock status`."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path

import click

from .. import report, status
from ..findings import Finding, Refused, rule, text
from ..github import GitHub
from ..prefect import PATIENCE, Prefect
from ..trigger import MAX_PAYLOAD, NO_EVENT, own_id
from ..yaml_file import read_text
from . import EXIT_PARTLY

NO_REPOSITORY = rule("status-repository-missing", "What GitHub shows, it shows in one repository.")

_repository = click.option(
    "--repository", help="The feedstock, as owner/name. [default: $GITHUB_REPOSITORY]", metavar="OWNER/NAME"
)


@click.group("status")
def command() -> None:
    """Show on GitHub how runs went.

    A deployment for each bakery and label, and one text in the release or the pull request. What is written is what
    Prefect knows at that moment; what GitHub shows already is not written again. Needs PREFECT_API_URL and a
    GITHUB_TOKEN that may write deployments, contents (the text of a release) and pull requests.
    """


@command.command("report")
@click.argument("run", required=False)
@_repository
def report_run(run: str | None, repository: str | None) -> int:
    """Report one run and all that belongs to its version.

    RUN is the run's id in Prefect; without it, the one that a `repository_dispatch` of Prefect's names.

    Exit status: 0 GitHub shows the truth, 1 refused, 3 not all of it could be written.
    """
    wanted = status.run_id(run or status.run_dispatched(_dispatch()))
    with GitHub.from_environment(os.environ, say=_say) as github, _prefect() as prefect:
        name, repository_id = _here(github, repository)
        about = status.subject_of_id(prefect, wanted, name, repository_id)
        labels, wrong = status.report_on(github, prefect, about)
        report.summarise(status.section(prefect, labels), os.environ)
    for label in labels:
        click.echo(f"{about.version[:40]} at {label.name}: {': '.join(label.state)}")
    return _end(wrong)


@command.command("reconcile")
@_repository
def reconcile(repository: str | None) -> int:
    """Report whatever of the last 30 days GitHub does not show as Prefect knows it.

    Makes good what was lost: a webhook, a job that was cancelled, a report while GitHub was away.

    Exit status: 0 GitHub shows the truth, 1 refused, 3 not all of it could be written.
    """
    with GitHub.from_environment(os.environ, say=_say) as github, _prefect() as prefect:
        name, repository_id = _here(github, repository)
        mended: list[str] = []
        now = datetime.datetime.now(datetime.UTC)
        subjects, wrong = status.reconcile(github, prefect, name, repository_id, now=now, say=mended.append)
    for line in mended:
        click.echo(line)
    click.echo(f"looked at {len(subjects)} versions of the last {status.LOOK_BACK.days} days; mended: {len(mended)}")
    report.summarise(report.reconciled(len(subjects), mended), os.environ)
    return _end(wrong)


def _end(wrong: list[Finding]) -> int:
    for finding in wrong:
        click.echo(text(finding), err=True)
    return EXIT_PARTLY if wrong else 0


def _prefect() -> Prefect:
    return Prefect.from_environment(os.environ, patience=PATIENCE, say=_say)


def _here(github: GitHub, repository: str | None) -> tuple[str, int]:
    """The repository by name and id: the job's own, or the one that was named."""
    own = os.environ.get("GITHUB_REPOSITORY")
    if own and repository in (None, own) and (number := own_id(os.environ)):
        return own, number
    name = repository or own
    found = github.repository(name) if name and name.count("/") == 1 else None
    if found is None:
        message = f"there is no repository {name} on GitHub" if name else "no repository was given"
        raise Refused(NO_REPOSITORY.at(None, message, "pass --repository OWNER/NAME"))
    return str(found["full_name"]), int(found["id"])


def _dispatch() -> dict[str, object]:
    name, path = os.environ.get("GITHUB_EVENT_NAME"), os.environ.get("GITHUB_EVENT_PATH")
    if name != "repository_dispatch" or not path:
        message = f"a `{name}` event names no run" if name else "no run was named, and there is no event"
        raise Refused(NO_EVENT.at(None, message, "name the run: `feedstock status report RUN`"))
    try:
        payload = json.loads(read_text(Path(path), max_bytes=MAX_PAYLOAD))
    except (ValueError, RecursionError):
        payload = None
    return payload if isinstance(payload, dict) else {}


def _say(line: str) -> None:
    click.echo(line, err=True)
