"""`feedstock update`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import click

from .. import fleet, lifecycle, template
from ..findings import Finding, text
from ..github import GitHub
from ..lifecycle import Outcome, State
from ..pace import BETWEEN, Pace
from ..report import summarise
from ..template import Template
from . import EXIT_PARTLY, EXIT_REFUSED

AT_ONCE = 8
"""Feedstocks on GitHub at a time: most of the work is waiting."""


@click.command("update")
@click.argument("feedstocks", nargs=-1)
@click.option("--template", "address", metavar="ADDRESS", help="The template. [default: the first feedstock's]")
@click.option("--to", "version", metavar="VERSION", help="A release or commit. [default: the newest release]")
@click.option("--dry-run", is_flag=True, help="Say what would change and what it costs, and change nothing.")
@click.option("--jobs", type=click.IntRange(min=1), help="How many at a time. [default: one a core; 8 on GitHub]")
@click.option(
    "--canary", type=click.IntRange(min=0), default=0, metavar="N", help="Update N first, and wait for their checks."
)
@click.option(
    "--canary-minutes", type=click.FloatRange(min=0), default=60.0, show_default=True, help="How long to wait."
)
@click.option(
    "--canary-poll",
    type=click.FloatRange(min=0, min_open=True),
    default=20.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option(
    "--pace", type=click.FloatRange(min=0), default=BETWEEN, show_default=True, help="Seconds between two changes."
)
def command(
    feedstocks: tuple[str, ...],
    address: str | None,
    version: str | None,
    dry_run: bool,
    jobs: int | None,
    canary: int,
    canary_minutes: float,
    canary_poll: float,
    pace: float,
) -> int:
    """Put a newer version of the template into FEEDSTOCKS, each on a branch of its own. [default: this folder]

    FEEDSTOCKS are folders, or on GitHub `owner/name` or `owner/*`, for which GITHUB_TOKEN is needed. On GitHub each
    gets one pull request; an open one gets the newer version. Run it again after an interruption: it goes on.

    Your files and your working tree stay as they are: look at the branch, merge it or delete it. What you and the
    template both changed stays yours, and is named.

    Ends with 0 if all went well, with 3 if some feedstocks were refused (or, in folders, files are left to you), with
    1 if all were refused.
    """
    folders = [Path(named) for named in feedstocks or (".",) if Path(named).is_dir()]
    names = [named for named in feedstocks if not Path(named).is_dir()]
    for named in names:
        if not fleet.NAME.fullmatch(named):
            raise click.UsageError(f"`{named}` is no folder here, and neither `owner/name` nor `owner/*`")
    if names and folders:
        raise click.UsageError(f"{folders[0]} is a folder and {names[0]} on GitHub: update them in two calls")
    if canary and not names:
        raise click.UsageError("--canary is for feedstocks on GitHub, whose checks it waits for")
    if names:
        gate = Pace(pace, say=_say)
        try:
            with GitHub.from_environment(os.environ, say=_say, pace=gate) as client:
                run = _OnGitHub(client, dry_run=dry_run, jobs=jobs or AT_ONCE)
                return run.update(names, address, version, canary, canary_minutes * 60, canary_poll)
        finally:
            gate.stop()
    return _in_folders([folder.resolve() for folder in folders], address, version, dry_run, jobs or os.cpu_count() or 1)


def _in_folders(folders: list[Path], address: str | None, version: str | None, dry_run: bool, jobs: int) -> int:
    report = _Report(len(folders), dry_run)
    with template.fetched(address or lifecycle.source(folders[0]), version) as fetched:
        for outcome in lifecycle.update(folders, fetched, dry_run=dry_run, jobs=jobs):
            report.show(outcome)
    if report.status:
        return report.status
    return EXIT_PARTLY if any(outcome.conflicts for outcome in report.outcomes) else 0


@dataclass
class _Report:
    """What is printed, an outcome at a time, and the exit status that it comes to."""

    expected: int
    dry_run: bool
    outcomes: list[Outcome] = field(default_factory=list)
    _files: tuple[str, ...] = ()

    def show(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        click.echo(f"[{len(self.outcomes)}/{self.expected}] {outcome.name}: {_words(outcome)}")
        if self.dry_run and outcome.files:
            again = outcome.files == self._files
            click.echo("    the same files" if again else "\n".join(f"    {name}" for name in outcome.files))
            self._files = outcome.files
        for name in outcome.conflicts:
            click.echo(f"    left to you: {name} (changed here and in the template)")
        _print(outcome.findings)

    @property
    def in_vain(self) -> bool:
        """Whether GitHub refused the token for what every update needs."""
        return any(item.rule is fleet.NO_WORKFLOWS for outcome in self.outcomes for item in outcome.findings)

    @property
    def status(self) -> int:
        refused = [outcome for outcome in self.outcomes if outcome.state is State.REFUSED]
        if not refused:
            return 0
        return EXIT_REFUSED if len(refused) == len(self.outcomes) else EXIT_PARTLY


@dataclass(frozen=True)
class _OnGitHub:
    client: GitHub
    dry_run: bool
    jobs: int

    def update(
        self, names: list[str], address: str | None, version: str | None, canary: int, seconds: float, poll: float
    ) -> int:
        client, server = self.client, os.environ.get("GITHUB_SERVER_URL", "https://github.com")
        if not self.dry_run:
            fleet.check_token(client, os.environ.get("FEEDSTOCK_JOB_TOKEN"))
        found = fleet.find(client, names, jobs=self.jobs, say=_say)
        if not found.feedstocks and (address is None or found.refused):
            for outcome in found.refused:
                _print(outcome.findings)
            click.echo(f"no feedstock among {', '.join(names)}")
            return EXIT_REFUSED if found.refused else 0
        address = address or found.feedstocks[0].now.source
        with template.fetched(address, version, token=client.token, server=server) as fetched:
            sorted_ones = list(fleet.sort(found.feedstocks, fetched, names))
            pending = [one for one in sorted_ones if isinstance(one, fleet.Feedstock)]
            settled = [*found.refused, *(one for one in sorted_ones if isinstance(one, Outcome))]
            report = _Report(len(settled) + len(pending), self.dry_run)
            others = found.others + len(found.feedstocks) - len(sorted_ones)
            passed = f"; {others} are no feedstocks of this template" if others else ""
            click.echo(f"{fetched.version}: {len(pending)} to update, {len(settled)} not{passed}")
            for outcome in settled:
                report.show(outcome)
            click.echo(_budget(client, pending))

            def ship(feedstocks: list[fleet.Feedstock]) -> list[Outcome]:
                return self._ship(feedstocks, fetched, server, report)

            canaries: list[Outcome] = []
            while pending and len(canaries) < canary and not self.dry_run and not report.in_vain:
                first, pending = pending[: canary - len(canaries)], pending[canary - len(canaries) :]
                canaries += [outcome for outcome in ship(first) if outcome.commit]
            if canaries and pending:
                gate = client.pace.wait if client.pace else time.sleep
                if against := fleet.watch(client, canaries, seconds=seconds, every=poll, wait=gate, say=_say):
                    _print(against)
                    click.echo(f"stopped after the canaries: {len(pending)} feedstocks stay as they are")
                    self._summarise(report, fetched.version, against)
                    return EXIT_PARTLY
            if not report.in_vain:
                ship(pending)
        if left := report.expected - len(report.outcomes):
            click.echo(f"stopped: {left} feedstocks stay as they are")
        self._summarise(report, fetched.version, ())
        return report.status

    def _summarise(self, report: _Report, version: str, against: tuple[Finding, ...]) -> None:
        summarise(fleet.summary(version, report.outcomes, report.expected, against), os.environ)

    def _ship(
        self, feedstocks: list[fleet.Feedstock], fetched: Template, server: str, report: _Report
    ) -> list[Outcome]:
        made = []
        for outcome in fleet.update(
            self.client, feedstocks, fetched, server=server, dry_run=self.dry_run, jobs=self.jobs
        ):
            report.show(outcome)
            made.append(outcome)
        return made


def _budget(client: GitHub, pending: list[fleet.Feedstock]) -> str:
    """What updating so many costs, in GitHub's own counting."""
    need = len(pending) * (fleet.READS + fleet.WRITES)
    between = client.pace.between if client.pace else BETWEEN
    said = f"API budget: {client.asked} requests so far, about {need} to come, {len(pending)} of them changes"
    said += f" at {between:g} s or more from one to the next"
    if budget := client.budget():
        until = time.strftime("%H:%M", time.localtime(budget["reset"]))
        said += f"; {budget['remaining']:,} of {budget['limit']:,} are left until {until}"
    return said


def _words(outcome: Outcome) -> str:
    where = outcome.page or f"on the branch {outcome.branch}"
    match outcome.state:
        case State.CURRENT:
            return f"has {outcome.version} already"
        case State.AHEAD:
            return f"has {outcome.version}, which is newer"
        case State.WAITING:
            return f"{outcome.version} waits for you: {where}" if outcome.page else f"{outcome.version} waits {where}"
        case State.DECLINED:
            return f"{outcome.version} was declined: {where}"
        case State.PLANNED:
            also = f", in the open {outcome.page}" if outcome.page else ""
            return f"would get {outcome.version} in {len(outcome.files)} files{also}"
        case State.UPDATED:
            return f"{outcome.version} is {where}, {len(outcome.files)} files"
        case State.REFUSED:
            return "refused"


def _print(findings: Iterable[Finding]) -> None:
    for finding in findings:
        click.echo(text(finding), err=True)


def _say(line: str) -> None:
    click.echo(line, err=True)
