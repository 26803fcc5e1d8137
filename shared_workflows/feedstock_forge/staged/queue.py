"""The recipes that wait: every open pull request of a staged-recipes repository, the longest waiting first."""

from __future__ import annotations

import datetime
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass

from ..findings import visible
from ..github import GitHub
from .turn import Standing, Turn, standing

_ORDER = [Turn.REVIEWER, Turn.READY, Turn.CHECKING, Turn.CONTRIBUTOR]
"""Whom a reader of the queue can help first."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A pull request that waits, and for whom."""

    number: int
    title: str
    author: str
    page: str
    standing: Standing


def read(client: GitHub, repository: str) -> list[Waiting]:
    """The queue as it stands, reviewers' turns first. Raises :class:`Refused` if GitHub cannot be asked."""
    found = [
        Waiting(
            number=int(pull["number"]),
            title=visible(str(pull["title"])),
            author=str((pull.get("user") or {}).get("login") or "a person who left"),
            page=str(pull["html_url"]),
            standing=standing(client, repository, pull),
        )
        for pull in client.pages(f"/repos/{repository}/pulls", {"state": "open"})
    ]
    return sorted(found, key=lambda item: (_ORDER.index(item.standing.turn), item.standing.since, item.number))


def span(since: datetime.datetime, now: datetime.datetime) -> str:
    """How long, for people: ``3 days``."""
    seconds = max((now - since).total_seconds(), 0)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "a moment"


def table(queue: Sequence[Waiting], now: datetime.datetime) -> str:
    """For a terminal."""
    rows = [
        (f"#{item.number}", item.standing.turn.value, span(item.standing.since, now), item.author, item.title)
        for item in queue
    ]
    if not rows:
        return "nothing waits\n"
    heads = ("", "turn", "waits", "by", "title")
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(4)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:4], widths, strict=True)), row[4][:80]]).rstrip()
        for row in [heads, *rows]
    ]
    return "\n".join(lines) + "\n"


def as_json(queue: Sequence[Waiting], now: datetime.datetime) -> str:
    """For programs: seconds of waiting, and everything that the table has."""
    rows = [
        {
            "number": item.number,
            "title": item.title,
            "author": item.author,
            "page": item.page,
            "turn": item.standing.turn.value,
            "since": item.standing.since.isoformat(),
            "seconds": int((now - item.standing.since).total_seconds()),
            "because": item.standing.because,
        }
        for item in queue
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def page(queue: Sequence[Waiting], repository: str, now: datetime.datetime) -> str:
    """A page that stands by itself: no script, no other file, readable on a phone."""
    rows = "\n".join(
        f'<tr><td data-turn="{item.standing.turn}">{item.standing.turn}</td>'
        f'<td><time datetime="{item.standing.since.isoformat()}">{span(item.standing.since, now)}</time></td>'
        f'<td><a href="{html.escape(item.page)}">#{item.number}</a> {html.escape(item.title)}'
        f"<small>{html.escape(item.author)} · {html.escape(item.standing.because)}</small></td></tr>"
        for item in queue
    )
    body = (
        f"<table><thead><tr><th>turn</th><th>waits</th><th>recipe</th></tr></thead><tbody>\n{rows}\n</tbody></table>"
        if queue
        else "<p>Nothing waits.</p>"
    )
    return _PAGE.format(
        repository=html.escape(repository), count=len(queue), body=body, made=now.strftime("%Y-%m-%d %H:%M UTC")
    )


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Recipes that wait in {repository}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ width: 100%; border-collapse: collapse; }}
th, td {{ text-align: left; vertical-align: top; padding: .6rem 1rem .6rem 0; border-top: 1px solid #8884; }}
th {{ font-weight: 600; border-top: 0; }}
td:nth-child(-n+2) {{ white-space: nowrap; }}
td:last-child {{ overflow-wrap: anywhere; }}
small {{ display: block; opacity: .75; }}
[data-turn="review-requested"] {{ font-weight: 600; }}
@media (max-width: 40rem) {{
  thead {{ display: none; }}
  td {{ display: inline; border: 0; padding: 0 .6rem 0 0; }}
  tr {{ display: block; border-top: 1px solid #8884; padding: .6rem 0; }}
  td:last-child {{ display: block; }}
}}
</style>
</head>
<body>
<main>
<h1>Recipes that wait</h1>
<p>{count} open in {repository}, as of {made}. What reviewers can act on comes first, the longest waiting on top.</p>
{body}
</main>
</body>
</html>
"""
