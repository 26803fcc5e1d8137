"""`feedstock watch`."""

from __future__ import annotations

import datetime
import os
import uuid
from pathlib import Path

import click

from .. import plan, register, report, trigger, watch
from ..findings import text
from ..prefect import PATIENCE, Prefect
from . import EXIT_REFUSED
from .options import bakeries_option, event_options, folder_option, read_bakeries, read_trigger


@click.command("watch")
@click.argument("what", metavar="PLAN|RUN…", nargs=-1)
@folder_option
@event_options
@bakeries_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=3600.0,
    show_default=True,
    help="Seconds to wait at most.",
)
def command(
    what: tuple[str, ...],
    folder: Path,
    event_name: str | None,
    event: Path | None,
    bakeries_folder: Path | None,
    timeout: float,
) -> int:
    """Follow flow runs until they end: those of a registered PLAN, or RUNs by id.

    Exit status: 0 if every run completed, 1 otherwise; the last lines of a failed run's log are shown.
    """
    ids = [word for word in what if _is_id(word)]
    files = [Path(word) for word in what if not _is_id(word)] or ([] if ids else [Path("plan.json")])
    if len(files) > 1 or (files and ids):
        raise click.UsageError("name one plan, or run ids")
    with Prefect.from_environment(os.environ, patience=PATIENCE, say=_say) as client:
        if files:
            planned, found = plan.read(files[0]), read_trigger(event_name, event, folder)
            if isinstance(planned, trigger.Nothing) or isinstance(found, trigger.Nothing):
                nothing = planned if isinstance(planned, trigger.Nothing) else found
                click.echo(f"nothing to watch: {nothing.because}")
                return 0
            today = datetime.datetime.now(datetime.UTC).date()
            decided = register.decisions(found, planned, read_bakeries(bakeries_folder), today)
            wanted = register.deployments(found, planned, decided)
            keys = [run.key for deployment in wanted for run in deployment.runs]
            if not keys:
                click.echo("nothing to watch: no label was granted")
                return 0
            runs = watch.watch(lambda: [watch.watched(row) for row in client.runs(keys)], timeout=timeout, say=_say)
        else:
            runs = watch.watch(
                lambda: [watch.watched(row) for row in client.runs_by_id(ids)], timeout=timeout, say=_say
            )
        wrong = watch.findings(client, runs, timeout)
        report.summarise(report.ended(runs, wrong, client.ui), os.environ)
    for run in runs:
        click.echo(report.ended_line(run))
    for finding in wrong:
        click.echo(text(finding), err=True)
    return EXIT_REFUSED if wrong else 0


def _is_id(word: str) -> bool:
    try:
        uuid.UUID(word)
    except ValueError:
        return False
    return True


def _say(line: str) -> None:
    click.echo(line, err=True)
