"""What people read: job summaries in Markdown, and the last line of a command.

Text from outside (titles, descriptions, log lines) goes through :mod:`markdown`, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .findings import DOCUMENTATION, Finding
from .labels import Decision
from .markdown import code, escape
from .plan import Plan
from .register import Deployment, Outcome
from .trigger import Trigger
from .watch import Watched

SUMMARY_ROWS = 100
"""Rows of a table in a summary; GitHub cuts a summary of over 1 MiB off whole."""


def summarise(markdown: str, environment: Mapping[str, str]) -> None:
    """Append Markdown to the job summary, in GitHub Actions."""
    if path := environment.get("GITHUB_STEP_SUMMARY"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(markdown + "\n")


def nothing(because: str) -> str:
    """The summary of an event that registers nothing."""
    return f"### Nothing to register\n\n{escape(because)}"


def finding(item: Finding) -> str:
    """A finding as a list item."""
    where = f" ({code(str(item.place))})" if item.place else ""
    return (
        f"- **{item.id}**{where}: {escape(item.message)}\n"
        f"  **Fix:** {code(item.fix)} · **Who:** {item.who} · `{DOCUMENTATION}#{item.id}`"
    )


def registered(
    trigger: Trigger,
    plan: Plan,
    decided: list[Decision],
    wanted: list[Deployment],
    outcome: Outcome,
    ui: str,
    dry_run: bool,
) -> str:
    """The summary of a registration: what stands in Prefect now, what was started, and every no with its fix."""
    verb = "Would register" if dry_run else "Registered"
    version = trigger.version[:12] if trigger.version == trigger.commit else trigger.version
    lines = [f"### {verb} {code(plan.feedstock)} {code(version)}", ""]
    if not decided:
        lines.append(f"`meta.yaml` asks for no label on **{trigger.event}**, so nothing runs anywhere.")
    if wanted:
        lines += ["| deployment | label | runs | dataset |", "|---|---|---|---|"]
        rows = [(deployment, run) for deployment in wanted for run in deployment.runs]
        started = {run.key for run in outcome.started}
        for deployment, run in rows[:SUMMARY_ROWS]:
            state = "started" if run.key in started else "was started before"
            lines.append(
                f"| {code(deployment.flow)} | {code(deployment.name)} | {state} | {code(run.parameters['target'])} |"
            )
        if len(rows) > SUMMARY_ROWS:
            lines.append(f"| … and {len(rows) - SUMMARY_ROWS} more | | | |")
        if ui:
            lines += ["", f"Follow them at <{ui}/runs>."]
    findings = [item for decision in decided for item in decision.findings]
    if findings:
        lines += ["", "#### Not registered", "", *(finding(item) for item in findings)]
    return "\n".join(lines)


def registered_line(outcome: Outcome, decided: list[Decision], trigger: Trigger, dry_run: bool) -> str:
    """The last line of ``feedstock register``."""
    if not decided:
        return f"nothing to register: meta.yaml asks for no label on {trigger.event}"
    counts = [
        (len(outcome.created), "created"),
        (len(outcome.updated), "updated"),
        (len(outcome.unchanged), "unchanged"),
    ]
    deployments = ", ".join(f"{count} {word}" for count, word in counts if count) or "none"
    known = f", {len(outcome.known)} started before" if outcome.known else ""
    prefix = "dry run: " if dry_run else ""
    return f"{prefix}deployments: {deployments}; runs: {len(outcome.started)} started{known}"


def ended(runs: list[Watched], wrong: list[Finding], ui: str) -> str:
    """The summary of watched runs."""
    good = sum(run.succeeded for run in runs)
    lines = [f"### {good} of {len(runs)} run{'s' if len(runs) > 1 else ''} completed", ""]
    lines += ["| run | state | time | dataset |", "|---|---|---|---|"]
    for run in runs[:SUMMARY_ROWS]:
        name = f"[{escape(run.name)}]({ui}/runs/flow-run/{run.id})"
        lines.append(f"| {name} | {escape(run.label)} | {run.seconds:.0f} s | {code(run.target)} |")
    if wrong:
        lines += ["", *(finding(item) for item in wrong[:20])]
    return "\n".join(lines)


def ended_line(run: Watched) -> str:
    """One run at the end, for a terminal."""
    return f"{run.name}: {run.label.lower()} in {run.seconds:.0f} s; {run.target}"


def reconciled(looked: int, mended: list[str]) -> str:
    """The summary of a reconcile."""
    lines = [f"### {len(mended)} of {looked} version{'s' if looked != 1 else ''} mended", ""]
    return "\n".join([*lines, *(f"- {escape(line)}" for line in mended[:SUMMARY_ROWS])])
