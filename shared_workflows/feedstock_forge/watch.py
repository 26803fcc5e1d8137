"""Following flow runs until they end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .findings import Finding, Refused, Severity, Who, rule, visible
from .prefect import Prefect

NO_RUNS = rule("watch-no-runs", "There is nothing to follow.")
TIMEOUT = rule(
    "watch-timeout", "The runs go on; only the watching ended.", severity=Severity.WARNING, who=Who.MAINTAINER
)
FAILED = rule("run-failed", "The dataset stays as it was before the run.", who=Who.MAINTAINER)
NOBODY = rule("run-not-picked-up", "A run waits until a worker of the bakery listens to its label.", who=Who.OPERATOR)

POLL = 2.0
"""Seconds between looks."""
LONELY = 60.0
"""Seconds after which a run that no worker has picked up is worth a word."""

LATE = 5.0
"""Seconds that the last lines of a log may come after the run has ended."""
_AGAIN = 0.25
# What Prefect's engine says at the end of each run that it has not lost.
_END = "Finished in state"

_ENDED = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


@dataclass(frozen=True, slots=True)
class Watched:
    """A run as it was last seen."""

    id: str
    name: str
    state: str
    """Prefect's state type: ``SCHEDULED``, ``RUNNING``, ``COMPLETED``, …"""
    label: str
    """The state's name for people, such as ``Late``."""
    message: str
    seconds: float
    target: str
    created: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    """The tags that :mod:`feedstock_forge.register` writes as ``name:value``."""

    @property
    def ended(self) -> bool:
        """Whether the run will not change any more."""
        return self.state in _ENDED

    @property
    def succeeded(self) -> bool:
        """Whether it ended well."""
        return self.state == "COMPLETED"


def watch(
    look: Callable[[], list[Watched]],
    *,
    timeout: float,
    say: Callable[[str], None],
    poll: float = POLL,
    changed: Callable[[list[Watched]], None] = lambda _: None,
) -> list[Watched]:
    """Look until every run has ended or ``timeout`` seconds have passed; says each change of state once.

    ``changed`` is called with all runs after each look at which one of them had changed.

    Raises :class:`Refused` if there are no runs.
    """
    began = time.monotonic()
    seen: dict[str, str] = {}
    lonely: set[str] = set()
    while True:
        runs = look()
        if not runs:
            raise Refused(
                NO_RUNS.at(None, "no such run is known to Prefect", "register first, and name the same event")
            )
        waited = time.monotonic() - began
        news = any(seen.get(run.id) != run.label for run in runs)
        for run in runs:
            if seen.get(run.id) != run.label:
                seen[run.id] = run.label
                say(f"[{waited:4.0f} s] {run.name}: {run.label.lower()}")
            if run.state in ("SCHEDULED", "PENDING") and waited > LONELY and run.id not in lonely:
                lonely.add(run.id)
                say(
                    f"[{waited:4.0f} s] {run.name}: no worker has picked it up yet; `feedstock bakery serve` starts one"
                )
        if news:
            changed(runs)
        if all(run.ended for run in runs) or waited >= timeout:
            return runs
        time.sleep(min(poll, max(timeout - waited, 0)))


def findings(client: Prefect, runs: list[Watched], timeout: float) -> list[Finding]:
    """What is wrong with runs that did not end well."""
    found = []
    for run in runs:
        if run.succeeded:
            continue
        page = client.page(run.id)
        if run.ended:
            message = f"{run.name} {run.label.lower()}: {run.message or 'no reason given'}"
            found.append(FAILED.at(None, message, f"see {page}"))
        elif run.state in ("SCHEDULED", "PENDING"):
            message = f"{run.name} was not picked up within {timeout:g} s"
            found.append(NOBODY.at(None, message, "start a worker: `feedstock bakery serve BAKERY --label LABEL`"))
        else:
            message = f"{run.name} is still {run.label.lower()} after {timeout:g} s"
            found.append(TIMEOUT.at(None, message, f"nothing: it is reported when it ends; or see {page}"))
    return found


def last_words(client: Prefect, run: Watched) -> list[str]:
    """The last lines that a run logged, made safe to print; none for a run that ended well.

    A run's log is sent in batches and comes after its state: waits for the line that ends it, :data:`LATE` at most.
    """
    if run.succeeded:
        return []
    end = time.monotonic() + LATE
    while True:
        messages = client.last_logs(run.id)
        if run.state != "FAILED" or any(_END in message for message in messages) or time.monotonic() > end:
            return [visible(line) for message in messages for line in message.splitlines()]
        time.sleep(_AGAIN)


def watched(row: dict[str, Any]) -> Watched:
    """A run from Prefect's answer, its words safe to print: a recipe's code may have chosen them."""
    state, parameters = row.get("state") or {}, row.get("parameters") or {}
    return Watched(
        id=row["id"],
        name=visible(row["name"]),
        state=row.get("state_type") or "SCHEDULED",
        label=visible(row.get("state_name") or "Scheduled"),
        message=(state.get("message") or "").strip().split("\n")[0],
        seconds=float(row.get("total_run_time") or 0),
        target=visible(str(parameters.get("target", ""))),
        created=str(row.get("created") or ""),
        parameters=parameters,
        tags={
            name: value for name, separator, value in (tag.partition(":") for tag in row.get("tags") or []) if separator
        },
    )
