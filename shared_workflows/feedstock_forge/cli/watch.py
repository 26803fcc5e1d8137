"""`feedstock watch`."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import click

from .. import plan, register, report, trigger, watch
from ..findings import text
from ..prefect import PATIENCE, Prefect
from . import EXIT_REFUSED
from .options import event_options, folder_option, read_trigger


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
def command(
    what: tuple[str, ...],
    folder: Path,
    event_name: str | None,
    event: Path | None,
    timeout: float,
) -> int:
    """Follow flow runs until they end: those of a registered PLAN, or RUNs by id.

    Exit status: 0 if every run completed, 1 otherwise; the last lines of a failed run's log are shown.
    """
    ids = [word for word in what if _is_id(word)]
    files = [Path(word) for word in what if not _is_id(word)] or ([] if ids else [Path("plan.json")])
    if len(files) > 1 or (files and ids):
        raise click.UsageError("name one plan, or run ids")
    keys = _keys(files[0], read_trigger(event_name, event, folder)) if files else []
    if files and not keys:
        return 0
    with Prefect.from_environment(os.environ, patience=PATIENCE, say=_say) as client:

        def look() -> list[watch.Watched]:
            rows = client.runs(keys) if keys else client.runs_by_id(ids)
            return [watch.watched(row) for row in rows]

        runs = watch.watch(look, timeout=timeout, say=_say)
        wrong = watch.findings(client, runs, timeout)
        report.summarise(report.ended(runs, wrong, client.ui), os.environ)
        for run in runs:
            click.echo(report.ended_line(run))
            for line in watch.last_words(client, run):
                click.echo(f"    | {line}")
    for finding in wrong:
        click.echo(text(finding), err=True)
    return EXIT_REFUSED if wrong else 0


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
