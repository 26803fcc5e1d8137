"""`feedstock watch`."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

import click

from .. import plan, register, report, status, trigger, watch
from ..findings import Refused, Severity, text
from ..github import GitHub
from ..prefect import PATIENCE, Prefect
from . import EXIT_REFUSED
from .options import event_options, folder_option, read_trigger, report_option


@click.command("watch")
@click.argument("what", metavar="PLAN|RUN…", nargs=-1)
@folder_option
@event_options
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=3600.0,
    show_default=True,
    help="Seconds to wait at most.",
)
@report_option
def command(
    what: tuple[str, ...],
    folder: Path,
    event_name: str | None,
    event: Path | None,
    timeout: float,
    reporting: bool,
) -> int:
    """Follow flow runs until they end: those of a registered PLAN, or RUNs by id.

    What takes longer than the timeout goes on, and is no failure. The last lines of a failed run's log are shown.

    Exit status: 0 if no run failed, 1 if one did or nobody has picked it up.
    """
    ids = [word for word in what if _is_id(word)]
    files = [Path(word) for word in what if not _is_id(word)] or ([] if ids else [Path("plan.json")])
    if len(files) > 1 or (files and ids):
        raise click.UsageError("name one plan, or run ids")
    if reporting and not files:
        raise click.UsageError("--report belongs to a plan; `feedstock status report RUN` reports a run")
    found = read_trigger(event_name, event, folder) if files else trigger.Nothing("no plan was named")
    keys = _keys(files[0], found) if files else []
    if files and not keys:
        return 0
    with Prefect.from_environment(os.environ, patience=PATIENCE, say=_say) as client:

        def look() -> list[watch.Watched]:
            rows = client.runs(keys) if keys else client.runs_by_id(ids)
            return [watch.watched(row) for row in rows]

        if reporting and isinstance(found, trigger.Trigger):
            with GitHub.from_environment(os.environ, say=_say) as github:
                runs = watch.watch(
                    look, timeout=timeout, say=_say, changed=_reporter(github, client, status.subject(found))
                )
        else:
            runs = watch.watch(look, timeout=timeout, say=_say)
        wrong = watch.findings(client, runs, timeout)
        report.summarise(report.ended(runs, wrong, client.ui), os.environ)
        for run in runs:
            click.echo(report.ended_line(run))
            for line in watch.last_words(client, run):
                click.echo(f"    | {line}")
    for finding in wrong:
        click.echo(text(finding), err=True)
    return EXIT_REFUSED if any(finding.severity is Severity.ERROR for finding in wrong) else 0


def _reporter(github: GitHub, prefect: Prefect, about: status.Subject) -> Callable[[list[watch.Watched]], None]:
    """What shows each change of a label's state on GitHub. That it could not is said, and stops nobody."""
    shown: list[tuple[str, str]] = []

    def changed(runs: list[watch.Watched]) -> None:
        states = status.states(prefect, runs)
        if states == shown:
            return
        shown[:] = states
        try:
            _, wrong = status.report_on(github, prefect, about)
        except Refused as refused:
            wrong = list(refused.findings)
        for finding in wrong:
            _say(text(finding))

    return changed


def _keys(plan_file: Path, found: trigger.Trigger | trigger.Nothing) -> list[str]:
    """The keys of the runs that a plan may have started; says why where there are none."""
    planned = plan.read(plan_file)
    if isinstance(found, trigger.Nothing):
        click.echo(f"nothing to watch: {found.because}")
        return []
    if isinstance(planned, trigger.Nothing):
        click.echo(f"nothing to watch: {planned.because}")
        return []
    keys = register.run_keys(found, planned)
    if not keys:
        click.echo(f"nothing to watch: meta.yaml asks for no label on {found.event}")
    return keys


def _is_id(word: str) -> bool:
    try:
        uuid.UUID(word)
    except ValueError:
        return False
    return True


def _say(line: str) -> None:
    click.echo(line, err=True)
