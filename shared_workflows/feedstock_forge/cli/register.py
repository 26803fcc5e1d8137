"""`feedstock register`."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from types import TracebackType

import click

from .. import automations, plan, register, report, status, trigger
from ..findings import Finding, Refused, text
from ..github import GitHub, token_of
from ..labels import Decision
from ..labels.audit import without_taken
from ..prefect import PATIENCE, Prefect
from . import EXIT_PARTLY, EXIT_REFUSED
from .options import bakeries_option, event_options, folder_option, read_bakeries, read_trigger, report_option


@click.command("register")
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path, dir_okay=False), default=Path("plan.json"))
@folder_option
@event_options
@bakeries_option
@click.option("--dry-run", is_flag=True, help="Say what would be done; read from Prefect, write nothing.")
@click.option(
    "--patience", type=click.FloatRange(min=0), default=PATIENCE, show_default=True,
    help="Seconds to try again while Prefect is busy or away.",
)  # fmt: skip
@report_option
def command(
    plan_file: Path,
    folder: Path,
    event_name: str | None,
    event: Path | None,
    bakeries_folder: Path | None,
    dry_run: bool,
    patience: float,
    reporting: bool,
) -> int:
    """Register a plan's recipes in Prefect and start their runs.

    Reads PLAN as data and imports nothing of the feedstock's. Which repository and commit act is the job's own word
    (or the event's, outside GitHub Actions), never the plan's; which labels are allowed is the bakeries'. Doing it
    twice changes nothing; doing it again after an interruption completes it.

    Exit status: 0 done or nothing to do, 1 refused, 3 registered in part.
    """
    planned = plan.read(plan_file)
    found = read_trigger(event_name, event, folder)
    if isinstance(found, trigger.Nothing):
        click.echo(f"nothing to register: {found.because}")
        report.summarise(report.nothing(found.because), os.environ)
        return 0
    if isinstance(planned, trigger.Nothing):
        plan.refuse_nothing(planned, found, plan_file)
    plan.refuse_other(planned, found, plan_file)
    plan.refuse_other_meta(planned, plan.committed_meta(found, folder, token_of(os.environ)), plan_file)
    bakeries, today = read_bakeries(bakeries_folder), datetime.datetime.now(datetime.UTC).date()
    decided = register.decisions(found, planned, bakeries, today)
    wanted: list[register.Deployment] = []
    outcome, ui = register.Outcome(), ""
    with _GitHub(status.subject(found), reporting and not dry_run) as shown:
        shown.begin(decided)
        if any(decision.recipes for decision in decided):
            with Prefect.from_environment(os.environ, patience=patience, say=_say) as client:
                standing = list(client.deployments_tagged(register.feedstock_tag(found.feedstock)))
                decided = without_taken(found, decided, standing, bakeries, today)
                _tell(decided)
                shown.begin(decided)
                wanted = register.deployments(found, planned, decided)
                outcome = register.register(client, wanted, standing, say=_say, dry_run=dry_run)
                ui = client.ui
                shown.registered(client, outcome)
        else:
            _tell(decided)
    report.summarise(report.registered(found, planned, decided, wanted, outcome, ui, dry_run), os.environ)
    click.echo(report.registered_line(outcome, decided, found, dry_run))
    refused = [decision for decision in decided if decision.findings]
    if refused:
        return EXIT_PARTLY if wanted else EXIT_REFUSED
    return 0


def _tell(decided: list[Decision]) -> None:
    for decision in decided:
        for finding in decision.findings:
            click.echo(text(finding), err=True)


def _say(line: str) -> None:
    click.echo(line, err=True)


class _GitHub:
    """What GitHub shows of a registration. That something could not be written there is said, and stops nothing."""

    def __init__(self, about: status.Subject, reporting: bool) -> None:
        self.about = about
        self.asked: list[status.Label] = []
        self.client = GitHub.from_environment(os.environ, say=_say) if reporting else None

    def __enter__(self) -> _GitHub:
        return self

    def begin(self, decided: list[Decision]) -> None:
        """Show what is registered, and what is refused, as far as it is decided now."""
        asked = [status.asked(decision) for decision in decided]
        if self.client and asked != self.asked:
            self.asked = asked
            self.told(status.begin(self.client, self.about, asked))

    def registered(self, prefect: Prefect, outcome: register.Outcome) -> None:
        """Show the runs that wait now, and have Prefect tell when they end."""
        if self.client is None:
            return
        try:
            self.told(status.report_on(self.client, prefect, self.about)[1])
            if outcome.started:
                automations.tell_github(prefect, self.about.repository, self.about.repository_id, self.client.url)
        except Refused as refused:
            self.told(list(refused.findings))

    def told(self, wrong: list[Finding]) -> None:
        for finding in wrong:
            _say(text(finding))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.client is None:
            return
        with self.client:
            if isinstance(error, Refused):
                self.told(status.stopped(self.client, self.about, self.asked, error.findings[0]))
