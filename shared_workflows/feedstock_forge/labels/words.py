"""Labels for people: decisions and audits as text, Markdown and JSON."""

from __future__ import annotations

from typing import Any

from .. import report
from ..markdown import code
from .audit import Audit
from .consent import Decision


def verdict(decision: Decision, wanted: tuple[str, ...]) -> str:
    """``allowed``, ``not allowed``, or which recipes are."""
    if not decision.recipes:
        return "not allowed"
    if decision.recipes == wanted:
        return "allowed"
    return f"allowed for {len(decision.recipes)} of {len(wanted)} recipes"


def explained(subject: str, decision: Decision, wanted: tuple[str, ...]) -> str:
    """A decision for a terminal: every condition with a tick or a cross and its place, and the one thing to do."""
    lines = [f"{subject}: {verdict(decision, wanted)}"]
    for condition in decision.conditions:
        where = f"  {condition.place}" if condition.place else ""
        lines.append(f"  {'✓' if condition.holds else '✗'} {condition.what}{where}")
        if condition.finding:
            lines.append(f"      {condition.finding.id}: {condition.finding.message}")
    if decision.first:
        lines += ["", f"fix: {decision.first.fix}", f"who: {decision.first.who}"]
    return "\n".join(lines)


def explained_json(subject: str, decision: Decision, wanted: tuple[str, ...]) -> dict[str, Any]:
    """A decision as JSON values."""
    return {
        "subject": subject,
        "verdict": verdict(decision, wanted),
        "recipes": list(decision.recipes),
        "conditions": [
            {
                "what": condition.what,
                "holds": condition.holds,
                "place": str(condition.place) if condition.place else None,
                "finding": condition.finding.id if condition.finding else None,
                "message": condition.finding.message if condition.finding else None,
                "fix": condition.finding.fix if condition.finding else None,
                "who": str(condition.finding.who) if condition.finding else None,
            }
            for condition in decision.conditions
        ],
    }


def audited_json(audit: Audit) -> dict[str, Any]:
    """An audit as JSON values."""
    return {
        "consents": [
            {
                "bakery": row.bakery,
                "label": row.label,
                "repository": row.repository,
                "recipes": list(row.recipes),
                "events": list(row.events),
                "until": row.until.isoformat() if row.until else None,
                "state": row.state,
            }
            for row in audit.consents
        ],
        "deployments": None
        if audit.live is None
        else [
            {
                "name": row.name,
                "pool": row.pool,
                "queue": row.queue,
                "repository": row.repository,
                "paused": row.paused,
                "waiting": [name for _, name in row.waiting],
                "drifted": row.drifted,
                "findings": [{"id": item.id, "message": item.message, "fix": item.fix} for item in row.findings],
            }
            for row in audit.live
        ],
        "findings": [
            {"id": item.id, "place": str(item.place), "message": item.message, "fix": item.fix}
            for item in audit.findings
        ],
    }


_CONSENT_HEAD = ("bakery", "label", "who", "recipes", "events", "until", "state")
_LIVE_HEAD = ("deployment", "pool/queue", "repository", "state")


def _consents(audit: Audit) -> list[tuple[str, ...]]:
    return [
        (
            row.bakery,
            row.label,
            row.repository,
            ", ".join(row.recipes),
            ", ".join(row.events),
            row.until.isoformat() if row.until else "no end",
            row.state,
        )
        for row in audit.consents
    ]


def _live(audit: Audit) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for row in audit.live or ():
        state = "paused" if row.paused else "within the grants"
        if row.findings:
            state = f"{'paused' if row.paused else 'beyond the grants'}: {', '.join(item.id for item in row.findings)}"
        if row.findings and row.waiting:
            state += f"; {len(row.waiting)} waiting"
        rows.append((row.name, f"{row.pool}/{row.queue}", row.repository, state))
    return rows


def audited(audit: Audit) -> str:
    """An audit for a terminal: two tables."""
    return "\n".join([*_table(_CONSENT_HEAD, _consents(audit)), "", *_table(_LIVE_HEAD, _live(audit))]).rstrip()


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]


def audited_markdown(audit: Audit) -> str:
    """An audit as a page: who may run what until when, what runs beyond it, and what is wrong with the files."""
    lines = ["### Who may run what, until when", ""]
    lines += _markdown(_CONSENT_HEAD, _consents(audit)) or ["Nobody."]
    if audit.live is not None:
        lines += ["", "### Deployments at the bakeries", "", *(_markdown(_LIVE_HEAD, _live(audit)) or ["None."])]
        drifted = [item for row in audit.live if row.drifted for item in row.findings]
        if drifted:
            lines += ["", "### Beyond the grants", "", *(report.finding(item) for item in drifted)]
    if audit.findings:
        lines += ["", "### Files to mend", "", *(report.finding(item) for item in audit.findings)]
    return "\n".join(lines)


def _markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(code(cell) for cell in row)} |" for row in rows]
